#!/usr/bin/env bash
# Run a paper's rows on all hosts of a SLURM job. Submit it from the folder of the suite:
#   sbatch --nodes 2 --gpus-per-node 8 reproduce/slurm.sh pham2019 --data-dir /shared/CheXpert-v1.0
# NAME is a paper's script or "all", followed by its flags. Submit it again to resume. See docs/cluster.md.
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -euo pipefail

# SLURM runs a copy of this file in another folder
suite=${SLURM_SUBMIT_DIR:-.}
if [[ ! -f $suite/reproduce/env.sh ]]; then
    echo "$suite is not the folder of the suite: go there and run sbatch reproduce/slurm.sh NAME." >&2
    exit 2
fi
cd "$suite"
source reproduce/env.sh

name=${1:-}
[[ -n ${SLURM_JOB_ID:-} ]] || _stop "This script is a SLURM job: run sbatch reproduce/slurm.sh NAME [flags]."
[[ -n $name && -f reproduce/$name.sh && -n ${name##*slurm*} ]] ||
    _stop "'$name' is not the script of a paper: run sbatch reproduce/slurm.sh NAME [flags]; NAME may be all."
shift
"$PYTHON" -c 'import ray' 2>/dev/null ||
    _stop "$PYTHON has no Ray: run '$PYTHON -m pip install -r requirements-cluster.txt'."

export RAY_USAGE_STATS_ENABLED=0
# a token that only this job has, so that other users of these hosts cannot run anything here
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$("$PYTHON" -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# this shell runs on the first host, which other hosts cannot reach at an address 127.*
first=$(getent ahostsv4 "${hosts[0]}" | awk '!/^127\./ { print $1; exit }')
first=${first:-$(hostname -I | awk '{ print $1 }')}
[[ -n $first ]] || _stop "${hosts[0]}, the first host of the job, has no address that the other hosts can reach."
port=$((20000 + SLURM_JOB_ID % 10000)) # jobs on one host must not share a port
ray_processes=()
_end() {
    ((${#ray_processes[@]})) && kill "${ray_processes[@]}" 2>/dev/null
    wait
}
trap _end EXIT

"$PYTHON" -m ray.scripts.scripts start --head --block --node-ip-address "$first" --port "$port" \
    --num-cpus "$SLURM_CPUS_ON_NODE" --include-dashboard false --disable-usage-stats >/dev/null 2>&1 &
ray_processes+=($!)
if ((${#hosts[@]} > 1)); then
    # shellcheck disable=SC2016  # each host expands its own number of cores
    srun --nodes $((${#hosts[@]} - 1)) --ntasks $((${#hosts[@]} - 1)) --exclude "${hosts[0]}" \
        bash -c 'exec "$0" -m ray.scripts.scripts start --block --address "$1" --num-cpus "$SLURM_CPUS_ON_NODE"' \
        "$PYTHON" "$first:$port" >/dev/null 2>&1 &
    ray_processes+=($!)
fi
"$PYTHON" -m reproduce.engine.cluster --wait "$first:$port" "${#hosts[@]}"

# in the background, so that this shell can pass on SLURM's signal before the time limit
bash "reproduce/$name.sh" "$@" --on ray --address "$first:$port" &
driver=$!
trap 'kill -TERM "$driver" 2>/dev/null' TERM
code=0
wait "$driver" || code=$?
((code > 128)) && { wait "$driver" || code=$?; } # the first wait ended with the signal
exit "$code"
