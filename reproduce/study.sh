#!/usr/bin/env bash
# Designed experiments on phantoms (synthetic radiographs): bash reproduce/study.sh [--quick]. See --help.
set -euo pipefail
source "${0%"${0##*/}"}./env.sh" # from the folder of this script
exec "$PYTHON" -m reproduce.study "$@"
