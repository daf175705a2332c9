# nexo-receiver as a small image: one binary, no shell, no root.
#
#   docker build -t nexo-receiver .
#
# To pin a base image for good, give its digest after the tag, e.g.
# RUST_TAG=1.95-bookworm@sha256:... (`docker buildx imagetools inspect rust:1.95-bookworm` shows it).
ARG RUST_TAG=1.95-bookworm
ARG RUNTIME_TAG=nonroot


FROM docker.io/library/rust:${RUST_TAG} AS build
WORKDIR /build

# The dependencies (SQLite and the TLS library are compiled from C) make a layer of their own: it is
# built again only when Cargo.toml, Cargo.lock, .cargo/ or vendor/ changes. The stand-in crate is then cleaned away, so
# that cargo, which goes by file times, can't take it for the real one.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY vendor vendor
RUN mkdir src \
    && echo '//! Stand-in.' > src/lib.rs \
    && { echo '//! Stand-in.'; echo 'fn main() {}'; } > src/main.rs \
    && cargo build --release --locked --bin nexo-receiver \
    && cargo clean --release --locked -p nexo-receiver \
    && rm -r src

# migrations/ and config/default.toml are embedded in the binary.
COPY src src
COPY migrations migrations
COPY config config
RUN cargo build --release --locked --bin nexo-receiver \
    && install -D target/release/nexo-receiver /out/bin/nexo-receiver \
    && install -d -m 0750 /out/lib/nexo-receiver


FROM gcr.io/distroless/cc-debian12:${RUNTIME_TAG}

COPY --from=build /out/bin/ /usr/local/bin/
# The data folder belongs to the user below; a volume first mounted here takes that over.
COPY --from=build --chown=65532:65532 /out/lib/ /var/lib/

# SQLITE_TMPDIR: a big sort spills there when the root file system is read-only.
ENV HOST=0.0.0.0 \
    PORT=3000 \
    DATA_DIR=/var/lib/nexo-receiver \
    SQLITE_TMPDIR=/var/lib/nexo-receiver \
    LOG_FORMAT=json

# By number, so that Kubernetes' runAsNonRoot can tell that it isn't root.
USER 65532:65532
VOLUME ["/var/lib/nexo-receiver"]
EXPOSE 3000
# It then serves on for 5 s, so that load balancers notice, and finishes what is under way within 20 s: `docker run
# --stop-timeout 30` lets it.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/nexo-receiver", "health"]

ENTRYPOINT ["/usr/local/bin/nexo-receiver"]
CMD ["serve"]

# Last, so that a new version or commit costs no layer above.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nexo-receiver" \
      org.opencontainers.image.description="Receives NEXO ROUTE's delivery webhooks, keeps them durably and answers what became of an OTP" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
