#!/usr/bin/env bash
# Run every paper, then the report. Finished rows are kept: rerun the command to resume.
#   bash reproduce/all.sh                                  demos on phantoms (synthetic radiographs)
#   bash reproduce/all.sh --plco DIR --chexpert DIR --chestxray14 DIR --chestmnist DIR    the papers' settings
#   bash reproduce/all.sh --on ray                         all papers at once on all GPUs
# A paper without a folder for its dataset runs its demo. All other flags go to every script.
set -euo pipefail
if [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; then # before env.sh makes an environment
    exec sed -n '2,6s/^# \?//p' "$0"
fi
source "${0%"${0##*/}"}./env.sh" # from the folder of this script

declare -A folder=() dataset=()
papers=() flags=() results=() summary=() failed=0

# A paper has NAME.py, NAME.sh and published numbers, which name its dataset. Print both, by year.
_papers_and_datasets() {
    "$PYTHON" - "$ROOT" <<'PY'
import csv
import sys
from pathlib import Path

root = Path(sys.argv[1])
names = [path.stem for path in root.glob("reproduce/*.sh") if path.with_suffix(".py").exists()]
for name in sorted(names, key=lambda name: (name[-4:], name)):
    path = root / "results" / "published" / f"{name}.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    print(name, rows[0].get("dataset", "").lower().replace("-", "") if rows else "")
PY
}
while read -r paper name; do
    [[ -n $name ]] || _stop "results/published/$paper.csv does not name the dataset of reproduce/$paper.py."
    dataset[$paper]=$name papers+=("$paper") folder[$name]=
done < <(_papers_and_datasets)

while (($#)); do
    [[ $1 == --*=* ]] && set -- "${1%%=*}" "${1#*=}" "${@:2}"
    if [[ $1 == --?* && -n ${folder[${1#--}]+known} ]]; then
        [[ -d ${2:-} ]] || _stop "$1 needs the folder of the dataset, but '${2:-}' is not a folder."
        folder[${1#--}]=$2
        shift 2
        continue
    fi
    case $1 in
        --data-dir | --dataset | --rows)
            _stop "$1 is a flag of one script: bash reproduce/NAME.sh. Here, use$(printf ' --%s' "${!folder[@]}")." ;;
        --results-dir)
            [[ -n ${2:-} && ${2:-} != --* ]] || _stop "--results-dir needs a folder: --results-dir DIR."
            results=("$1" "$2")
            shift 2 ;;
        *) flags+=("$1"); shift ;;
    esac
done

# Set `command` to what a paper runs. As an array, its process is a child of this shell.
_command() {
    local data=${folder[${dataset[$1]}]}
    command=("$PYTHON" -m "reproduce.$1" ${data:+--data-dir "$data"} "${results[@]}" "${flags[@]}")
}

# _add_to_summary PAPER EXIT_CODE [TIME]
_add_to_summary() {
    local ending=done
    if (($2)); then failed=1 ending="failed; see the reason above"; fi
    summary+=("$(printf '%-10s %-29s %s' "$1" "$ending" "${3:-}")")
}

_run_in_turn() {
    local paper began code seconds
    for paper in "${papers[@]}"; do
        echo "=== $paper"
        began=$SECONDS code=0
        _command "$paper"
        "${command[@]}" || code=$?
        if ((code >= 128)); then exit "$code"; fi # Ctrl-C or another signal stops all papers
        seconds=$((SECONDS - began))
        _add_to_summary "$paper" "$code" "$((seconds / 60)) min $((seconds % 60)) s"
    done
}

# Run all papers at once: Ray queues their rows together.
_run_on_ray() {
    local paper code running=() stopped=0
    if [[ " ${flags[*]} " != *" --address"* && -z ${RAY_ADDRESS:-} ]]; then
        "$PYTHON" -c 'import ray' 2>/dev/null ||
            _stop "--on ray needs Ray: run '$PYTHON -m pip install -r $ROOT/requirements-cluster.txt'."
        coproc ray { exec "$PYTHON" -m reproduce.engine.cluster --hold; }
        read -r RAY_ADDRESS <&"${ray[0]}" || _stop "Ray could not be started; see the reason above."
        export RAY_ADDRESS
    fi
    # processes in the background do not receive Ctrl-C, so it is passed on
    trap 'stopped=130; kill "${running[@]}" 2>/dev/null' INT
    trap 'stopped=143; kill "${running[@]}" 2>/dev/null' TERM
    for paper in "${papers[@]}"; do
        _command "$paper"
        "${command[@]}" > >(sed -u "s/^/$paper: /") 2> >(sed -u "s/^/$paper: /" >&2) &
        running+=($!)
    done
    for paper in "${!papers[@]}"; do
        while true; do
            code=0
            wait "${running[paper]}" || code=$?
            kill -0 "${running[paper]}" 2>/dev/null || break # still running: a signal ended `wait`
        done
        _add_to_summary "${papers[paper]}" "$code"
    done
    ((stopped == 0)) || exit "$stopped"
}

if [[ " ${flags[*]} " == *" --on ray "* ]]; then # --on=ray was split above
    _run_on_ray
else
    _run_in_turn
fi
echo "=== report"
"$PYTHON" -m reproduce.report "${results[@]}" || failed=1
printf '\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
