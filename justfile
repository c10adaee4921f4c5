# The project's tasks by short names; each is one command that also works without just.

# What there is.
default:
    @just --list

# Everything that must hold before a change lands.
ci:
    .ci/run

# The product at work in a real cluster on this machine: `just demo --nodes 5 --keep`.
demo *args:
    cargo xtask demo {{args}}

# All tests, or those whose name contains a word; builds what they need.
test *filter:
    cargo xtask test {{filter}}

# What an edit costs: times, API writes, memory.
bench *args:
    cargo xtask bench {{args}}

# Grafana's dashboards from their tables, and their pictures from the last run of the telemetry tests.
dashboards:
    cargo xtask dashboards
    cargo xtask pictures

# The pinned Kubernetes tools, built into the cache.
tools *args:
    cargo xtask tools {{args}}

# Formats all code.
fmt:
    cargo fmt --all

# All lints, as strict as CI.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Dependencies: licences, bans, sources (needs cargo-deny, which `.ci/run` installs into the cache).
deny:
    cargo deny check licenses bans sources

# Prints the kinds' definitions into crd/, which CI compares.
crd:
    cargo run --quiet --bin falco-operator -- crd --output crd
