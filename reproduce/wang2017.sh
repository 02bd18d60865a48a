#!/usr/bin/env bash
# Wang et al. 2017, the 14-label baseline: bash reproduce/wang2017.sh [--data-dir ChestX-ray14]
set -euo pipefail
source "${0%"${0##*/}"}./env.sh" # from the folder of this script
exec "$PYTHON" -m reproduce.wang2017 "$@"
