# The image of a node: `docker build -t meshfold .`, or with bases of your own:
#
#   docker build --build-arg BASE=registry.example/python:3.11 --build-arg BUILDER=registry.example/rust -t meshfold .
#
# BASE is what the image runs on: Python 3.11 or newer with venv, and glibc 2.34 or newer (Debian 12, RHEL 9).
# BUILDER has Rust 1.90 or newer and a C linker; it gets Python from apt where it has none. Both are the same architecture.
# Nothing here needs BuildKit, so that an older engine builds it as well.
ARG BASE=python:3.11-slim
ARG BUILDER=rust:1-slim-bookworm

FROM ${BUILDER} AS wheels
WORKDIR /src
RUN command -v python3 >/dev/null && python3 -m venv --help >/dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv; }
COPY requirements/build.txt requirements/
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/build.txt
COPY . .
RUN tools/wheels.sh /dist

# The environment is made where it will run: its interpreter is that of BASE.
FROM ${BASE} AS environment
RUN python3 -m venv /opt/meshfold
COPY requirements/run.txt /tmp/run.txt
RUN /opt/meshfold/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/run.txt
COPY --from=wheels /dist /tmp/dist
RUN /opt/meshfold/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /tmp/dist/*.whl \
    && /opt/meshfold/bin/python -m compileall -q /opt/meshfold/lib \
    && /opt/meshfold/bin/pip uninstall --yes --quiet pip setuptools \
    && mkdir -m 0700 /var/lib/meshfold /broker

FROM ${BASE}
LABEL org.opencontainers.image.title="meshfold" \
    org.opencontainers.image.description="A node of a Meshfold mesh" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=environment /opt/meshfold /opt/meshfold
COPY --from=environment --chown=65532:65532 /var/lib/meshfold /var/lib/meshfold
# Where `init --server-config` can leave what a broker's container needs; a fresh volume takes over its owner.
COPY --from=environment --chown=65532:65532 /broker /broker
ENV PATH=/opt/meshfold/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/meshfold \
    MESHFOLD_STATE_DIR=/var/lib/meshfold/node \
    MESHFOLD_HEALTH_LISTEN=0.0.0.0:8080 \
    MESHFOLD_LOG_FORMAT=json
# A number and no name, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /var/lib/meshfold
# All that a node writes. The rest may be read-only.
VOLUME /var/lib/meshfold
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["meshfold", "node", "health"]
ENTRYPOINT ["meshfold"]
CMD ["node", "run"]
