#!/usr/bin/env bash
# Test reproduce/slurm.sh on a real SLURM of one host, which this script starts and stops (as root):
#   apt-get install slurm-wlm munge && CXR_PYTHON=RAY_PYTHON bash tests/slurm/run.sh
# It stops a job midway and submits it again, then lets an array share a table without Ray.
set -euo pipefail
suite=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
for tool in slurmctld slurmd sbatch munged; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: run apt-get install slurm-wlm munge." >&2; exit 2; }
done
[[ $(id -u) == 0 ]] || { echo "slurmd needs root: run this script as root." >&2; exit 2; }

work=$(mktemp -d)
export SLURM_CONF=$work/slurm.conf
host=$(hostname -s) cores=$(nproc)
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
NodeName=$host CPUs=$cores State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
mkdir "$work/state" "$work/spool"
dd if=/dev/urandom of="$work/key" bs=1024 count=1 status=none
chmod 600 "$work/key"
chmod 755 "$work" # other users must reach munge's socket
daemons=()
_end() {
    scancel --user root 2>/dev/null || true
    for _ in {1..30}; do # a job that outlives munged would wait for it forever
        [[ -n $(squeue --noheader 2>/dev/null) ]] || break
        sleep 1
    done
    ((${#daemons[@]})) && kill "${daemons[@]}" 2>/dev/null
    wait
    rm -rf "$work"
}
trap _end EXIT
munged --foreground --force --socket "$work/munge.socket" --key-file "$work/key" \
    --pid-file "$work/munge.pid" --log-file "$work/munge.log" --seed-file "$work/munge.seed" >/dev/null 2>&1 &
daemons+=($!)
sleep 1
slurmctld -D >/dev/null 2>&1 & daemons+=($!)
slurmd -D >/dev/null 2>&1 & daemons+=($!)
for _ in {1..60}; do
    [[ $(sinfo --noheader --format %T 2>/dev/null) == idle ]] && break
    sleep 1
done
sinfo

flags=(--phantoms 150 --size 32 --batch-size 16 --resamples 20 --epochs 3 --finetune-epochs 1
    --cache-dir "$work/cache" --rows BR-leaf HLUP-finetune)
_state() { scontrol show job "$1" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' | sort -u | paste -sd,; }
_ended() {
    while [[ $(_state "$1") =~ PENDING|RUNNING|COMPLETING|CONFIGURING ]]; do sleep 2; done
    _state "$1"
}
_equal() { # compare every predictions file with that of the serial run
    local path count=0
    while read -r path; do
        cmp "$work/serial/$path" "$work/$1/$path" || exit 1
        count=$((count + 1))
    done < <(cd "$work/serial" && find . -name 'predictions*.npz')
    ((count == 3)) || { echo "NOT ok: $count predictions files, not 3"; exit 1; }
    echo "ok   $1: $count predictions files equal those of the serial run"
}
cd "$suite"
bash reproduce/chen2019.sh "${flags[@]}" --results-dir "$work/serial" >"$work/serial.log" 2>&1

_submit() {
    sbatch --parsable --nodes 1 --cpus-per-task "$cores" --output "$work/job-%j.out" \
        reproduce/slurm.sh chen2019 "${flags[@]}" --cpus-per-row 1 --results-dir "$work/slurm"
}
job=$(_submit)
until grep -rqs "epoch 1/" --include log.txt "$work/slurm"; do
    [[ $(_state "$job") =~ PENDING|RUNNING|CONFIGURING ]] || { cat "$work/job-$job.out"; exit 1; }
    sleep 1
done
scancel --batch --signal=TERM "$job" # SLURM sends this a minute before the time limit
state=$(_ended "$job") last=$(tail -n 1 "$work/job-$job.out")
[[ $last == "Stopped; the same command resumes after the last whole epoch." ]] || {
    cat "$work/job-$job.out"
    echo "NOT ok: job $job was told to stop, but did not say how to resume"
    exit 1
}
echo "ok   job $job was told to stop: $state; it wrote: $last"
sleep 2
while read -r lock; do # a process that trains a row locks its folder
    flock --nonblock "$lock" true || { echo "NOT ok: $lock is locked by a process of the job"; exit 1; }
done < <(find "$work/slurm" -path "*/seed-*/.lock")
job=$(_submit)
echo "ok   job $job was submitted again: $(_ended "$job")"
grep -E "resumes after|runs are finished" "$work/job-$job.out" || true
[[ $(_state "$job") == COMPLETED ]] || { cat "$work/job-$job.out"; exit 1; }
_equal slurm

# Without Ray, every job of an array takes the next row that no other job has locked
job=$(sbatch --parsable --array 1-2 --cpus-per-task 1 --output "$work/array-%a.out" --wrap \
    "bash reproduce/chen2019.sh ${flags[*]} --results-dir $work/array")
echo "ok   array $job: $(_ended "$job")"
cat "$work"/array-*.out | grep -c "epoch 1/" || true
for path in "$work"/serial/chen2019/*/*/seed-0-*; do
    [[ -f $work/array/${path#"$work/serial/"}/predictions.npz ]] || { echo "NOT ok: the array lacks $path"; exit 1; }
done
echo "ok   every row of the array is there"
