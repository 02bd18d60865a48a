"""Rows on a Ray cluster: what is refused, the order, the cores, and equal bytes."""

import argparse
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data.progress import TimeLeft
from reproduce import RunError
from reproduce.engine import spread, worker
from reproduce.engine.rows import Combined, Fit, Row, Run, Task, parents
from reproduce.engine.screen import Screen
from tests.conftest import REPOSITORY

SMALL = [
    *("--phantoms", "150", "--size", "32", "--batch-size", "16", "--resamples", "20"),
    *("--epochs", "2", "--finetune-epochs", "1"),
]


@pytest.fixture
def needs_ray():
    pytest.importorskip("ray", reason="Ray is not installed: requirements-cluster.txt")


def options_for(folder: Path, **changes) -> argparse.Namespace:
    settings = {
        "on": "ray",
        "address": None,
        "gpus_per_row": None,
        "cpus_per_row": None,
        "devices_per_row": 1,
        "only_train": None,
        "device": "auto",
        "data_dir": None,
        "split_file": None,
        "results_dir": folder / "results",
        "cache_dir": folder / "cache",
    }
    return argparse.Namespace(**settings | changes)


def row(name: str, epochs: int = 1, backbone: str = "tiny", start_from: str = "") -> Row:
    targets = np.zeros((1, 1), np.float32)
    task, fit = Task(["x"], targets, targets), Fit(epochs, lambda epoch, history: 0.0)
    network = {"backbone": backbone}
    return Row(name, task, lambda: None, fit, start_from=start_from, network=network)


def runs_of(rows: list, folder: Path) -> dict[str, Run]:
    return {each.name: Run(each, 0, folder / each.name, {}, each.name) for each in rows}


def parents_among(runs: dict[str, Run]):
    return lambda run: [runs[name] for name in parents(run.row)]


def without_ray(monkeypatch):
    monkeypatch.setattr(spread.importlib.util, "find_spec", lambda name: None)


def with_ray(monkeypatch):
    monkeypatch.setattr(spread.importlib.util, "find_spec", lambda name: "found")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    without_ray(monkeypatch)
    with pytest.raises(RunError, match=r"pip install -r requirements-cluster\.txt"):
        spread.check(options_for(tmp_path))


@pytest.mark.parametrize("flag", ["address", "gpus_per_row", "cpus_per_row"])
def test_flags_of_a_cluster_need_one(tmp_path, flag):
    with pytest.raises(RunError, match=f"--{flag.replace('_', '-')} .* add --on ray"):
        spread.check(options_for(tmp_path, on="here", **{flag: 1}))
    spread.check(options_for(tmp_path, on="here", **{flag: 1}, only_train="abc"))  # in a worker


@pytest.mark.parametrize("address", ["localhost", "localhost:port", "127.0.0.1:9", "a:99999"])
def test_address_where_nothing_answers(tmp_path, monkeypatch, address):
    with_ray(monkeypatch)
    with pytest.raises(RunError, match=f"No Ray cluster answers at '{address}'"):
        spread.check(options_for(tmp_path, address=address))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RunError, match="No Ray cluster answers"):
        spread.check(options_for(tmp_path))


def test_cpu_and_gpus_contradict_each_other(tmp_path, monkeypatch):
    with_ray(monkeypatch)
    with pytest.raises(RunError, match="contradict"):
        spread.check(options_for(tmp_path, device="cpu", gpus_per_row=1.0))


@pytest.mark.parametrize("flags", [["--gpus-per-row", "1.5"], ["--cpus-per-row", "0"]])
def test_shares_of_a_row_are_checked(flags):
    command = [sys.executable, "-m", "reproduce.chen2019", "--on", "ray", *flags]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 2
    assert flags[0] in ended.stderr.splitlines()[-1]


def nodes(*resources: dict) -> list[dict]:
    return [{"Alive": True, "Resources": each} for each in resources]


@pytest.mark.parametrize(
    ("hosts", "changes", "expected"),
    [
        ([{"CPU": 2}], {}, (0, 1)),
        ([{"CPU": 64}], {}, (0, 16)),
        ([{"CPU": 64, "GPU": 8}], {}, (1, 8)),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 8, "GPU": 4}, {"CPU": 1}], {}, (1, 2)),
        ([{"CPU": 64, "GPU": 8}], {"gpus_per_row": 0.5}, (0.5, 4)),
        ([{"CPU": 64, "GPU": 8}], {"gpus_per_row": 2.0}, (2, 16)),
        ([{"CPU": 64, "GPU": 8}], {"device": "cpu"}, (0, 16)),
        ([{"CPU": 64, "GPU": 8}], {"cpus_per_row": 3}, (1, 3)),
    ],
)
def test_a_row_gets_a_gpu_and_its_part_of_the_cores(tmp_path, hosts, changes, expected):
    assert spread._share(nodes(*hosts), options_for(tmp_path, **changes)) == expected


