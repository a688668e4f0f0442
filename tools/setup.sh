#!/bin/sh
# Makes .venv with everything that the project needs; run by `make setup` from the root of the repository.
# PYTHON=/path/to/python picks the interpreter; without it the first of 3.11 - 3.13 that works is taken.
set -eu

fail() {
    echo "setup: $*" >&2
    exit 1
}

is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        if is_supported "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

command -v git >/dev/null 2>&1 || fail "git is missing: install it (on Debian: apt-get install git)"

if ! is_supported .venv/bin/python; then
    python=$(find_python) || fail "Python 3.11, 3.12 or 3.13 is missing: install one (on Debian: apt-get install python3 python3-venv)"
    "$python" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
        fail "the venv module of $python is missing: install it (on Debian: apt-get install python3-venv)"
    echo "setup: making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi

# uv installs in seconds what takes pip minutes.
uv=uv
if ! uv --version >/dev/null 2>&1; then
    uv=.venv/bin/uv
    if [ ! -x "$uv" ]; then
        echo "setup: installing uv into .venv"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
    fi
fi

echo "setup: installing requirements.txt"
"$uv" pip install --quiet --python .venv/bin/python --require-hashes --requirement requirements.txt
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
touch .venv/.installed
echo "setup: done"
