#!/usr/bin/env bash
# Mo et al. 2019, Table I and Figure 1: bash reproduce/mo2019.sh [--data-dir ChestX-ray14]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec "$PYTHON" -m reproduce.mo2019 "$@"
