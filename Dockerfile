# One image for every process of llmlab; the command says which (services/runtime/launch.py):
#
#   docker build --tag llmlab .
#   docker run --rm llmlab gateway|orchestrator|metrics|cost|identity|worker|migrate|owner|health
#
# BASE is any image with Python 3.11 - 3.13 as `python3` and its venv module. BASE_RUNTIME may be a smaller one with the same
# minor version of Python: no shell and no package manager is needed at run time.
ARG BASE=python:3.13-slim-bookworm
ARG BASE_RUNTIME=${BASE}

FROM ${BASE} AS build
WORKDIR /build
RUN ["python3", "-m", "venv", "/build/venv"]
COPY requirements-services.txt ./
# Nothing can be compiled at run time, on a read-only file system; by content instead of by time it is the same bytes each
# time. Tests of packages stay out. Hashes make it the same packages everywhere. An index of one's own comes as a secret, and stays out of the image:
#   docker build --secret id=pip_config,src=pip.conf .
RUN --mount=type=secret,id=pip_config,target=/etc/pip.conf \
    /build/venv/bin/pip install --disable-pip-version-check --no-cache-dir --no-compile --require-hashes \
        --only-binary :all: --no-binary rouge-score --target /opt/llmlab --requirement requirements-services.txt \
    && rm -rf /opt/llmlab/bin \
    && find /opt/llmlab -type d -name tests -path '*/scipy/*' -prune -exec rm -rf {} + \
    && find /opt/llmlab -type d -name tests -path '*/numpy/*' -prune -exec rm -rf {} + \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/llmlab
COPY llmlab /opt/llmlab/llmlab
COPY services /opt/llmlab/services
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/llmlab/llmlab /opt/llmlab/services \
    && mkdir -p /var/lib/llmlab

FROM ${BASE_RUNTIME}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="llmlab" \
      org.opencontainers.image.description="Know what you get for your money from language models" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/llmlab /opt/llmlab
COPY --from=build --chown=10001:10001 /var/lib/llmlab /var/lib/llmlab
ENV PYTHONPATH=/opt/llmlab \
    PYTHONUNBUFFERED=1 \
    LLMLAB_HOST=0.0.0.0 \
    LLMLAB_HOME=/var/lib/llmlab \
    LLMLAB_HEALTH_PORT=7400 \
    LLMLAB_TELEMETRY_PORT=7401 \
    LLMLAB_LOG_FORMAT=json
WORKDIR /var/lib/llmlab
USER 10001:10001
EXPOSE 7400 7401 7410 7411 7412 7413 7414
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python3", "-m", "services.runtime.launch", "health"]
ENTRYPOINT ["python3", "-m", "services.runtime.launch"]
