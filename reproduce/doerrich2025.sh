#!/usr/bin/env bash
# Doerrich et al. 2025, ChestMNIST: bash reproduce/doerrich2025.sh [--download]. See --help.
set -euo pipefail
source "${0%"${0##*/}"}./env.sh" # from the folder of this script
exec "$PYTHON" -m reproduce.doerrich2025 "$@"
