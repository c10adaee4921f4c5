# syntax=docker/dockerfile:1

# Alpine's Rust makes static binaries: the agent's is copied into Falco's own image, whose libraries it can't count on.
FROM --platform=$BUILDPLATFORM tonistiigi/xx:1.6.1 AS xx
FROM --platform=$BUILDPLATFORM rust:1.95.0-alpine AS build
COPY --from=xx / /
RUN apk add --no-cache clang lld make
ARG TARGETPLATFORM
# ring's assembly and C need the headers of the target.
RUN xx-apk add --no-cache gcc musl-dev
WORKDIR /src
COPY . .
# The image's toolchain is the pinned one, by its full name; rustup need not fetch another.
ENV RUSTUP_TOOLCHAIN=1.95.0
# Paths of the build would differ from machine to machine, and the binary with them: Rust's, and those of the C in some
# dependencies.
ENV CFLAGS="-ffile-prefix-map=/src=. -ffile-prefix-map=/usr/local/cargo=cargo"
ENV RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=target-$TARGETPLATFORM \
    xx-cargo build --locked --release --bin falco-operator \
    && install -D "target/$(xx-cargo --print-target-triple)/release/falco-operator" /out/falco-operator \
    && xx-verify --static /out/falco-operator

FROM scratch
LABEL org.opencontainers.image.title="falco-operator" \
      org.opencontainers.image.description="Falco rules owned by the developers whose workloads they watch" \
      org.opencontainers.image.source="https://github.com/mumoshu/falco-operator" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/falco-operator /usr/local/bin/falco-operator
# Nobody in particular; the number is what the chart's security contexts say too.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/falco-operator"]
