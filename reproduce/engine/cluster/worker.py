"""The code of a Ray task: train one run in a process of its own.

Ray sends these functions to the hosts by value. The first task of a Ray worker starts

    python -m reproduce.engine.cluster.worker PID

which imports TensorFlow once and is forked for every row: each row starts in a fresh copy, and its
memory is freed when it ends.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reproduce import Parser

RECORDED = 3  # as in runs.py: a run that failed and wrote down why
_forking: subprocess.Popen[str] | None = None  # the process that is forked for every row


def unshared(host: str, missing: Sequence[str]) -> str:
    """Return the message for a host that does not see folders of this one."""
    folder = Path(missing[0])
    shown = folder.parent if folder.name.startswith(".shared-") else folder
    return (
        f"{host} does not see {shown} as this host does: put the suite, its results and the "
        "dataset on a file system that all hosts of the cluster share, under one path "
        "(--results-dir, --data-dir)."
    )


def not_visible(paths: Sequence[str]) -> list[str]:
    """Return the paths that this host cannot see."""
    return [path for path in paths if not os.path.exists(path)]


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train one run in a process of its own; return if it ended, and why it could not be tried.

    Raise if the process was killed, so that Ray starts it again, here or on another host.
    """
    if missing := not_visible(job["needed"]):
        return {"ended": False, "problem": unshared(socket.gethostname(), missing)}
    environment = {name: value for name, value in os.environ.items() if "OMP_NUM" not in name}
    environment |= job["variables"] | {"PYTHONPATH": job["root"]}
    run = [f"--rows={job['row']}", f"--seeds={job['seed']}", f"--only-train={job['digest']}"]
    with _own_cores(job["cpus"]) as cores, tempfile.NamedTemporaryFile() as errors:
        script = {
            "module": job["module"],
            "flags": [*job["flags"], *run],
            "folder": job["folder"] if os.path.isdir(job["folder"]) else job["root"],
            "environment": environment,
            "cores": sorted(cores),
            "errors": errors.name,
        }
        code = _fork_and_wait(script, job["root"], job["import_first"])
        lines = errors.read().decode(errors="replace").strip().splitlines()
    if code < 0 or code > 128:
        raise RuntimeError(f"its process ended by signal {abs(code) % 128}")
    reason = lines[-1] if lines else f"its process ended with exit code {code}"
    return {"ended": code == 0, "problem": reason if code not in (0, RECORDED) else ""}


def _fork_and_wait(script: dict[str, Any], root: str, import_first: bool) -> int:
    """Run a script in a fork of this Ray worker's own process; return its exit code."""
    global _forking
    if _forking is None or _forking.poll() is not None:
        _forking = subprocess.Popen(
            [sys.executable, "-m", "reproduce.engine.cluster.worker", str(os.getpid())],
            cwd=root,
            env=script["environment"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # only the driver gets Ctrl-C, and stops all
        )
    assert _forking.stdin is not None
    assert _forking.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps([import_first, script]), file=_forking.stdin, flush=True)
    answer = _forking.stdout.readline()
    return int(answer) if answer else _forking.wait() or -signal.SIGKILL


@contextlib.contextmanager
def _own_cores(count: int) -> Iterator[set[int]]:
    """Yield so many cores that no other row of this host uses, or all if too few are free.

    Two networks whose threads share all cores wait for each other. The cores are reserved by file
    locks, which the kernel frees however a process ends.
    """
    usable = os.sched_getaffinity(0)
    folder = Path(tempfile.gettempdir()) / f"cores-of-rows-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as held:
        cores: set[int] = set()
        for core in sorted(usable):
            if len(cores) < count:
                file = held.enter_context((folder / str(core)).open("w"))
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    cores.add(core)
        yield cores if cores and len(cores) == count else usable


def fork_for_every_script(parent: int) -> None:
    """Run every script that standard input names in a fork, and print its exit code.

    This process computes nothing: TensorFlow's imports survive a fork, its threads do not.
    """
    _die_with(parent)
    for line in sys.stdin:
        import_first, script = json.loads(line)
        if import_first:
            from reproduce.engine import callbacks, networks  # noqa: F401  # import TensorFlow
        this = os.getpid()
        child = os.fork()
        if not child:
            _die_with(this)
            run_script(**script)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _die_with(parent: int) -> None:
    """Make the kernel kill this process when the process that started it ends."""
    with contextlib.suppress(AttributeError):  # only on Linux
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            raise SystemExit(143)


def run_script(
    *,
    module: str,
    flags: list[str],
    folder: str,
    environment: dict[str, str],
    cores: list[int],
    errors: str,
) -> None:
    """Run a script like `python -m MODULE FLAGS`."""
    for number, path in ((0, os.devnull), (1, os.devnull), (2, errors)):
        os.dup2(os.open(path, os.O_RDWR), number)
    os.environ.clear()
    os.environ |= environment
    os.chdir(folder)
    os.sched_setaffinity(0, cores)
    sys.argv = [module, *flags]
    Parser.last_wins = True
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    fork_for_every_script(int(sys.argv[1]))
