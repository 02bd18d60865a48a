#!/usr/bin/env bash
# Ge et al. 2018, Tables 1 to 3: bash reproduce/ge2018.sh [--data-dir ChestX-ray14]
set -euo pipefail
source "${0%"${0##*/}"}./env.sh" # from the folder of this script
exec "$PYTHON" -m reproduce.ge2018 "$@"
