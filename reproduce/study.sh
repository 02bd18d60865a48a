#!/usr/bin/env bash
# Designed experiments on drawn phantoms: bash reproduce/study.sh [--quick] (--help has the rest)
set -euo pipefail
source "${0%"${0##*/}"}./env.sh" # from the folder of this script
exec "$PYTHON" -m reproduce.study "$@"
