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

# Fuzzes a target until it is stopped: `just fuzz condition`. Needs a nightly compiler and cargo-fuzz.
fuzz target *args:
    cargo +nightly fuzz run --fuzz-dir fuzz {{target}} {{args}}

# All lints, as strict as CI.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Dependencies: licences, bans, sources (needs cargo-deny, which `.ci/run` installs into the cache).
deny:
    cargo deny check licenses bans sources

# Prints the kinds' definitions into crd/, which CI compares.
crd:
    cargo run --quiet --bin falco-operator -- crd --output crd

# Links and commands of the documentation, and the pages that are made from the program: writes them anew.
docs:
    UPDATE_REFERENCE=1 cargo test --quiet --lib cli::reference
    UPDATE_REFERENCE=1 cargo test --quiet --test chart values
    cargo test --quiet --test docs

# The schemas of the oldest Kubernetes that the chart is checked against, trimmed (needs Go).
schemas:
    cargo xtask schemas

# A static program, as the image has it: `just static aarch64-unknown-linux-musl aarch64-linux-gnu-gcc`.
static target="x86_64-unknown-linux-musl" compiler="musl-gcc":
    rustup target add {{target}}
    CC_{{replace(target, "-", "_")}}={{compiler}} CARGO_TARGET_{{uppercase(replace(target, "-", "_"))}}_LINKER=rust-lld CARGO_TARGET_{{uppercase(replace(target, "-", "_"))}}_RUSTFLAGS="-C link-self-contained=yes" cargo build --locked --release --target {{target}} --bin falco-operator

# The static program runs where there is nothing else: in an empty folder as its root (needs root).
static-proof target="x86_64-unknown-linux-musl":
    tests/static.sh target/{{target}}/release/falco-operator

# A bill of materials of the program, as CycloneDX (installs cargo-cyclonedx into the cache).
sbom:
    cargo install cargo-cyclonedx --version 0.5.9 --locked --root "${XDG_CACHE_HOME:-$HOME/.cache}/falco-operator/cargo"
    "${XDG_CACHE_HOME:-$HOME/.cache}/falco-operator/cargo/bin/cargo-cyclonedx" cyclonedx --format json --describe binaries --spec-version 1.5
