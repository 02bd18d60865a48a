#!/usr/bin/env bash
# Chen et al. 2019, Tables 1 and 2: bash reproduce/chen2019.sh [--data-dir PLCO]. See --help.
set -euo pipefail
source "${0%"${0##*/}"}./env.sh" # from the folder of this script
exec "$PYTHON" -m reproduce.chen2019 "$@"
