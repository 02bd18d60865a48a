#!/usr/bin/env bash
# Asadi et al. 2025: bash reproduce/asadi2025.sh [--data-dir CheXpert-v1.0-small] (--help has the rest)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec "$PYTHON" -m reproduce.asadi2025 "$@"
