#!/bin/sh
# Makes .venv-k8s with the tools that `make k8s-check` runs; from the root of the repository.
set -eu

TOOLS="kubernetes-validate==1.37.0 checkov==3.3.30"

[ -x .venv-k8s/bin/checkov ] && [ "$(cat .venv-k8s/.installed 2>/dev/null)" = "$TOOLS" ] && exit 0
echo "k8s-check: installing $TOOLS into .venv-k8s"
uv=uv
"$uv" --version >/dev/null 2>&1 || uv=.venv/bin/uv
"$uv" venv --quiet --clear --python .venv/bin/python .venv-k8s
# shellcheck disable=SC2086 (two words)
"$uv" pip install --quiet --python .venv-k8s/bin/python $TOOLS
echo "$TOOLS" >.venv-k8s/.installed
