#!/usr/bin/env bash
# Format, lint, types, then every test; arguments go to pytest (bash tests/run.sh -k losses).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../reproduce/env.sh"
cd "$ROOT"

if [[ $PYTHON != "$ROOT/.venv/bin/python" ]]; then # someone's own interpreter: leave it as it is
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
# as many processes as cores, but each imports TensorFlow; a file's tests share what they make
exec "$PYTHON" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
