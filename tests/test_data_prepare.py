"""Preparing the image cache: contents, resuming, concurrency, and inputs that are refused."""

import functools
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
from data.images import read_gray, unlike_radiograph
from data.prepare import prepare
from tests.films import contents, make_images

REPOSITORY = Path(__file__).parent.parent
# Prepare argv[1] into argv[2] at 64 px, 8 images per shard; print a line before the work starts.
SCRIPT = """
import sys
import safefiles
from data.prepare import prepare
from pathlib import Path
root, out = map(Path, sys.argv[1:])
paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
print("started", flush=True)
try:
    print(prepare(root, paths, out, 64, shard_images=8, workers=2))
except safefiles.UserError as error:
    sys.exit(str(error))
"""


prepared = functools.partial(prepare, size=64, progress=False, shard_images=8)


def command(root, out):
    return [sys.executable, "-c", SCRIPT, str(root), str(out)]


@pytest.fixture
def films(tmp_path):
    return tmp_path / "films", make_images(tmp_path / "films", 21)


def test_the_cache_equals_read_gray(films, tmp_path):
    root, names = films
    folder = prepared(root, names, tmp_path / "cache")
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


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_number_of_threads_changes_no_byte(films, tmp_path, workers):
    reference = contents(prepare(*films, tmp_path / "a", 64, progress=False, shard_images=4))
    other = prepare(*films, tmp_path / "b", 64, workers=workers, progress=False, shard_images=4)
    assert contents(other) == reference


def test_a_second_run_decodes_nothing(films, tmp_path, monkeypatch):
    folder = prepare(*films, tmp_path / "cache", 64, progress=False)
    monkeypatch.setattr(module, "read_sized", None)  # a call would fail
    assert prepare(*films, tmp_path / "cache", 64, progress=False) == folder


def test_five_kills_do_not_change_the_final_bytes(tmp_path):
    root = tmp_path / "films"
    names = make_images(root, 160, side=1000)
    whole = prepared(root, names, tmp_path / "whole")
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


def test_leftovers_of_a_killed_run_are_deleted_and_never_read(films, tmp_path):
    folder = prepared(*films, tmp_path / "cache")
    before = contents(folder)
    shard = next(folder.glob("00001*.npy"))
    ended = subprocess.Popen(["true"])
    ended.wait()
    shard.rename(shard.with_name(f".part-{ended.pid}-{shard.name}"))
    with pytest.raises(DataError, match="missing or cut short"):
        Cache(folder)
    assert contents(prepared(*films, tmp_path / "cache", workers=2)) == before


def test_a_changed_source_changes_its_shard_and_the_fingerprint(films, tmp_path):
    root, names = films
    folder = prepared(root, names, tmp_path / "cache")
    before, old = contents(folder), Cache(folder)
    was = old.read(np.arange(21))
    path = root / names[10]
    cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    os.utime(path, ns=(1, 1))
    prepared(root, names, tmp_path / "cache")
    new, after = Cache(folder), contents(folder)
    assert new.fingerprint != old.fingerprint
    assert np.array_equal(new.read(np.array([10]))[0], read_gray(path, 64))
    kept = [name for name in before if after.get(name) == before[name]]
    assert len(kept) == 4  # two of three shards, with their notes; the index is new
    assert len(after) == len(before)  # the former shard is gone
    assert np.array_equal(old.read(np.arange(21)), was)  # an open reader still reads the old images


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


def test_a_full_disk_is_one_sentence_and_loses_nothing(films, tmp_path):
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
    prepared(root, names, tmp_path / "cache")
    assert Cache(folder).read(np.array([20])).any()


