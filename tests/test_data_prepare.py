import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data import DataError, template_crop
from data import prepare as module
from data.cache import Cache
from data.images import read_gray
from data.prepare import prepare
from tests.films import make_images

REPOSITORY = Path(__file__).parent.parent
# Prepares argv[1] into argv[2] at 64 px, 8 images a shard; prints a line when it starts to work.
SCRIPT = """
import sys
from data import DataError
from data.prepare import prepare
from pathlib import Path
root, out = map(Path, sys.argv[1:])
paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
print("started", flush=True)
try:
    print(prepare(root, paths, out, 64, shard_images=8, workers=2))
except DataError as error:
    sys.exit(str(error))
"""


def command(root, out):
    return [sys.executable, "-c", SCRIPT, str(root), str(out)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def films(tmp_path):
    return tmp_path / "films", make_images(tmp_path / "films", 21)


def test_the_cache_holds_what_read_gray_returns(films, tmp_path):
    root, names = films
    folder = prepare(root, names, tmp_path / "cache", 64, shard_images=8, progress=False)
    cache = Cache(folder)
    rows = cache.indices(names)
    assert np.array_equal(rows, np.arange(21))
    assert len(list(folder.glob("*.npy"))) == 3
    expected = np.stack([read_gray(root / name, 64) for name in names])
    assert np.array_equal(cache.read(rows), expected)
    shuffled = np.random.default_rng(0).permutation(21)
    assert np.array_equal(cache.read(shuffled), expected[shuffled])
    assert np.array_equal(
        np.load(folder / Path(next(folder.glob("00002*.npy"))).name), expected[16:]
    )


def test_the_index_records_size_and_time_of_every_source(films, tmp_path):
    root, names = films
    folder = prepare(root, names, tmp_path / "cache", 64, progress=False)
    index = json.loads((folder / "index.json").read_text())
    status = (root / names[4]).stat()
    assert index["sources"][4] == [status.st_size, status.st_mtime_ns]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_number_of_threads_changes_no_byte(films, tmp_path, workers):
    root, names = films
    reference = contents(prepare(root, names, tmp_path / "a", 64, progress=False, shard_images=4))
    other = prepare(
        root, names, tmp_path / "b", 64, workers=workers, progress=False, shard_images=4
    )
    assert contents(other) == reference


def test_a_second_run_decodes_nothing(films, tmp_path, monkeypatch):
    root, names = films
    folder = prepare(root, names, tmp_path / "cache", 64, progress=False)
    monkeypatch.setattr(module, "read_gray", None)  # a call would fail
    assert prepare(root, names, tmp_path / "cache", 64, progress=False) == folder


def test_killed_five_times_it_ends_in_the_same_bytes(tmp_path):
    root = tmp_path / "films"
    names = make_images(root, 160, side=1000)
    whole = prepare(root, names, tmp_path / "whole", 64, progress=False, shard_images=8)
    out, seen = tmp_path / "killed", 0
    for kill in range(1, 6):
        run = subprocess.Popen(
            command(root, out), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        run.stdout.readline()
        while run.poll() is None and len(list(out.glob("*/0*.npy"))) < 3 * kill:
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL, "it finished before it could be killed"
        finished = {path: path.stat().st_mtime_ns for path in out.glob("*/0*.npy")}
        assert len(finished) > seen
        seen = len(finished)
        with pytest.raises(DataError, match="no finished image cache"):
            Cache(next(path for path in out.iterdir() if path.is_dir()))
    done = subprocess.run(
        command(root, out), cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    folder = Path(done.stdout.splitlines()[-1])
    assert contents(folder) == contents(whole)
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items()), "redone"


def _ended_process() -> int:
    """The id of a process that is over."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_leftover_of_a_killed_run_is_swept_up_and_never_read(films, tmp_path):
    root, names = films
    folder = prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)
    before = contents(folder)
    shard = next(folder.glob("00001*.npy"))
    shard.rename(shard.with_name(f".part-{_ended_process()}-{shard.name}"))
    with pytest.raises(DataError, match="missing or cut short"):
        Cache(folder)
    assert (
        contents(
            prepare(root, names, tmp_path / "cache", 64, workers=2, progress=False, shard_images=8)
        )
        == before
    )


def test_a_shard_cut_short_is_refused_and_made_anew(films, tmp_path):
    root, names = films
    folder = prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)
    before = contents(folder)
    shard = next(folder.glob("00001*.npy"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DataError, match="cut short"):
        Cache(folder)
    prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)
    assert contents(folder) == before


def test_a_changed_source_changes_its_shard_and_the_fingerprint(films, tmp_path):
    root, names = films
    folder = prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)
    before, old = contents(folder), Cache(folder)
    was = old.read(np.arange(21))
    path = root / names[10]
    cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    os.utime(path, ns=(1, 1))
    prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)
    new, after = Cache(folder), contents(folder)
    assert new.fingerprint != old.fingerprint
    assert np.array_equal(new.read(np.array([10]))[0], read_gray(path, 64))
    kept = [name for name in before if after.get(name) == before[name]]
    assert len(kept) == 4  # two of three shards, with their notes; the index is new
    assert len(after) == len(before)  # the former shard is gone
    assert np.array_equal(old.read(np.arange(21)), was)  # who still reads it, reads what it was


def test_other_settings_and_other_lists_are_other_caches(films, tmp_path):
    root, names = films
    template = np.arange(56 * 56, dtype=np.uint8).reshape(56, 56)
    folders = {
        prepare(root, names, tmp_path / "cache", 64, progress=False),
        prepare(root, names, tmp_path / "cache", 48, progress=False),
        prepare(root, names[:-1], tmp_path / "cache", 64, progress=False),
        prepare(root, names, tmp_path / "cache", 64, template, progress=False),
        prepare(root, names, tmp_path / "cache", 64, 255 - template, progress=False),
    }
    assert len(folders) == 5


def test_with_a_template_the_best_windows_are_stored(films, tmp_path):
    root, names = films
    template = template_crop.build(root, names, 64, 56)
    cache = Cache(prepare(root, names, tmp_path / "cache", 64, template, progress=False))
    assert cache.size == 56
    expected = template_crop.crop(read_gray(root / names[3], 64), template)
    assert np.array_equal(cache.read(np.array([3]))[0], expected)


def test_a_disk_that_fills_up_is_one_sentence_and_loses_nothing(films, tmp_path):
    root, names = films
    # A limit on file sizes fails the same writes, in the middle of a shard (8 images: 32 kB).
    full = subprocess.run(
        command(root, tmp_path / "cache"),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert full.returncode == 1
    last = full.stderr.strip().splitlines()[-1]
    assert "0.npy cannot be written (File too large): free some space" in re.sub(
        r"\w+\.npy", "0.npy", last
    )
    assert "Traceback" not in full.stderr
    folder = next(path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert not list(folder.glob(".part-*"))
    prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)
    assert Cache(folder).read(np.array([20])).any()


def test_two_processes_may_prepare_the_same_cache_at_once(tmp_path):
    root = tmp_path / "films"
    names = make_images(root, 64, side=500)
    runs = [
        subprocess.Popen(command(root, tmp_path / "cache"), cwd=REPOSITORY, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    folders = {run.communicate()[0].split()[-1] for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(folders) == 1
    reference = prepare(root, names, tmp_path / "alone", 64, progress=False, shard_images=8)
    assert contents(Path(folders.pop().decode())) == contents(reference)


def test_ctrl_c_stops_at_once_and_keeps_finished_shards(tmp_path):
    root = tmp_path / "films"
    make_images(root, 160, side=1000)
    run = subprocess.Popen(
        command(root, tmp_path / "cache"),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a script that runs in the background hands on that SIGINT is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list((tmp_path / "cache").glob("*/0*.npy")):
        time.sleep(0.005)
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    errors = run.communicate(timeout=20)[1]
    assert time.monotonic() - began < 5
    assert "KeyboardInterrupt" in errors  # the scripts turn it into a sentence and code 130
    assert list((tmp_path / "cache").glob("*/0*.npy"))
    assert not list((tmp_path / "cache").glob("*/.part-*"))


def test_progress_is_plain_lines_where_there_is_no_terminal(films, tmp_path, capsys):
    root, names = films
    prepare(root, names, tmp_path / "cache", 64)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("prepare: 21/21 images, ")
    prepare(root, names, tmp_path / "quiet", 64, progress=False)
    assert capsys.readouterr().err == ""


def test_opencv_keeps_its_number_of_threads(films, tmp_path):
    root, names = films
    threads = cv2.getNumThreads()
    prepare(root, names, tmp_path / "cache", 64, progress=False)
    assert cv2.getNumThreads() == threads


def test_read_ahead_accepts_any_rows(films, tmp_path):
    root, names = films
    cache = Cache(prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8))
    for rows in ([], [20], [0, 1, 2, 3], [7, 8], list(range(21)), [20, 0, 5]):
        cache.will_need(np.array(rows, np.int64))


def test_real_radiographs(shared_data, tmp_path):
    root = shared_data / "chestxray14-64px" / "images"
    names = sorted(path.name for path in root.glob("*.png"))
    cache = Cache(prepare(root, names, tmp_path, 32, progress=False))
    images = cache.read(cache.indices(names))
    assert images.shape == (696, 32, 32)
    assert 30 < images.mean() < 200
    assert (images.std((1, 2)) > 10).mean() > 0.99
