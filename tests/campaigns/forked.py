"""Run scripts in forked children of a process that has already imported TensorFlow.

Importing it takes 10 s, too long for a campaign that kills a script a hundred times. The parent
must never run an operation: TensorFlow's threads do not survive a fork; its imports do.
"""

import os
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

CHEN = "reproduce.chen2019"
SMALL = ["--phantoms", "150", "--size", "32", "--batch-size", "16", "--resamples", "20"]


def warm_up() -> None:
    """Import what the scripts import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras  # noqa: F401

    from evaluation import figures, panels  # noqa: F401


def start(module: str, flags: Sequence[str], log: Path, before: Callable = lambda: None) -> int:
    """Start `python -m MODULE FLAGS` in a child, after `before()`; return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = [module, *flags]
        before()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """Wait for a child; return its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(module: str, flags: Sequence[str], log: Path) -> int:
    """Run a script to its end; return its exit code."""
    return wait(start(module, flags, log))


def run_undisturbed(module: str, flags: Sequence[str], log: Path) -> None:
    """Run a script to its end, and stop the campaign if it fails."""
    if code := run(module, flags, log):
        sys.exit(f"{module}: exit code {code}\n{log.read_text()[-3000:]}")


def predictions(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of predictions."""
    paths = folder.rglob("predictions*.npz")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def differing(expected: dict[str, bytes], made: dict[str, bytes]) -> list[str]:
    """Return the names of expected files that are missing or have other content."""
    return [name for name, content in expected.items() if made.get(name) != content]
