"""Training the rows of a table at once, on the GPUs and hosts of a Ray cluster: --on ray.

The command that was typed, here called the driver, reads the dataset, prepares its images, plans
the runs and writes the tables. Every run that is due becomes a Ray task, with the tasks of the rows
that it needs as arguments. A task starts the same script again in a process of its own, with
`--rows ROW --seeds SEED --only-train DIGEST`, which trains that run as a serial run does: from the
prepared cache, under the run's lock, going on from its state. So a task can be repeated anywhere.

    python -m reproduce.engine.spread --hold      starts Ray here and prints its address (all.sh)
    python -m reproduce.engine.spread PID MODULE FLAGS ...      what a task starts; see `run_script`
"""

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data import files
from data.progress import TimeLeft
from reproduce import ROOT, RunError
from reproduce.engine import backend, state
from reproduce.engine.rows import Combined, Run

RETRIES = 5  # of a run whose worker, process or host was lost
VARIABLES = ("KERAS_", "TF_", "XLA_", "JAX_", "OMP_", "PYTHON")  # environment that workers get
INSTALL = f"run '{sys.executable} -m pip install -r requirements-cluster.txt', or leave out --on"


class Share(NamedTuple):
    """What a row gets of the cluster."""

    gpus: float
    cpus: float


# What can be known before the dataset is read


def check(options) -> None:
    """Refuse --on ray without Ray, an address where nothing answers, and flags that need it."""
    if options.on != "ray":
        for flag, given in (
            ("address", options.address),
            ("gpus-per-row", options.gpus_per_row),
            ("cpus-per-row", options.cpus_per_row),
        ):
            if given is not None and not options.only_train:
                raise RunError(f"--{flag} is for rows on a Ray cluster: add --on ray, or leave it.")
        return
    if importlib.util.find_spec("ray") is None:
        raise RunError(f"--on ray needs Ray, which is not installed here: {INSTALL} ray.")
    if address := _address(options):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError, OverflowError) as error:
            raise RunError(
                f"No Ray cluster answers at {address!r} ({error}): give --address HOST:PORT as "
                "'ray start --head' prints it, or neither --address nor RAY_ADDRESS to start Ray "
                "on this machine."
            ) from None
    if options.device == "cpu" and options.gpus_per_row:
        raise RunError("--device cpu and --gpus-per-row contradict each other: leave one of them.")


def _address(options) -> str:
    """The HOST:PORT of the cluster to use; empty to start one on this machine."""
    return (options.address or os.environ.get("RAY_ADDRESS", "")).removeprefix("ray://")


# The driver


def train_all(
    paper: str, due: Sequence[Run], parents: Callable[[Run], Iterable[Run]], options, left: TimeLeft
) -> None:
    """Train or combine every run that is due; a RunError if some could not be tried."""
    if not due:
        return
    with _cluster(_address(options)) as ray, _probe(Path(options.results_dir)) as probe:
        share = _share(ray.nodes(), options)
        job = _job(paper, options, share, probe)
        _check_hosts(ray, job)
        tasks: dict[Path, Any] = {}
        for run in longest_first(due, parents):
            needed = [tasks[parent.folder] for parent in parents(run) if parent.folder in tasks]
            tasks[run.folder] = _submit(ray, job, run, share, needed)
        _watch(ray, {tasks[run.folder]: run for run in due}, left)


def longest_first(due: Sequence[Run], parents: Callable[[Run], Iterable[Run]]) -> list[Run]:
    """The runs in order of the epochs of the longest chain that begins with them.

    Ray starts tasks as they come, so that long chains, which decide when a table ends, begin
    first. Parents stay before the rows that need them: their chains are longer.
    """
    longest = {run.folder: 0 for run in due}
    for run in reversed(due):  # parents come first in `due`
        if not isinstance(run.row, Combined):
            longest[run.folder] += run.row.fit.epochs
        for parent in parents(run):
            if parent.folder in longest:
                longest[parent.folder] = max(longest[parent.folder], longest[run.folder])
    return sorted(due, key=lambda run: -longest[run.folder])


