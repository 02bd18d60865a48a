#!/usr/bin/env bash
# Chen et al. 2019, Tables 1 and 2: bash reproduce/chen2019.sh [--data-dir PLCO] (--help has the rest)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec "$PYTHON" -m reproduce.chen2019 "$@"