def test_two_processes_can_prepare_the_same_cache_at_once(tmp_path):
    root = tmp_path / "films"
    names = make_images(root, 64, side=500)
    runs = [
        subprocess.Popen(command(root, tmp_path / "cache"), cwd=REPOSITORY, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    folders = {run.communicate()[0].split()[-1] for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(folders) == 1
    reference = prepared(root, names, tmp_path / "alone")
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
        # a background script passes on that SIGINT is ignored
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


def test_progress_is_plain_lines_without_a_terminal(films, tmp_path, capsys):
    prepare(*films, tmp_path / "cache", 64)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("prepare: 21/21 images, ")
    prepare(*films, tmp_path / "quiet", 64, progress=False)
    assert capsys.readouterr().err == ""


def test_opencv_keeps_its_number_of_threads(films, tmp_path):
    threads = cv2.getNumThreads()
    prepare(*films, tmp_path / "cache", 64, progress=False)
    assert cv2.getNumThreads() == threads


def test_real_radiographs(shared_data, tmp_path):
    root = shared_data / "chestxray14-64px" / "images"
    names = sorted(path.name for path in root.glob("*.png"))
    cache = Cache(prepare(root, names, tmp_path, 32, progress=False))
    images = cache.read(cache.indices(names))
    assert images.shape == (696, 32, 32)
    assert 30 < images.mean() < 200
    assert (images.std((1, 2)) > 10).mean() > 0.99


# Images, lists and folders that cannot be used


@pytest.fixture
def damaged(films):
    root, names = films
    for k in range(2, 18, 2):
        path = root / names[k]
        path.write_bytes(path.read_bytes()[:-20])
    return root, names, [names[k] for k in range(2, 18, 2)]


def test_corrupt_images_are_all_named(damaged, tmp_path):
    root, names, bad = damaged
    with pytest.raises(DataError) as raised:
        prepared(root, names, tmp_path / "cache")
    message = str(raised.value)
    assert message.startswith("8 of 21 images cannot be used")
    assert [name in message for name in bad] == [True] * 5 + [False] * 3
    assert "--skip-corrupt" in message
    listing = next((tmp_path / "cache").glob("*/corrupt.csv"))
    assert str(listing) in message
    lines = listing.read_text().splitlines()
    assert [line.split(",")[0].strip('"') for line in lines[1:]] == bad
    with pytest.raises(DataError, match="no finished image cache"):
        Cache(listing.parent)


def test_corrupt_images_can_be_skipped_and_are_counted(damaged, tmp_path, monkeypatch):
    root, names, bad = damaged
    with pytest.raises(DataError):
        prepared(root, names, tmp_path / "cache")
    monkeypatch.setattr(module, "read_sized", None)  # decoded images are not decoded again
    folder = prepared(root, names, tmp_path / "cache", skip_corrupt=True, workers=2)
    cache = Cache(folder)
    assert list(cache.skipped) == bad
    assert set(cache.skipped.values()) == {"is truncated or damaged"}
    good = [name for name in names if name not in bad]
    assert len(cache.indices(good)) == 13
    with pytest.raises(DataError, match="8 of 21 images are not in the cache"):
        cache.indices(names)
    with pytest.raises(DataError, match="8 of 21 images cannot be used"):
        prepared(root, names, tmp_path / "cache")


def test_a_replaced_image_repairs_the_cache(damaged, tmp_path):
    root, names, bad = damaged
    with pytest.raises(DataError):
        prepared(root, names, tmp_path / "cache")
    for name in bad:
        cv2.imwrite(str(root / name), np.eye(80, dtype=np.uint8))
    folder = prepared(root, names, tmp_path / "cache")
    assert not Cache(folder).skipped
    assert not list(folder.glob("*corrupt*"))


def test_missing_empty_and_double_lists_are_refused(films, tmp_path):
    root, names = films
    with pytest.raises(DataError, match="1 of 22 images are not in"):
        prepare(root, [*names, "gone.png"], tmp_path / "cache", 64, progress=False)
    with pytest.raises(DataError, match="listed twice"):
        prepare(root, [*names, names[0]], tmp_path / "cache", 64, progress=False)
    with pytest.raises(DataError, match="no images to prepare"):
        prepare(root, [], tmp_path / "cache", 64, progress=False)
    assert not (tmp_path / "cache").exists()


def test_a_disk_that_is_too_small_is_noticed_before_any_work(films, tmp_path, monkeypatch):
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda _: module.shutil._ntuple_diskusage(9, 9, 9)
    )
    monkeypatch.setattr(module, "read_sized", None)
    with pytest.raises(DataError, match="GB free"):
        prepare(*films, tmp_path / "cache", 64, progress=False)


def test_another_version_is_refused(films, tmp_path):
    folder = prepare(*films, tmp_path / "cache", 64, progress=False)
    index = folder / "index.json"
    index.write_text(index.read_text().replace('"version": 3', '"version": 2'))
    with pytest.raises(DataError, match="another version"):
        Cache(folder)


def test_what_predict_refuses_is_not_trained_on(tmp_path):
    root = tmp_path / "films"
    names = make_images(root, 9)
    rng = np.random.default_rng(0)
    odd = {
        "a.png": (rng.integers(0, 256, (1, 1), np.uint8), "has 1 x 1 pixels; at least 32"),
        "b.png": (
            rng.integers(0, 256, (40, 3000), np.uint8),
            "not the shape of a chest radiograph",
        ),
        "c.png": (rng.integers(0, 256, (64, 64, 3), np.uint8), "is in colour"),
        "d.jpg": (np.tile(np.uint8([0, 128, 255]), (64, 64, 1)), "is in colour"),
        "e.png": (np.full((64, 64), 7, np.uint8), "is a single shade of gray"),
    }
    for name, (image, _) in odd.items():
        cv2.imwrite(str(root / name), image)
    os.mkfifo(root / "f.png")
    everything = [*names, *odd, "f.png"]
    with pytest.raises(DataError, match="6 of 15 images cannot be used"):
        prepare(root, everything, tmp_path / "cache", 64, progress=False)
    cache = Cache(
        prepare(root, everything, tmp_path / "cache", 64, skip_corrupt=True, progress=False)
    )
    assert sorted(cache.skipped) == [*odd, "f.png"]
    for name, (_, reason) in odd.items():
        assert reason in cache.skipped[name]
        assert unlike_radiograph(root / name) == cache.skipped[name]
    assert "not a regular file" in cache.skipped["f.png"]
    with pytest.raises(
        DataError, match=r"None of the 1 images can be used: f.png is not a regular"
    ):
        prepare(root, ["f.png"], tmp_path / "cache", 64, skip_corrupt=True, progress=False)


def test_gray_in_three_channels_is_a_radiograph(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    for name in ("a.png", "b.jpg", "c.tif"):
        cv2.imwrite(str(tmp_path / name), np.stack([gray] * 3, -1))
        assert unlike_radiograph(tmp_path / name) == ""
    cache = Cache(prepare(tmp_path, ["a.png", "b.jpg", "c.tif"], tmp_path / "c", 64))
    assert not cache.skipped


def test_a_file_name_that_is_not_utf_8_can_be_listed(tmp_path):
    root = tmp_path / "films"
    names = make_images(root, 3)
    odd = os.fsdecode(b"R\xf6ntgen.png")
    (root / odd).write_bytes(b"damaged")
    with pytest.raises(DataError, match="1 of 4 images cannot be used"):
        prepare(root, [*names, odd], tmp_path / "cache", 64, progress=False)
    listing = next((tmp_path / "cache").glob("*/corrupt.csv"))
    assert b'"R\xf6ntgen.png"' in listing.read_bytes()
    cache = Cache(prepare(root, [*names, odd], tmp_path / "cache", 64, skip_corrupt=True))
    assert list(cache.skipped) == [odd]
