#!/bin/sh
# Makes ./.venv from requirements.lock, with uv if there is one, else with Python's own venv and pip.
# Exit 69: something this machine lacks; the message says the one command that mends it.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

missing() {
    printf '%s\n' "$@" >&2
    exit 69
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || missing \
    "certmesh needs Python 3.11 or newer; '$python' is not." \
    "Install one, or name it:  make PYTHON=/path/to/python3.11"

# A .venv whose interpreter is gone or too old is no .venv.
.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || rm -rf .venv

if command -v uv >/dev/null 2>&1; then
    test -d .venv || uv venv --quiet --python "$python" .venv
    install="uv pip install --quiet --python .venv/bin/python --compile-bytecode"
elif "$python" -c 'import ensurepip' 2>/dev/null; then
    test -d .venv || "$python" -m venv .venv
    install=".venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input"
else
    missing "Python's venv module is incomplete on this machine. Run once:" \
        "    sudo apt install python3-venv" \
        "then try again."
fi

echo "making .venv (once; about 250 MB) ..." >&2
$install --require-hashes -r requirements.lock
# hatchling came with the lock, so nothing unpinned is fetched to build the project itself.
$install --no-deps --no-build-isolation --editable .
# Without bytecode every restart of a process takes three to four times as long.
.venv/bin/python -m compileall -q broker workers
touch .venv/.ok
