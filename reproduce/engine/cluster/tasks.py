"""Train the rows of a table at once, on the GPUs and hosts of a Ray cluster: --on ray.

The command that was typed, here called the driver, reads the dataset, prepares its images, plans
the runs and writes the tables. Every run that is due becomes a Ray task as soon as the rows that it
needs are finished. A task starts the same script again in a process of its own, with
`--rows ROW --seeds SEED --only-train DIGEST`, which trains that run as a serial run does: from the
prepared cache, under the run's lock, resuming from its state. So a task can be repeated anywhere.
"""

import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safefiles
from models import backbones
from reproduce import ROOT, RunError
from reproduce.engine.cluster import connection, worker
from reproduce.engine.cluster.screen import Screen
from reproduce.engine.options import Options
from reproduce.engine.rows import Combined, Run
from reproduce.engine.search import Chosen
from reproduce.engine.time_left import TimeLeft

RETRIES = 5  # of a run whose worker, process or host was lost
BACKEND = "tensorflow"  # the one that is imported before a row's process is forked
VARIABLES = ("KERAS_", "TF_", "XLA_", "JAX_", "OMP_", "PYTHON")  # environment that workers get


Parents = Callable[[Run[Any]], Iterable[Run[Any]]]


class Share(NamedTuple):
    """The part of the cluster that one row gets."""

    gpus: float
    cpus: float


def train_all(
    paper: str, due: Sequence[Run[Any]], parents: Parents, options: Options, left: TimeLeft
) -> None:
    """Train or combine every run that is due; raise a RunError if some could not be tried."""
    if due:
        with connection.connected(options.cluster) as ray:
            train_on(ray, paper, due, parents, options, left)


def train_on(
    ray: Any,
    paper: str,
    due: Sequence[Run[Any]],
    parents: Parents,
    options: Options,
    left: TimeLeft,
    *,
    task: Callable[..., Any] | None = None,
) -> None:
    """Train the runs on a connected cluster; `task` replaces the training in tests."""
    ray.cloudpickle.register_pickle_by_value(worker)  # hosts need not be able to import it
    with _probe(Path(options.results_dir)) as probe:
        share = _share(ray.nodes(), options)
        job = _job(paper, options, share, probe)
        _check_hosts(ray, job)
        remote = ray.remote(max_retries=RETRIES, retry_exceptions=True)(task or worker.train)

        def submit(run: Run[Any]) -> Any:
            combined = isinstance(run.row, Combined)  # needs no GPU, and a core only briefly
            cpus, gpus = (0, 0) if combined else (share.cpus, share.gpus)
            about = {"row": run.row.name, "seed": run.seed, "digest": run.digest, "cpus": int(cpus)}
            about["import_first"] = job["import_first"] and not combined
            return remote.options(num_gpus=gpus, num_cpus=cpus).remote(job | about)

        _run_all(ray, longest_first(due, parents), parents, submit, share, left=left)


def longest_first(due: Sequence[Run[Any]], parents: Parents) -> list[Run[Any]]:
    """Return the runs sorted by the longest chain that begins with them: epochs times parameters.

    Long chains decide when a table ends, so they begin first. Parents stay before the rows that
    need them, because their chains are longer.
    """
    longest = {run.folder: 0.0 for run in due}
    for run in reversed(due):  # parents come first in `due`
        if not isinstance(run.row, Combined):
            epochs = max(run.row.fit.epochs, 1)
            longest[run.folder] += epochs * backbones.find(run.row.network.backbone).parameters
        for parent in parents(run):
            if parent.folder in longest:
                longest[parent.folder] = max(longest[parent.folder], longest[run.folder])
    return sorted(due, key=lambda run: -longest[run.folder])


@contextlib.contextmanager
def _probe(results: Path) -> Iterator[Path]:
    """Yield a file in the results folder; a worker that sees it has the same folder."""
    path = results.absolute() / f".shared-{uuid.uuid4().hex}"
    safefiles.write(path, "")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _share(nodes: list[dict[str, Any]], options: Options) -> Share:
    """Return the GPUs and cores of a row: as asked, or one GPU and its part of the cores."""
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
        # on processors, four rows per host: more need more memory than most hosts have
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


def _job(paper: str, options: Options, share: Share, probe: Path) -> dict[str, Any]:
    """Return what every task of this command gets; folders are absolute paths."""
    given = {"--data-dir": options.data_dir, "--split-file": options.split_file}
    if options.patients and Path(options.patients).expanduser().is_file():
        given["--patients"] = options.patients
    folders = given | {"--results-dir": options.results_dir, "--cache-dir": options.cache_dir}
    absolute = {
        flag: str(Path(path).expanduser().absolute()) for flag, path in folders.items() if path
    }
    flags = [text for pair in absolute.items() for text in pair]
    if options.device == "auto" and (share.gpus or options.gpus_per_row == 0):
        flags += ["--device", "gpu" if share.gpus else "cpu"]  # never another device silently
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
    """Return the environment variables that decide results, as they are for this command.

    TensorFlow's sums on a processor depend on the number of its threads, so a row on one core gets
    as many threads as a serial run has here.
    """
    threads = {"TF_NUM_INTRAOP_THREADS": str(len(os.sched_getaffinity(0)))}
    given = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}
    return threads | given


def _check_hosts(ray: Any, job: dict[str, Any]) -> None:
    """Raise a RunError if a host does not see the folders that a row needs."""
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
    ray: Any,
    waiting: list[Run[Any]],
    parents: Parents,
    submit: Callable[[Run[Any]], Any],
    share: Share,
    *,
    left: TimeLeft,
) -> None:
    """Keep the cluster busy until every run has ended; on Ctrl-C or an error, stop all of them.

    Ray starts tasks in the order in which it gets them. So it gets only a few more than it can run
    at once; a long run that becomes possible late then does not wait behind short ones.
    """
    screen = Screen(waiting, left)
    pending: dict[Any, Run[Any]] = {}
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
                if failed and not isinstance(run.row, Chosen):  # a search does without them
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
        raise RunError(f"{listed} Finished runs stay; the same command resumes.")


def _slots(ray: Any, share: Share) -> int:
    """Return how many rows the cluster, as it is now, can train at once."""
    resources = ray.cluster_resources()
    slots = resources.get("CPU", 0) // share.cpus
    if share.gpus:
        slots = min(slots, resources.get("GPU", 0) // share.gpus)
    return int(slots)


def _result(ray: Any, ref: Any) -> tuple[bool, str]:
    """Return if a run ended with predictions, and why it could not be tried (empty if it was)."""
    try:
        result = ray.get(ref)
        return result["ended"], result["problem"]
    except ray.exceptions.RayError as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        return False, f"its worker was lost {RETRIES + 1} times, the last time by: {reason}."
