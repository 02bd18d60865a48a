#!/usr/bin/env bash
# Asadi et al. 2025: bash reproduce/asadi2025.sh [--data-dir CheXpert-v1.0-small]. See --help.
set -euo pipefail
source "${0%"${0##*/}"}./env.sh" # from the folder of this script
exec "$PYTHON" -m reproduce.asadi2025 "$@"
