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
# Hashes make it the same packages everywhere. An index of one's own comes as a secret, and stays out of the image:
#   docker build --secret id=pip_config,src=pip.conf .
RUN --mount=type=secret,id=pip_config,target=/etc/pip.conf \
    /build/venv/bin/pip install --disable-pip-version-check --no-cache-dir --no-compile --require-hashes \
        --only-binary :all: --no-binary rouge-score --target /opt/llmlab --requirement requirements-services.txt
# A quarter of what the packages hold is of no use here: programs, tests, what only compilers and type checkers read; the build
# tree of CEL and those of its functions that are not switched on.
WORKDIR /opt/llmlab
RUN rm -rf bin bazel-project cel_expr_python/ext \
    && find . -type d '(' -name test -o -name tests -o -name include ')' -prune -exec rm -rf {} + \
    && find . -type f '(' -name '*.py[ix]' -o -name '*.px[di]' ')' -delete
# Arrow's network, clouds and ORC, and its libraries once more under names that nothing loads.
WORKDIR /opt/llmlab/pyarrow
RUN rm -rf src ./*flight* ./*s3* ./*gcsfs* ./*azurefs* ./*hdfs* ./*orc* ./_substrait* ./_pyarrow_cpp_tests* \
    libarrow_python*.so libarrow_python*.so.*.*
# All of SciPy but special functions and graphs.
WORKDIR /opt/llmlab/scipy
RUN rm -rf cluster datasets differentiate fftpack integrate interpolate io misc ndimage odr optimize signal spatial stats
WORKDIR /opt/llmlab
# What processes load late is still found. Nothing can be compiled at run time, on a read-only file system; by content instead of
# by time it is the same bytes each time.
RUN python3 -B -c 'import cel_expr_python.cel, pyarrow.parquet, rouge_score.rouge_scorer, sacrebleu, scipy.sparse.csgraph, scipy.special' \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash .
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
