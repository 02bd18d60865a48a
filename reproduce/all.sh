#!/usr/bin/env bash
# Every paper one after another, then the report. What is finished stays; run again to go on.
#   bash reproduce/all.sh                                  the demos, on drawn phantoms
#   bash reproduce/all.sh --plco DIR --chexpert DIR --chestxray14 DIR    the papers' settings
#   bash reproduce/all.sh --on ray                         all papers at once on the GPUs there are
# A paper whose dataset has no folder runs its demo; every other flag goes to every script.
set -euo pipefail
if [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; then # before a Python environment is made
    exec sed -n '2,6s/^# \?//p' "$0"
fi
source "${0%"${0##*/}"}./env.sh" # from the folder of this script

declare -A folder=([plco]= [chexpert]= [chestxray14]=)
flags=() results=()
while (($#)); do
    [[ $1 == --*=* ]] && set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
        --plco | --chexpert | --chestxray14)
            [[ -d ${2:-} ]] || _stop "$1 needs the folder of the dataset, and '${2:-}' is none."
            folder[${1#--}]=$2
            shift 2 ;;
        --data-dir | --dataset | --rows)
            _stop "$1 goes to one script: bash reproduce/NAME.sh; here use --plco, --chexpert, --chestxray14." ;;
        --results-dir)
            [[ -n ${2:-} && ${2:-} != --* ]] || _stop "--results-dir needs a folder: --results-dir DIR."
            results=("$1" "$2")
            shift 2 ;;
        *) flags+=("$1"); shift ;;
    esac
done

# A paper is a script NAME.py with its NAME.sh; its published numbers name its dataset.
papers=()
declare -A dataset=()
while read -r paper name; do
    [[ -n ${folder[${name:-none}]+known} ]] ||
        _stop "results/published/$paper.csv does not name the dataset of reproduce/$paper.py: plco, chexpert or chestxray14."
    dataset[$paper]=$name papers+=("$paper")
done < <("$PYTHON" - "$ROOT" <<'PY'
import csv
import sys
from pathlib import Path

root = Path(sys.argv[1])
names = [path.stem for path in root.glob("reproduce/*.sh") if path.with_suffix(".py").exists()]
for name in sorted(names, key=lambda name: (name[-4:], name)):  # by year
    path = root / "results" / "published" / f"{name}.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    print(name, rows[0].get("dataset", "").lower().replace("-", "") if rows else "")
PY
)

_command() { # what a paper runs, as an array: its process is then a child of this shell
    local data=${folder[${dataset[$1]}]}
    command=("$PYTHON" -m "reproduce.$1" ${data:+--data-dir "$data"} "${results[@]}" "${flags[@]}")
}

_all_at_once() { # every paper's rows wait in one queue, that of Ray
    local paper running=() stopped=0
    if [[ " ${flags[*]} " != *" --address"* && -z ${RAY_ADDRESS:-} ]]; then
        "$PYTHON" -c 'import ray' 2>/dev/null ||
            _stop "--on ray needs Ray: run '$PYTHON -m pip install -r $ROOT/requirements-cluster.txt'."
        coproc ray { exec "$PYTHON" -m reproduce.engine.cluster --hold; }
        read -r RAY_ADDRESS <&"${ray[0]}" || _stop "Ray could not be started; its reason stands above."
        export RAY_ADDRESS
    fi
    # what runs in the background never hears Ctrl-C
    trap 'stopped=130; kill "${running[@]}" 2>/dev/null' INT
    trap 'stopped=143; kill "${running[@]}" 2>/dev/null' TERM
    for paper in "${papers[@]}"; do
        _command "$paper"
        "${command[@]}" > >(sed -u "s/^/$paper: /") 2> >(sed -u "s/^/$paper: /" >&2) &
        running+=($!)
    done
    for paper in "${!papers[@]}"; do
        code=0
        wait "${running[paper]}" || code=$?
        while kill -0 "${running[paper]}" 2>/dev/null; do # a signal ended the first wait
            code=0
            wait "${running[paper]}" || code=$?
        done
        ((code == 0)) || failed=1
        summary+=("$(printf '%-10s %s' "${papers[paper]}" "$( ((code)) && echo 'failed; its reason stands above' || echo done)")")
    done
    ((stopped == 0)) || exit "$stopped"
}

summary=() failed=0
if [[ " ${flags[*]} " == *" --on ray "* || " ${flags[*]} " == *" --on=ray "* ]]; then
    _all_at_once
    papers=()
fi
for paper in "${papers[@]}"; do
    echo "=== $paper"
    began=$SECONDS code=0
    _command "$paper"
    "${command[@]}" || code=$?
    minutes="$(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s"
    if ((code >= 128)); then exit "$code"; fi # stopped by Ctrl-C or a signal, as the rest should be
    if ((code)); then failed=1 ending="failed; its reason stands above"; else ending=done; fi
    summary+=("$(printf '%-10s %-24s %s' "$paper" "$ending" "$minutes")")
done

echo "=== report"
"$PYTHON" -m reproduce.report "${results[@]}" || failed=1
printf '\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
