"""What a Ray task does, on whatever host: it trains one run in a process of its own.

Ray sends these functions to the hosts as they are. The first task of a Ray worker starts

    python -m reproduce.engine.worker PID

which imports TensorFlow once, and is forked for every row: each begins in a fresh copy, and its
memory is free when it ends.
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
from collections.abc import Sequence
from pathlib import Path

RECORDED = 3  # exit code of a run that failed, and whose folder says why
_forking: subprocess.Popen | None = None  # this Ray worker's process that is forked for every row


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


def _fork_and_wait(script: dict, root: str, import_first: bool) -> int:
    """The exit code of a script that a fork of this Ray worker's own process has run."""
    global _forking
    if _forking is None or _forking.poll() is not None:
        _forking = subprocess.Popen(
            [sys.executable, "-m", "reproduce.engine.worker", str(os.getpid())],
            cwd=root,
            env=script["environment"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the driver alone, which stops all
        )
    assert _forking.stdin is not None
    assert _forking.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps([import_first, script]), file=_forking.stdin, flush=True)
    answer = _forking.stdout.readline()
    return int(answer) if answer else _forking.wait() or -signal.SIGKILL


@contextlib.contextmanager
def _own_cores(count: int):
    """The cores to bind a row to: so many that no other row of this host has.

    Two networks whose threads share all cores wait for each other. The cores are held by locks,
    which the kernel frees however a process ends; where too few are free, all are used.
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

    Nothing is computed here, because TensorFlow's threads do not survive a fork; its imports do.
    """
    _die_with(parent)
    for line in sys.stdin:
        import_first, script = json.loads(line)
        if import_first:
            from reproduce.engine import fit  # noqa: F401  # TensorFlow, and all that rows need
        this = os.getpid()
        child = os.fork()
        if not child:
            _die_with(this)
            run_script(**script)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the one that started it is gone."""
    with contextlib.suppress(AttributeError):  # Linux alone has it
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
    """Run a script as `python -m MODULE FLAGS` does."""
    for number, path in ((0, os.devnull), (1, os.devnull), (2, errors)):
        os.dup2(os.open(path, os.O_RDWR), number)
    os.environ.clear()
    os.environ |= environment
    os.chdir(folder)
    os.sched_setaffinity(0, cores)
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    fork_for_every_script(int(sys.argv[1]))