@pytest.mark.parametrize(
    ("hosts", "changes", "sentence"),
    [
        ([{"CPU": 4}], {"device": "gpu"}, "--device gpu, but no host of the Ray cluster has a GPU"),
        ([{"CPU": 4}], {"gpus_per_row": 1.0}, "--gpus-per-row 1, but no host"),
        ([{"CPU": 4}], {"cpus_per_row": 5}, "No host of the Ray cluster has 5 cores"),
        ([{"CPU": 4, "GPU": 1}], {"gpus_per_row": 2.0}, "2 GPUs for a row: lower"),
    ],
)
def test_more_than_the_cluster_has_is_refused(tmp_path, hosts, changes, sentence):
    with pytest.raises(RunError, match=sentence):
        spread._share(nodes(*hosts), options_for(tmp_path, **changes))


def test_long_chains_begin_first_and_parents_before_children(tmp_path):
    rows = [
        row("short", 1),
        row("long", 9),
        row("first", 5),
        row("second", 5, start_from="first"),
        row("again", 0, start_from="second"),
        row("large", 1, "nasnetlarge"),
        Combined("both", ["again", "short"]),
    ]
    runs = runs_of(rows, tmp_path)
    ordered = spread.longest_first(list(runs.values()), parents_among(runs))
    names = [run.row.name for run in ordered]
    assert names == ["large", "first", "long", "second", "short", "again", "both"]


