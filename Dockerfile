# docker build -t perfpower-exporter .
#
# BASE is for a mirror of the registry or another Python, 3.11 or newer. buildah needs --format docker, since
# its own format has no HEALTHCHECK.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/perfpower && mkdir /state

COPY requirements.lock ./
RUN pip --python /opt/perfpower/bin/python install --require-hashes --only-binary :all: --no-compile -r requirements.lock

# What builds the wheel is locked too, among the tools for development.
COPY requirements-dev.lock ./
RUN awk '/^[^ #]/ {wanted = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/} wanted' requirements-dev.lock > build.lock \
 && pip install --require-hashes --only-binary :all: -r build.lock

COPY pyproject.toml README.md LICENSE ./
COPY exporter/ exporter/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheel . \
 && pip --python /opt/perfpower/bin/python install --no-deps --no-index --no-compile wheel/*.whl

# Nobody may write where the program lies, so it would be compiled anew at each health check, twice a minute. This
# keeps the bytecode of what it imports, Python's own modules included: half a second of processor time each.
RUN PYTHONPYCACHEPREFIX=/opt/bytecode /opt/perfpower/bin/python -P -c 'import encodings.idna, exporter.check, exporter.cli, exporter.demo, \
    exporter.healthcheck, exporter.otlp.grpc_sink, http.client, \
    opentelemetry.exporter.otlp.proto.http.metric_exporter, opentelemetry.exporter.otlp.proto.grpc.metric_exporter'

# 67 MB on top of its base: gRPC 18, cryptography 15, the bytecode above 11. The base is Debian's, since every locked
# package has a wheel for it; its shell and its packages are not used at run time.
FROM ${BASE}
LABEL org.opencontainers.image.title="perfpower-exporter" \
      org.opencontainers.image.description="App Store performance metrics as OpenTelemetry" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/perfpower /opt/perfpower
COPY --from=build /opt/bytecode /opt/bytecode
COPY --from=build --chown=10001:10001 /state /var/lib/perfpower

ENV PATH=/opt/perfpower/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPYCACHEPREFIX=/opt/bytecode \
    PERFPOWER_STATE=/var/lib/perfpower/state.db \
    PERFPOWER__HTTP__LISTEN=0.0.0.0:13134
WORKDIR /var/lib/perfpower
VOLUME /var/lib/perfpower
EXPOSE 13134
USER 10001:10001
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["perfpower-exporter", "healthcheck"]
ENTRYPOINT ["perfpower-exporter"]
CMD ["run"]
