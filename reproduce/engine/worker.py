"""What a Ray task does, on whatever host: it trains one run in a process of its own.

Ray sends these functions to the hosts as they are; the process that they start is the script.

    python -m reproduce.engine.worker PID MODULE FLAGS ...      see `run_script`
"""

import contextlib
import ctypes
import fcntl
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def unshared(host: str, missing: Sequence[str]) -> str:
    """The sentence for a host that does not see folders of this one."""
    folder = Path(missing[0])
    shown = folder.parent if folder.name.startswith(".shared-") else folder
    return (
        f"{host} does not see {shown} as this host does: put the suite, its results and the "
        "dataset on a file system that all hosts of the cluster share, under one path "
        "(--results-dir, --data-dir)."
    )


def not_visible(paths: Sequence[str]) -> list[str]:
    """Those of the paths that this host does not see."""
    return [path for path in paths if not os.path.exists(path)]


def train(job: dict) -> dict:
    """Train one run in a process of its own: {"ended": whether, "problem": why it was not tried}.

    A killed process raises, so that Ray starts it again, here or elsewhere.
    """
    if missing := not_visible(job["needed"]):
        return {"ended": False, "problem": unshared(socket.gethostname(), missing)}
    environment = {name: value for name, value in os.environ.items() if "OMP_NUM" not in name}
    environment |= job["variables"] | {"PYTHONPATH": job["root"]}
    run = [f"--rows={job['row']}", f"--seeds={job['seed']}", f"--only-train={job['digest']}"]
    command = [sys.executable, "-m", "reproduce.engine.worker", str(os.getpid()), job["module"]]
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


def run_script(parent: int, module: str, flags: list[str]) -> None:
    """Run a script as `python -m MODULE FLAGS` does, and die when the task that started it does."""
    with contextlib.suppress(AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            raise SystemExit(143)
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run_script(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
