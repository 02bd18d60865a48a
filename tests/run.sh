#!/usr/bin/env bash
# Check format, lint and types, then run the tests; arguments go to pytest (bash tests/run.sh -k losses).
# Tests marked `slow` take minutes each: they run with --slow, and where CI is set.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../reproduce/env.sh"
cd "$ROOT"

if [[ $PYTHON != "$ROOT/.venv/bin/python" ]]; then # the user's own interpreter: change nothing in it
    "$PYTHON" -c 'import hypothesis, mpmath, mypy, pytest, pytest_timeout, ruff, xdist, yaml' 2>/dev/null ||
        _stop "$PYTHON lacks the test tools: run '$PYTHON -m pip install -r requirements-dev.txt'."
elif ! cmp -s requirements-dev.txt .venv/requirements-dev.txt; then
    echo "Installing the test tools of requirements-dev.txt into .venv ..." >&2
    "$PYTHON" -m pip install --disable-pip-version-check -r requirements-dev.txt \
        >.venv/install-dev.log 2>&1 ||
        _stop "Installing requirements-dev.txt failed; is there a network? See .venv/install-dev.log."
    cp requirements-dev.txt .venv/requirements-dev.txt
fi

"$PYTHON" -m ruff format --check --quiet . ||
    { echo "Not formatted: run '$PYTHON -m ruff format .'" >&2; exit 1; }
"$PYTHON" -m ruff check --quiet .
"$PYTHON" -m mypy --no-error-summary

if [[ ${1:-} == --slow ]]; then
    shift
elif [[ -z ${CI:-} && " $* " != *" -m "* ]]; then
    set -- -m "not slow" "$@"
    echo "Slow tests are left out; run everything with: bash tests/run.sh --slow" >&2
fi
# As many processes as cores, but at most 4, because each imports TensorFlow. The tests of a file share
# what they make, so a file stays in one process; conftest.py puts the long files first.
exec "$PYTHON" -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
