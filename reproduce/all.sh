#!/usr/bin/env bash
# The five papers one after another, then the report. What is finished stays; run again to go on.
#   bash reproduce/all.sh                                  the demos, on drawn phantoms
#   bash reproduce/all.sh --plco DIR --chexpert DIR --chestxray14 DIR    the papers' settings
# A paper whose dataset has no folder runs its demo; every other flag goes to every script.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

declare -A folder=([plco]= [chexpert]= [chestxray14]=)
declare -A dataset=([chen2019]=plco [pham2019]=chexpert [mo2019]=chestxray14 [ge2018]=chestxray14
    [asadi2025]=chexpert)
flags=() places=()
while (($#)); do
    [[ $1 == --*=* ]] && set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
        --help | -h) sed -n '2,5s/^# \?//p' "${BASH_SOURCE[0]}"; exit ;;
        --plco | --chexpert | --chestxray14)
            [[ -d ${2:-} ]] || _stop "$1 needs the folder of the dataset, and '${2:-}' is none."
            folder[${1#--}]=$2
            shift 2 ;;
        --data-dir | --dataset | --rows)
            _stop "$1 goes to one script: bash reproduce/NAME.sh; here use --plco, --chexpert, --chestxray14." ;;
        --results-dir) places=("$1" "${2:-}"); flags+=("$1" "${2:-}"); shift 2 ;;
        *) flags+=("$1"); shift ;;
    esac
done

summary=() failed=0
for paper in chen2019 pham2019 mo2019 ge2018 asadi2025; do
    echo "=== $paper"
    data=${folder[${dataset[$paper]}]}
    began=$SECONDS code=0
    "$PYTHON" -m "reproduce.$paper" ${data:+--data-dir "$data"} "${flags[@]}" || code=$?
    minutes="$(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s"
    if ((code == 130)); then exit 130; fi
    if ((code)); then failed=1 ending="failed; its reason stands above"; else ending=done; fi
    summary+=("$(printf '%-10s %-24s %s' "$paper" "$ending" "$minutes")")
done

echo "=== report"
"$PYTHON" -m reproduce.report "${places[@]}" || failed=1
printf '\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
