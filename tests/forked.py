"""Scripts run in forked children of one process that has imported TensorFlow already.

Importing it takes 10 s and a test that kills a script a hundred times has no time for that. The
parent must never run an operation: TensorFlow's threads do not survive a fork, its imports do.
"""

import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def warm_up() -> None:
    """Import what the scripts import, once."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(REPOSITORY))
    import keras  # noqa: F401

    from evaluation import figures, panels  # noqa: F401


def start(module: str, flags: Sequence[str], log: Path, before: Callable = lambda: None) -> int:
    """The process id of a child that runs `python -m MODULE FLAGS`; `before` runs in it first."""
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
        sys.argv = [module, *map(str, flags)]
        before()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """The exit code of a child; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
