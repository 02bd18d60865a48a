"""Training the rows of a table at once, on the GPUs and hosts of a Ray cluster: --on ray.

The command that was typed, here called the driver, reads the dataset, prepares its images, plans
the runs and writes the tables. Every run that is due becomes a Ray task as soon as the rows that it
needs are finished. A task starts the same script again in a process of its own, with
`--rows ROW --seeds SEED --only-train DIGEST`, which trains that run as a serial run does: from the
prepared cache, under the run's lock, going on from its state. So a task can be repeated anywhere.
"""

import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safefiles
from data.progress import TimeLeft
from models import backbones
from reproduce import ROOT, RunError
from reproduce.engine import cluster, worker
from reproduce.engine.rows import Combined, Run
from reproduce.engine.screen import Screen
from reproduce.engine.search import Chosen

RETRIES = 5  # of a run whose worker, process or host was lost
BACKEND = "tensorflow"  # the one that is imported before a row's process is forked
VARIABLES = ("KERAS_", "TF_", "XLA_", "JAX_", "OMP_", "PYTHON")  # environment that workers get


class Share(NamedTuple):
    """What a row gets of the cluster."""

    gpus: float
    cpus: float


def train_all(
    paper: str, due: Sequence[Run], parents: Callable[[Run], Iterable[Run]], options, left: TimeLeft
) -> None:
    """Train or combine every run that is due; a RunError if some could not be tried."""
    if due:
        with cluster.connected(cluster.address(options)) as ray:
            train_on(ray, paper, due, parents, options, left)


def train_on(
    ray,
    paper: str,
    due: Sequence[Run],
    parents: Callable[[Run], Iterable[Run]],
    options,
    left: TimeLeft,
    *,
    task: Callable | None = None,
) -> None:
    """The same on a cluster that is connected; `task` takes the place of the training."""
    ray.cloudpickle.register_pickle_by_value(worker)  # hosts need not be able to import it
    with _probe(Path(options.results_dir)) as probe:
        share = _share(ray.nodes(), options)
        job = _job(paper, options, share, probe)
        _check_hosts(ray, job)
        remote = ray.remote(max_retries=RETRIES, retry_exceptions=True)(task or worker.train)

        def submit(run: Run):
            combined = isinstance(run.row, Combined)  # needs neither a GPU nor a core for long
            cpus, gpus = (0, 0) if combined else (share.cpus, share.gpus)
            about = {"row": run.row.name, "seed": run.seed, "digest": run.digest, "cpus": int(cpus)}
            about["import_first"] = job["import_first"] and not combined
            return remote.options(num_gpus=gpus, num_cpus=cpus).remote(job | about)

        _run_all(ray, longest_first(due, parents), parents, submit, share, left=left)


def longest_first(due: Sequence[Run], parents: Callable[[Run], Iterable[Run]]) -> list[Run]:
    """The runs in order of the longest chain that begins with them: epochs times parameters.

    Long chains decide when a table ends, so they begin first. Parents stay before the rows that
    need them: their chains are longer.
    """
    longest = {run.folder: 0.0 for run in due}
    for run in reversed(due):  # parents come first in `due`
        if not isinstance(run.row, Combined):
            epochs = max(run.row.fit.epochs, 1)
            longest[run.folder] += epochs * backbones.find(run.row.network["backbone"]).parameters
        for parent in parents(run):
            if parent.folder in longest:
                longest[parent.folder] = max(longest[parent.folder], longest[run.folder])
    return sorted(due, key=lambda run: -longest[run.folder])


@contextlib.contextmanager
def _probe(results: Path):
    """A file in the results folder that a worker must see, so that both have the same folder."""
    path = results.absolute() / f".shared-{uuid.uuid4().hex}"
    safefiles.write(path, "")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _share(nodes: list[dict], options) -> Share:
    """The GPUs and processor cores of a row: as asked, or a GPU and its part of the cores."""
    hosts = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpu = [host for host in hosts if host.get("GPU")]
    gpus = options.gpus_per_row
    if gpus is None:
        gpus = float(options.devices_per_row * (bool(with_gpu) and options.device != "cpu"))
    if (gpus or options.device == "gpu") and not with_gpu:
        asked = "--device gpu" if options.device == "gpu" else f"--gpus-per-row {gpus:g}"
        raise RunError(
            f"{asked}, but no host of the Ray cluster has a GPU: start Ray where nvidia-smi lists "
            "them, or leave it out to train on processors."
        )
    usable = with_gpu if gpus else hosts
    cpus = options.cpus_per_row
    if cpus is None:
        # on processors four rows a host: more of them need more memory than most hosts have
        parts = [
            host.get("CPU", 1) // max(1, host["GPU"] // gpus if gpus else 4) for host in usable
        ]
        cpus = max(1, min(parts))
    if not any(host.get("CPU", 0) >= cpus and host.get("GPU", 0) >= gpus for host in usable):
        raise RunError(
            f"No host of the Ray cluster has {cpus:g} cores and {gpus:g} GPUs for a row: lower "
            "--cpus-per-row or --gpus-per-row."
        )
    return Share(gpus, cpus)


