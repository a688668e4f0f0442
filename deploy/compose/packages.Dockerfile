# PostgreSQL and Redis from a Debian base's packages, for `make compose-test` where no image can be pulled.
ARG BASE
FROM ${BASE}
ENV DEBIAN_FRONTEND=noninteractive
# The base says which versions there are.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql redis-server \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /var/lib/postgresql/data \
    && chown -R postgres:postgres /var/lib/postgresql
COPY packages-postgres.py /usr/local/bin/llmlab-postgres
HEALTHCHECK NONE
# hadolint ignore=DL3066
USER postgres
