# Signpost's image: one static binary on a base without a shell, run by a user
# without rights. Needs BuildKit, which every current Docker has.
#
#   GO_IMAGE, RUNTIME_IMAGE  other bases, for example pinned by digest for a release
#   VERSION, COMMIT, CREATED what the binary and the labels say
#   GOPROXY, HTTPS_PROXY, …  how the build reaches Go modules, where that is not direct
#   secret ca_certificates   a bundle of authorities to trust during the build, where
#                            a proxy signs connections anew

# The defaults stand in FROM lines of their own, where update bots look for them.
ARG GO_IMAGE=go-default
ARG RUNTIME_IMAGE=runtime-default
FROM --platform=$BUILDPLATFORM golang:1.26 AS go-default
FROM gcr.io/distroless/static-debian12:nonroot AS runtime-default

# The compiler runs on the builder's own platform, whatever it builds for.
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
ARG GOPROXY
ENV GOTOOLCHAIN=local CGO_ENABLED=0
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=secret,id=ca_certificates \
    if [ -s /run/secrets/ca_certificates ]; then export SSL_CERT_FILE=/run/secrets/ca_certificates; fi; \
    go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
ARG COMMIT=unknown
# The same flags as "make build": the same commit and Go give the same bytes.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    mkdir -p /out/spool /out/archive && GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -buildid= -X github.com/signpost/signpost/internal/cli.version=$VERSION -X github.com/signpost/signpost/internal/cli.commit=$COMMIT" -o /out/signpost .

FROM ${RUNTIME_IMAGE}
ARG VERSION=dev
ARG COMMIT=unknown
ARG CREATED
LABEL org.opencontainers.image.title="Signpost" \
      org.opencontainers.image.description="A self-hosted URL shortener whose numbers can be trusted" \
      org.opencontainers.image.source="https://github.com/signpost/signpost" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.created="$CREATED"
COPY --from=build /out/signpost /usr/local/bin/signpost
# A new volume mounted here takes over the owner. Nothing else is written to.
COPY --from=build --chown=65532:65532 /out/spool /var/lib/signpost/spool
COPY --from=build --chown=65532:65532 /out/archive /var/lib/signpost/archive
USER 65532:65532
EXPOSE 8080 9090
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["/usr/local/bin/signpost", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/signpost"]
CMD ["api"]