def test_workers_get_flags_folders_and_threads_that_decide_results(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(sys, "argv", ["x", "--data-dir", "data", "--on", "ray"])
    options = options_for(tmp_path, data_dir="data")
    job = spread._job("chen2019", options, spread.Share(1, 4), tmp_path / "probe")
    assert job["module"] == "reproduce.chen2019"
    assert job["flags"][:4] == ["--data-dir", "data", "--on", "ray"]
    assert job["flags"][-3:] == ["--device", "gpu", "--on=here"]
    assert str(Path("data").absolute()) in job["needed"]
    assert job["variables"]["KERAS_BACKEND"] == "jax"
    assert job["variables"]["TF_NUM_INTRAOP_THREADS"] == str(len(os.sched_getaffinity(0)))


def test_unshared_results_are_one_sentence(tmp_path):
    with spread._probe(tmp_path / "results") as probe:
        assert worker.not_visible([str(probe)]) == []
        missing = worker.not_visible([str(tmp_path / "elsewhere" / probe.name)])
    assert not probe.exists()
    sentence = worker.unshared("node7", missing)
    assert sentence.startswith(f"node7 does not see {tmp_path / 'elsewhere'} as this host does")


def test_a_row_has_cores_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.tempfile, "gettempdir", lambda: str(tmp_path))
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        pytest.skip("this machine has one core")
    with worker._own_cores(1):
        first = os.sched_getaffinity(0)
        os.sched_setaffinity(0, usable)
        with worker._own_cores(1):
            second = os.sched_getaffinity(0)
    assert (len(first), len(second)) == (1, 1)
    assert first != second
    with contextlib.ExitStack() as held:
        for core in usable:
            file = held.enter_context((tmp_path / f"cores-of-rows-{os.getuid()}/{core}").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        with worker._own_cores(1):
            assert os.sched_getaffinity(0) == usable  # none is free
    assert os.sched_getaffinity(0) == usable


def test_the_process_of_a_task_dies_with_it(tmp_path):
    """Also where the task is killed, which cannot stop what it has started."""
    (tmp_path / "sleeps.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    start = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'reproduce.engine.worker',"
        " str(os.getpid()), 'sleeps'], stdout=subprocess.PIPE, text=True)\n"
        "child.stdout.readline()\nprint(child.pid, flush=True)\nchild.wait()\n"
    )
    path = f"{REPOSITORY}:{tmp_path}"
    task = subprocess.Popen(
        [sys.executable, "-c", start],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(task.stdout.readline())
    task.send_signal(signal.SIGKILL)
    task.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        assert not Path(f"/proc/{child}/stat").exists()


def test_the_screen_shows_what_runs_log_and_the_time_left_in_all(tmp_path, capsys):
    run = Run(row("a", 3), 0, tmp_path / "a", {}, "a")
    run.folder.mkdir()
    log = run.folder / "log.txt"
    log.write_text("2026-01-01 00:00:00  of an earlier session\n")
    screen = Screen([run], TimeLeft(3))
    with log.open("a") as file:
        file.write("2026-01-01 00:00:01  epoch 1/3  loss 0.1  val 0.5  2 s, 9 h left\n2026 half")
    screen.show_new_lines([run], at_once=True)
    shown = capsys.readouterr().out
    assert shown.startswith("a, seed 0 on another host: epoch 1/3  loss 0.1  val 0.5  2 s, ")
    assert shown.count("\n") == 1
    assert "s left in all" in shown
    screen.show_end(run, True)
    assert "a, seed 0: done; 1 of 1 runs" in capsys.readouterr().out
    assert screen.left.ahead == 0


@pytest.fixture
def one_cluster(needs_ray):
    with spread.cluster("", cpus=2) as ray:
        yield ray


def test_a_failed_row_fails_its_dependants_alone(tmp_path, one_cluster):
    rows = [
        row("good"),
        row("bad"),
        row("needs bad", start_from="bad"),
        row("needs good", start_from="good"),
        Combined("of both", ["needs bad", "good"]),
    ]
    runs = runs_of(rows, tmp_path)
    at = str(tmp_path)

    def task(job: dict) -> dict:
        from pathlib import Path

        with (Path(at) / "order").open("a") as file:
            file.write(job["row"] + "\n")
        return {"ended": job["row"] != "bad", "problem": ""}

    options = options_for(tmp_path)
    due = list(runs.values())
    spread.train_on(
        one_cluster, "chen2019", due, parents_among(runs), options, TimeLeft(4), task=task
    )
    order = (tmp_path / "order").read_text().splitlines()
    assert sorted(order) == ["bad", "good", "needs good"]
    assert order.index("good") < order.index("needs good")
    assert not list((tmp_path / "results").iterdir())


def test_a_lost_worker_is_replaced_and_a_problem_is_named(tmp_path, one_cluster):
    runs = runs_of([row("dies once"), row("has no disk")], tmp_path)
    at = str(tmp_path)

    def task(job: dict) -> dict:
        import os
        from pathlib import Path

        if job["row"] == "has no disk":
            return {"ended": False, "problem": "The disk is full."}
        tries = Path(at) / "tries"
        tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
        if tries.read_text() == "x":
            os.kill(os.getpid(), 9)
        return {"ended": True, "problem": ""}

    due, left = list(runs.values()), TimeLeft(2)
    with pytest.raises(RunError, match=r"^has no disk, seed 0: The disk is full\. What is"):
        spread.train_on(
            one_cluster, "chen2019", due, lambda run: [], options_for(tmp_path), left, task=task
        )
    assert (tmp_path / "tries").read_text() == "xx"


def script(folder: Path, *flags: str) -> subprocess.Popen:
    own = ["--results-dir", str(folder), "--cache-dir", str(folder.parent / "cache")]
    return subprocess.Popen(
        [sys.executable, "-m", "reproduce.chen2019", *SMALL, *own, *flags],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def predictions(folder: Path) -> dict[str, bytes]:
    paths = folder.rglob("predictions*.npz")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_ctrl_c_stops_all_workers_and_the_rest_equals_a_serial_run(tmp_path, needs_ray):
    rows = ["--rows", "HLUP-finetune"]
    first = script(tmp_path / "ray", *rows, "--on", "ray", "--cpus-per-row", "1")
    assert first.stdout is not None
    for line in first.stdout:
        if "epoch 1/2" in line:
            break
    first.send_signal(signal.SIGINT)
    rest = first.stdout.read()
    assert first.wait(60) == 130, rest
    assert "the same command goes on" in rest
    assert "Traceback" not in rest
    time.sleep(2)
    listed = subprocess.run(["pgrep", "-f", f"engine.worker .*{tmp_path}"], capture_output=True)
    assert not listed.stdout, "a worker is left"
    again = script(tmp_path / "ray", *rows, "--on", "ray", "--cpus-per-row", "1")
    shown = again.communicate()[0]
    assert again.returncode == 0, shown
    assert "HLUP-finetune, seed 0: done; 2 of 2 runs" in shown
    serial = script(tmp_path / "serial", *rows)
    assert serial.wait() == 0, serial.stdout.read()
    expected = predictions(tmp_path / "serial")
    assert len(expected) == 2
    assert predictions(tmp_path / "ray") == expected
