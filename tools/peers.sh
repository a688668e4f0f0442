#!/bin/sh
# Makes .venv-peers with the servers that `make test-peers` runs the gateway against; run from the root of the repository.
set -eu

LITELLM_VERSION=1.106.2

[ -x .venv-peers/bin/litellm ] && [ "$(cat .venv-peers/.installed 2>/dev/null)" = "$LITELLM_VERSION" ] && exit 0
echo "test-peers: installing litellm[proxy]==$LITELLM_VERSION into .venv-peers"
uv=uv
"$uv" --version >/dev/null 2>&1 || uv=.venv/bin/uv
"$uv" venv --quiet --clear --python .venv/bin/python .venv-peers
"$uv" pip install --quiet --python .venv-peers/bin/python "litellm[proxy]==$LITELLM_VERSION"
echo "$LITELLM_VERSION" >.venv-peers/.installed
