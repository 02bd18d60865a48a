"""Rows on a Ray cluster: their share, their order, what a failure takes along, equal bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import safefiles
from reproduce import RunError
from reproduce.engine import runs as run_files
from reproduce.engine import schedules, train
from reproduce.engine.cluster import connection, tasks, worker
from reproduce.engine.cluster.screen import Screen
from reproduce.engine.rows import (
    Combined,
    Data,
    Fit,
    Network,
    Row,
    Run,
    Targets,
    Task,
    bce,
    parents,
)
from reproduce.engine.search import Chosen
from reproduce.engine.time_left import TimeLeft
from tests.conftest import REPOSITORY
from tests.on_ray import options_for, script


@pytest.fixture
def needs_ray():
    pytest.importorskip("ray", reason="Ray is not installed: requirements-cluster.txt")


def zeros(frame: pd.DataFrame) -> Targets:
    targets = np.zeros((len(frame), 1), np.float32)
    return Targets(targets, targets)


def row(name: str, epochs: int = 1, backbone: str = "tiny", start_from: str = "") -> Row:
    fit = Fit(epochs, schedules.Constant(0.0), 16)
    network = Network(backbone, 32, "none")
    return Row(name, Task(("x",), zeros), bce, fit, network, start_from=start_from)


def runs_of(rows: list, folder: Path) -> dict[str, Run]:
    return {each.name: Run(each, 0, folder / each.name, {}, each.name) for each in rows}


def parents_among(runs: dict[str, Run]):
    return lambda run: [runs[name] for name in parents(run.row)]


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
    assert tasks._share(nodes(*hosts), options_for(tmp_path, **changes)) == expected


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
        tasks._share(nodes(*hosts), options_for(tmp_path, **changes))


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
    ordered = tasks.longest_first(list(runs.values()), parents_among(runs))
    names = [run.row.name for run in ordered]
    assert names == ["large", "first", "long", "second", "short", "again", "both"]


def test_workers_get_flags_folders_and_threads_that_decide_results(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(sys, "argv", ["x", "--data-dir", "data", "--on", "ray"])
    options = options_for(tmp_path, data_dir="data")
    job = tasks._job("chen2019", options, tasks.Share(1, 4), tmp_path / "probe")
    assert job["module"] == "reproduce.chen2019"
    assert job["flags"][:4] == ["--data-dir", "data", "--on", "ray"]
    assert job["flags"][-3:] == ["--device", "gpu", "--on=here"]
    assert str(Path("data").absolute()) in job["needed"]
    assert job["variables"]["KERAS_BACKEND"] == "jax"
    assert job["variables"]["TF_NUM_INTRAOP_THREADS"] == str(len(os.sched_getaffinity(0)))


def test_unshared_results_are_one_sentence(tmp_path):
    with tasks._probe(tmp_path / "results") as probe:
        assert worker.not_visible([str(probe)]) == []
        missing = worker.not_visible([str(tmp_path / "elsewhere" / probe.name)])
    assert not probe.exists()
    sentence = worker.unshared("node7", missing)
    assert sentence.startswith(f"node7 does not see {tmp_path / 'elsewhere'} as this host does")


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
    with connection.connected("", cpus=2) as ray:
        yield ray


def test_a_host_that_does_not_see_the_folders_is_named(tmp_path, one_cluster):
    with pytest.raises(RunError, match=rf"does not see {tmp_path}/nowhere as this host does"):
        tasks._check_hosts(one_cluster, {"needed": [str(tmp_path), f"{tmp_path}/nowhere"]})


def test_a_failed_row_fails_its_dependants_alone(tmp_path, one_cluster):
    rows = [
        row("good"),
        row("bad"),
        row("needs bad", start_from="bad"),
        row("needs good", start_from="good"),
        Combined("of both", ["needs bad", "good"]),
        Chosen("chosen", ["bad", "good"], values=["1", "2"]),  # a search, of which a value failed
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
    tasks.train_on(
        one_cluster, "chen2019", due, parents_among(runs), options, TimeLeft(4), task=task
    )
    order = (tmp_path / "order").read_text().splitlines()
    assert sorted(order) == ["bad", "chosen", "good", "needs good"]
    assert order.index("good") < min(order.index("needs good"), order.index("chosen"))
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
    with pytest.raises(RunError, match=r"^has no disk, seed 0: The disk is full\. Finished runs"):
        tasks.train_on(
            one_cluster, "chen2019", due, lambda run: [], options_for(tmp_path), left, task=task
        )
    assert (tmp_path / "tries").read_text() == "xx"


def test_a_table_is_not_written_without_the_results_of_its_rows(tmp_path, monkeypatch):
    runs = runs_of([row("seen"), row("failed"), row("unseen")], tmp_path)
    by_name = {(run.row.name, run.seed): run for run in runs.values()}
    data, options = Data(pd.DataFrame(), None, {}), options_for(tmp_path)
    job = train.Job("chen2019", by_name, None, data, options, TimeLeft(0))
    for run in runs.values():
        run.folder.mkdir()
    runs["seen"].folder.joinpath("predictions.npz").touch()
    run_files.record_failure(runs["failed"], run_files.RowFailed("NaN", "Lower it."))
    train.wait_for_files(job, [runs["seen"], runs["failed"]])
    monkeypatch.setattr(train, "LATE", 0)
    monkeypatch.setattr(train, "PAUSE", 0)
    with pytest.raises(RunError, match="does not see the results of unseen, seed 0"):
        train.wait_for_files(job, list(runs.values()))


def predictions(folder: Path) -> dict[str, bytes]:
    paths = folder.rglob("predictions*.npz")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_host_with_a_cache_of_its_own_trains_the_same_run(tmp_path):
    """What a task starts on a host that has prepared nothing, and on one with other images."""
    rows = ["--rows", "BR-leaf", "--epochs", "1"]
    first = script(tmp_path / "here", *rows)
    assert first.wait() == 0, first.stdout.read()
    record = next((tmp_path / "here").rglob("config.json"))
    task = [*rows, "--only-train", json.loads(record.read_text())["digest"]]
    there = script(tmp_path / "there", *task, "--cache-dir", str(tmp_path / "scratch"))
    assert there.wait() == 0, there.stdout.read()
    assert (tmp_path / "scratch" / "images").is_dir()
    assert predictions(tmp_path / "there") == predictions(tmp_path / "here")
    other = script(tmp_path / "other", *task, "--phantoms", "160")
    assert "finds other images, labels or settings than the host" in other.communicate()[0]
    assert other.returncode == 2


def locks_held(folder: Path) -> list[Path]:
    """Return the locks that processes still hold after at most ten seconds."""
    deadline = time.monotonic() + 10
    while True:
        held = []
        for path in folder.rglob("seed-*/.lock"):
            with safefiles.lock(path) as free:
                held += [] if free else [path]
        if not held or time.monotonic() > deadline:
            return held
        time.sleep(0.2)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_stops_all_workers_and_the_rest_equals_a_serial_run(tmp_path, needs_ray, sent, code):
    # so many epochs that the first of the two rows is still trained when the signal comes
    rows = ["--rows", "HLUP-finetune", "--epochs", "30"]
    first = script(tmp_path / "ray", *rows, "--on", "ray", "--cpus-per-row", "1")
    assert first.stdout is not None
    for line in first.stdout:
        if "epoch 1/30" in line:
            break
    first.send_signal(sent)
    rest = first.stdout.read()
    assert first.wait(60) == code, rest
    assert "the same command resumes" in rest
    assert "Traceback" not in rest
    assert locks_held(tmp_path / "ray") == []
    again = script(tmp_path / "ray", *rows, "--on", "ray", "--cpus-per-row", "1")
    shown = again.communicate()[0]
    assert again.returncode == 0, shown
    assert "HLUP-finetune, seed 0: done; 2 of 2 runs" in shown
    serial = script(tmp_path / "serial", *rows)
    assert serial.wait() == 0, serial.stdout.read()
    expected = predictions(tmp_path / "serial")
    assert len(expected) == 2
    assert predictions(tmp_path / "ray") == expected
