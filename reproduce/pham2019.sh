#!/usr/bin/env bash
# Pham et al. 2019, Tables 1 and 2, Figures 4 and 5, §4.6: bash reproduce/pham2019.sh [--data-dir CheXpert-v1.0-small]
set -euo pipefail
source "${0%"${0##*/}"}./env.sh" # from the folder of this script
exec "$PYTHON" -m reproduce.pham2019 "$@"
