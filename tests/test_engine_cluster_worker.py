"""What a Ray task does with a row: cores of its own, and a process that is a fresh copy."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reproduce.engine.cluster import worker
from tests.conftest import REPOSITORY


def test_a_row_has_cores_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.tempfile, "gettempdir", lambda: str(tmp_path))
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        pytest.skip("this machine has one core")
    with worker._own_cores(1) as first, worker._own_cores(1) as second:
        assert (len(first), len(second)) == (1, 1)
        assert first != second
    with contextlib.ExitStack() as held:
        for core in usable:
            file = held.enter_context((tmp_path / f"cores-of-rows-{os.getuid()}/{core}").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        with worker._own_cores(1) as cores:
            assert cores == usable  # none is free


@pytest.fixture
def job(tmp_path, monkeypatch):
    """What a task gets to train a row of the script row.py, which a test writes."""
    monkeypatch.setattr(worker, "_forking", None)
    monkeypatch.setenv("LEFT_OVER", "of this process")
    for name in ("reproduce", "safefiles.py", "downloads.py"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    about = {"row": "a", "seed": 0, "digest": "abc", "cpus": 1, "import_first": False}
    folders = {"root": str(tmp_path), "folder": str(tmp_path), "needed": []}
    yield about | folders | {"module": "row", "flags": ["--on=here"], "variables": {"TF_X": "1"}}
    if worker._forking is not None:
        worker._forking.kill()
        worker._forking.wait()


@pytest.mark.parametrize(
    ("script", "ended", "problem"),
    [
        ("pass", True, ""),
        ("raise SystemExit(3)", False, ""),  # the folder of the run says why
        ("1 / 0", False, "ZeroDivisionError: division by zero"),
        ("import sys; print('The disk is full.', file=sys.stderr); sys.exit(2)", False, "The disk"),
        ("raise SystemExit(2)", False, "its process ended with exit code 2"),
        ("import sys; assert sys.argv[1:] == ['--on=here', *'--rows=a --seeds=0 "
         "--only-train=abc'.split()]", True, ""),
        ("import os; assert len(os.sched_getaffinity(0)) == 1", True, ""),
        ("import os; assert os.getcwd() == os.path.dirname(__file__)", True, ""),
        ("import os; assert os.environ['TF_X'] == '1' and 'LEFT_OVER' in os.environ", True, ""),
    ],
)  # fmt: skip
def test_how_the_process_of_a_row_ends(tmp_path, job, script, ended, problem):
    (tmp_path / "row.py").write_text(script)
    result = worker.train(job)
    assert (result["ended"], result["problem"][: len(problem)]) == (ended, problem)
    assert bool(result["problem"]) == bool(problem)


def test_every_row_begins_in_a_fresh_copy_of_one_process(tmp_path, job):
    """Its imports stay, its memory does not; it may die, and so may the process that it copies."""
    script = tmp_path / "row.py"
    script.write_text(
        "import json, os, sys\n"
        "open('seen', 'a').write(f'{os.getppid()} {\"of_a_row\" in sys.modules}\\n')\n"
        "sys.modules['of_a_row'] = json\n"
    )
    assert worker.train(job)["ended"]
    assert worker.train(job | {"row": "b"})["ended"]
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen == [f"{worker._forking.pid} False"] * 2
    script.write_text("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(RuntimeError, match="ended by signal 9"):
        worker.train(job)
    script.write_text("import os; os.kill(os.getppid(), 9)")
    with pytest.raises(RuntimeError, match="ended by signal 9"):
        worker.train(job)
    script.write_text("pass")
    assert worker.train(job)["ended"]


def is_running(process: int) -> bool:
    """Whether a process runs; one that nobody waits for may stay in the list as a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_process_of_a_row_dies_with_its_task(tmp_path, job):
    """Also where the task is killed, which cannot stop what it has started."""
    (tmp_path / "row.py").write_text(
        "import os, time\n"
        "open('pids', 'w').write(f'{os.getpid()} {os.getppid()}\\n')\n"
        "time.sleep(600)\n"
    )
    start = f"from reproduce.engine.cluster import worker\nworker.train({job!r})"
    task = subprocess.Popen([sys.executable, "-c", start], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    row_and_parent = [int(text) for text in (tmp_path / "pids").read_text().split()]
    assert all(map(is_running, row_and_parent))
    task.send_signal(signal.SIGKILL)
    task.wait()
    while any(map(is_running, row_and_parent)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