@contextlib.contextmanager
def _cluster(address: str, cpus: int | None = None):
    """Ray, connected to the cluster at an address, or started on this machine."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    with backend.quiet():
        import ray

        own = {"num_cpus": cpus or len(os.sched_getaffinity(0)), "object_store_memory": 1 << 27}
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                **({} if address else own | {"include_dashboard": False}),
            )
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            where = f"the Ray cluster at {address}" if address else "Ray on this machine"
            reason = str(error).strip().partition("\n")[0]
            raise RunError(
                f"{where} cannot be used ({reason}): see that every host has the same versions of "
                "Python and Ray, or leave out --on ray."
            ) from None
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        yield ray
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()


@contextlib.contextmanager
def _probe(results: Path):
    """A file in the results folder that a worker must see, so that both have the same folder."""
    path = results.absolute() / f".shared-{uuid.uuid4().hex}"
    files.write(path, "")
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
        gpus = float(bool(with_gpu) and options.device != "cpu")
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
    """What every task of this command gets: plain texts and numbers."""
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

    look = ray.remote(num_cpus=0, max_retries=0)(_not_visible)
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
            raise RunError(_unshared(host, missing))


def _unshared(host: str, missing: Sequence[str]) -> str:
    folder = Path(missing[0])
    shown = folder.parent if folder.name.startswith(".shared-") else folder
    return (
        f"{host} does not see {shown} as this host does: put the suite, its results and the "
        "dataset on a file system that all hosts of the cluster share, under one path "
        "(--results-dir, --data-dir)."
    )


def _submit(ray, job: dict, run: Run, share: Share, needed: list):
    """The task of a run; a combination needs neither a GPU nor a core for long."""
    combined = isinstance(run.row, Combined)
    task = ray.remote(
        num_gpus=0 if combined else share.gpus,
        num_cpus=0 if combined else share.cpus,
        max_retries=RETRIES,
        retry_exceptions=True,
    )(_train)
    about = {"row": run.row.name, "seed": run.seed, "digest": run.digest}
    cores = {"cpus": 0 if combined else int(share.cpus)}
    return task.remote(job | about | cores, *needed)


def _watch(ray, tasks: dict[Any, Run], left: TimeLeft) -> None:
    """Print what the runs log until all have ended; on Ctrl-C or an error stop all of them."""
    pending, logs, problems = dict(tasks), {ref: Log(run) for ref, run in tasks.items()}, {}
    clock = time.monotonic()
    try:
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=1)
            for ref in pending:
                for host, text in logs[ref].new_lines():
                    if text.startswith("epoch "):
                        now = time.monotonic()
                        text = f"{text.rpartition(', ')[0]}, {left.after(now - clock)} in all"
                        clock = now
                    print(f"{pending[ref].name} on {host}: {text}", flush=True)
            for ref in ready:
                run = pending.pop(ref)
                left.skip(logs[ref].epochs_left)
                problem = _problem(ray, ref)
                if problem:
                    problems[run.name] = problem
                elif run.finished:
                    print(f"{run.name}: done, {len(tasks) - len(pending)} of {len(tasks)} runs")
    finally:
        for ref in pending:
            ray.cancel(ref, force=True)
    if problems:
        listed = "; ".join(f"{name}: {text}" for name, text in problems.items())
        raise RunError(f"{listed} What is finished stays; the same command goes on.")


def _problem(ray, ref) -> str:
    """Why a run could not be tried to its end; empty if it was, or if a row it needs was not."""
    try:
        return ray.get(ref)["problem"]
    except ray.exceptions.RayError as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        return f"its worker was lost {RETRIES + 1} times, the last time by: {reason}."


class Log:
    """The lines that a run adds to its log.txt from now on."""

    def __init__(self, run: Run):
        self.run, self.path = run, run.folder / "log.txt"
        self.read = self.path.stat().st_size if self.path.exists() else 0
        self.epochs_left = 0 if isinstance(run.row, Combined) else run.row.fit.epochs

    def new_lines(self) -> list[tuple[str, str]]:
        """(host, text) of every whole line that was written since."""
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            file.seek(self.read)
            text = file.read().rpartition(b"\n")[0]
            if text:
                self.read += len(text) + 1
                record = state.readable_record(self.run.folder) or {}
                host = (record.get("sessions") or [{}])[-1].get("host", "another host")
                lines = [line[21:] for line in text.decode(errors="replace").splitlines()]
                self.epochs_left -= sum(line.startswith("epoch ") for line in lines)
                return [(host, line) for line in lines]
        return []


# In a worker, which may be on another host; Ray sends the functions there as they are


def _not_visible(paths: Sequence[str]) -> list[str]:
    """Those of the paths that this host does not see."""
    return [path for path in paths if not os.path.exists(path)]


def _train(job: dict, *needed: dict) -> dict:
    """Train one run in a process of its own: {"ended": whether, "problem": why it was not tried}.

    A killed process raises, so that Ray starts it again, here or elsewhere.
    """
    if not all(each["ended"] for each in needed):
        return {"ended": False, "problem": ""}  # a row that it needs failed
    if missing := _not_visible(job["needed"]):
        return {"ended": False, "problem": _unshared(socket.gethostname(), missing)}
    environment = {name: value for name, value in os.environ.items() if "OMP_NUM" not in name}
    environment |= job["variables"] | {"PYTHONPATH": job["root"]}
    run = [f"--rows={job['row']}", f"--seeds={job['seed']}", f"--only-train={job['digest']}"]
    command = [sys.executable, "-m", "reproduce.engine.spread", str(os.getpid()), job["module"]]
    with _own_cores(job["cpus"]):
        process = subprocess.run(
            [*command, *job["flags"], *run],
            cwd=job["folder"] if os.path.isdir(job["folder"]) else job["root"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches the driver alone, which stops all
        )
    if process.returncode < 0 or process.returncode > 128:
        raise RuntimeError(f"its process ended by signal {abs(process.returncode) % 128}")
    lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
    failed = process.returncode not in (0, 1)  # 1: recorded in the run's folder
    return {"ended": process.returncode == 0, "problem": lines[-1] if failed else ""}


@contextlib.contextmanager
def _own_cores(count: int):
    """Bind this process, and what it starts, to cores that no other row of this host has.

    Two networks whose threads share all cores wait for each other. The cores are held by locks,
    which the kernel frees however a process ends; where too few are free, all are used.
    """
    usable = os.sched_getaffinity(0)
    folder = Path(tempfile.gettempdir()) / f"cores-of-rows-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as held:
        cores: list[int] = []
        for core in sorted(usable):
            if len(cores) < count:
                file = held.enter_context((folder / str(core)).open("w"))
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    cores.append(core)
        if cores and len(cores) == count:
            os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, usable)


# Commands


def run_script(parent: int, module: str, flags: list[str]) -> None:
    """Run a script as `python -m MODULE FLAGS` does, and die when the task that started it does."""
    with contextlib.suppress(AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            raise SystemExit(143)
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def hold() -> None:
    """Start Ray on this machine, print its address, and stop it when standard input ends."""
    with _cluster("") as ray:
        print(ray.get_runtime_context().gcs_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "--hold":
        hold()
    elif re.fullmatch(r"\d+", sys.argv[1]):
        run_script(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
