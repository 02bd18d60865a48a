#!/usr/bin/env bash
# Mo et al. 2019, Table I and Figure 1: bash reproduce/mo2019.sh [--data-dir ChestX-ray14]
set -euo pipefail
source "${0%"${0##*/}"}./env.sh" # from the folder of this script
exec "$PYTHON" -m reproduce.mo2019 "$@"