def _job(paper: str, options, share: Share, probe: Path) -> dict:
    """What every task of this command gets: plain texts and numbers, and folders as whole paths."""
    folders = {"--results-dir": options.results_dir, "--cache-dir": options.cache_dir}
    given = {"--data-dir": options.data_dir, "--split-file": options.split_file}
    folders |= {flag: path for flag, path in given.items() if path}
    absolute = {flag: str(Path(path).expanduser().absolute()) for flag, path in folders.items()}
    flags = [text for pair in absolute.items() for text in pair]
    if options.device == "auto" and (share.gpus or options.gpus_per_row == 0):
        flags += ["--device", "gpu" if share.gpus else "cpu"]  # never another one silently
    return {
        "module": f"reproduce.{paper}",
        "flags": [*sys.argv[1:], *flags, "--on=here"],
        "needed": [str(ROOT / f"reproduce/{paper}.py"), str(probe)]
        + [absolute[flag] for flag in given if flag in absolute],
        "root": str(ROOT),
        "folder": os.getcwd(),
        "variables": _variables(),
        # not where a GPU is used: its driver does not survive a fork
        "import_first": not share.gpus and os.environ.get("KERAS_BACKEND", BACKEND) == BACKEND,
    }


def _variables() -> dict[str, str]:
    """The environment that decides results: this command's on every host.

    TensorFlow's sums on a processor depend on the number of its threads, so that a row on one core
    gets as many as a serial run has here.
    """
    threads = {"TF_NUM_INTRAOP_THREADS": str(len(os.sched_getaffinity(0)))}
    given = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}
    return threads | given


def _check_hosts(ray, job: dict) -> None:
    """A RunError if a host does not see the folders that a row needs."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(worker.not_visible)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = node["NodeManagerHostname"]
            asked[look.options(scheduling_strategy=on_node).remote(job["needed"])] = name
    for answer, host in asked.items():
        try:
            missing = ray.get(answer, timeout=120)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise RunError(f"{host} of the Ray cluster does not answer ({reason}).") from None
        if missing:
            raise RunError(worker.unshared(host, missing))


def _run_all(
    ray, waiting: list[Run], parents: Callable, submit: Callable, share: Share, *, left: TimeLeft
) -> None:
    """Keep the cluster busy until every run has ended; on Ctrl-C or an error stop all of them.

    Ray starts what it was given in the order in which it came. So it gets few tasks more than it
    can run at once, and a long run that becomes possible late does not stand behind short ones.
    """
    screen = Screen(waiting, left)
    pending: dict[Any, Run] = {}
    ended: dict[Path, bool] = {}  # whether a run has predictions now
    unsettled = {run.folder for run in waiting}
    problems = {}
    try:
        while waiting or pending:
            room = _slots(ray, share)
            room += max(2, room // 4) - len(pending)
            for run in list(waiting):
                needed = [parent.folder for parent in parents(run)]
                failed = [folder for folder in needed if not ended.get(folder, True)]
                if failed and not isinstance(run.row, Chosen):  # which does without them
                    waiting.remove(run)
                    unsettled.discard(run.folder)
                    ended[run.folder] = False
                elif room > 0 and unsettled.isdisjoint(needed):
                    waiting.remove(run)
                    pending[submit(run)] = run
                    room -= 1
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=1) if pending else ([], [])
            screen.show_new_lines(list(pending.values()))
            for ref in ready:
                run = pending.pop(ref)
                unsettled.discard(run.folder)
                ended[run.folder], problem = _result(ray, ref)
                if problem:
                    problems[run.name] = problem
                screen.show_end(run, ended[run.folder])
    finally:
        for ref in pending:
            ray.cancel(ref, force=True)
    if problems:
        listed = "; ".join(f"{name}: {text}" for name, text in problems.items())
        raise RunError(f"{listed} What is finished stays; the same command goes on.")


def _slots(ray, share: Share) -> int:
    """How many rows the cluster, as it is now, trains at once."""
    resources = ray.cluster_resources()
    slots = resources.get("CPU", 0) // share.cpus
    if share.gpus:
        slots = min(slots, resources.get("GPU", 0) // share.gpus)
    return int(slots)


def _result(ray, ref) -> tuple[bool, str]:
    """Whether a run ended with predictions, and why it could not be tried; empty if it was."""
    try:
        result = ray.get(ref)
        return result["ended"], result["problem"]
    except ray.exceptions.RayError as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        return False, f"its worker was lost {RETRIES + 1} times, the last time by: {reason}."
