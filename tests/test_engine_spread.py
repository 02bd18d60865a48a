"""Rows on a Ray cluster: what is refused, the order, the cores, and equal bytes."""

import argparse
import contextlib
import fcntl
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from data import files
from data.progress import TimeLeft
from reproduce import RunError
from reproduce.engine import cluster, spread, worker
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
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)


def with_ray(monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: "found")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    without_ray(monkeypatch)
    with pytest.raises(RunError, match=r"pip install -r requirements-cluster\.txt"):
        cluster.check(options_for(tmp_path))


@pytest.mark.parametrize("flag", ["address", "gpus_per_row", "cpus_per_row"])
def test_flags_of_a_cluster_need_one(tmp_path, flag):
    with pytest.raises(RunError, match=f"--{flag.replace('_', '-')} .* add --on ray"):
        cluster.check(options_for(tmp_path, on="here", **{flag: 1}))
    cluster.check(options_for(tmp_path, on="here", **{flag: 1}, only_train="abc"))  # in a worker


@pytest.mark.parametrize("address", ["localhost", "localhost:port", "127.0.0.1:9", "a:99999"])
def test_address_where_nothing_answers(tmp_path, monkeypatch, address):
    with_ray(monkeypatch)
    with pytest.raises(RunError, match=f"No Ray cluster answers at '{address}'"):
        cluster.check(options_for(tmp_path, address=address))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RunError, match="No Ray cluster answers"):
        cluster.check(options_for(tmp_path))


@pytest.fixture
def listening():
    """Ports on which something listens that is not Ray."""
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and says nothing
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield {"silent": silent.getsockname()[1], "web": web.server_port}
    web.shutdown()
    thread.join()
    web.server_close()
    silent.close()


@pytest.mark.parametrize("what", ["silent", "web"])
def test_address_where_something_else_listens(tmp_path, monkeypatch, listening, what):
    with_ray(monkeypatch)
    began = time.monotonic()
    with pytest.raises(RunError, match=r"^What listens at '127.* is not Ray.* --address HOST:PORT"):
        cluster.check(options_for(tmp_path, address=f"127.0.0.1:{listening[what]}"))
    assert time.monotonic() - began < 30


def test_cpu_and_gpus_contradict_each_other(tmp_path, monkeypatch):
    with_ray(monkeypatch)
    with pytest.raises(RunError, match="contradict"):
        cluster.check(options_for(tmp_path, device="cpu", gpus_per_row=1.0))


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
    (tmp_path / "reproduce").symlink_to(REPOSITORY / "reproduce")
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
    start = f"from reproduce.engine import worker\nworker.train({job!r})"
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
    with cluster.connected("", cpus=2) as ray:
        yield ray


def test_a_host_that_does_not_see_the_folders_is_named(tmp_path, one_cluster):
    with pytest.raises(RunError, match=rf"does not see {tmp_path}/nowhere as this host does"):
        spread._check_hosts(one_cluster, {"needed": [str(tmp_path), f"{tmp_path}/nowhere"]})


@pytest.fixture(scope="module")
def address_of_a_cluster():
    """Ray without a GPU, started by a process of its own, as all.sh does."""
    pytest.importorskip("ray", reason="Ray is not installed: requirements-cluster.txt")
    command = [sys.executable, "-m", "reproduce.engine.cluster", "--hold"]
    holder = subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    yield holder.stdout.readline().strip()
    holder.stdin.close()
    assert holder.wait(60) == 0


def test_another_version_of_ray_is_named(address_of_a_cluster, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "__version__", "2.0.1")
    wanted = (
        r"cannot be used \(Version mismatch: .* Ray: 2\.0\.1 .* the same versions of Python and"
    )
    with pytest.raises(RunError, match=wanted), cluster.connected(address_of_a_cluster):
        pass


def test_a_cluster_without_gpus_ends_a_command_in_one_sentence(tmp_path, address_of_a_cluster):
    process = script(
        tmp_path / "ray", "--on=ray", f"--address={address_of_a_cluster}", "--device=gpu"
    )
    shown = process.communicate()[0]
    assert process.returncode == 2, shown
    assert "Traceback" not in shown
    last = shown.splitlines()[-1]
    assert last.startswith(
        "--device gpu, but no host of the Ray cluster has a GPU: start Ray where"
    )


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


def locks_held(folder: Path) -> list[Path]:
    """The runs that some process still trains, up to ten seconds later."""
    deadline = time.monotonic() + 10
    while True:
        held = []
        for path in folder.rglob("seed-*/.lock"):
            with files.lock(path) as free:
                held += [] if free else [path]
        if not held or time.monotonic() > deadline:
            return held
        time.sleep(0.2)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_stops_all_workers_and_the_rest_equals_a_serial_run(tmp_path, needs_ray, sent, code):
    rows = ["--rows", "HLUP-finetune"]
    first = script(tmp_path / "ray", *rows, "--on", "ray", "--cpus-per-row", "1")
    assert first.stdout is not None
    for line in first.stdout:
        if "epoch 1/2" in line:
            break
    first.send_signal(sent)
    rest = first.stdout.read()
    assert first.wait(60) == code, rest
    assert "the same command goes on" in rest
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
