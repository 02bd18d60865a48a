"""Images inside ZIP archives and .npz arrays are those of files."""

import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data import BadImage, DataError, containers
from data.cache import Cache
from data.images import read_gray, read_sized
from data.prepare import prepare
from tests.test_data_prepare import films  # noqa: F401

ROWS = 2000


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Return an .npz of noise, and its images."""
    path = tmp_path_factory.mktemp("npz") / "noise_8.npz"
    images = np.random.default_rng(0).integers(0, 256, (ROWS, 40, 40), np.uint8)
    np.savez_compressed(path, train_images=images, test_images=images[:3])
    return path, images


def test_a_path_is_split_at_the_container(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    (tmp_path / "folder.zip").mkdir()
    assert containers.split(tmp_path / "a.zip" / "x" / "y.png") == (tmp_path / "a.zip", "x/y.png")
    for path in (tmp_path / "x.png", tmp_path / "folder.zip" / "x.png", tmp_path / "b.zip/x.png"):
        assert containers.split(path) is None


@pytest.mark.parametrize("order", ["forward", "backward", "threads"])
def test_rows_are_read_in_any_order(rows, order):
    path, images = rows
    wanted = np.arange(ROWS)[:: {"forward": 1, "backward": -400, "threads": 1}[order]]

    def same(row):
        return np.array_equal(containers.read(path, f"train/{row}/name.png"), images[row])

    with ThreadPoolExecutor(8 if order == "threads" else 1) as pool:
        assert all(pool.map(same, wanted))


def test_a_stream_is_not_started_anew_for_threads(rows, monkeypatch):
    opened = []
    monkeypatch.setattr(
        containers.Rows, "_open", lambda self, own=containers.Rows._open: opened.append(own(self))
    )
    stream = containers.Rows(rows[0], "train_images")
    with ThreadPoolExecutor(8) as pool:
        assert len([*pool.map(stream.read, range(ROWS))]) == ROWS
    assert len(opened) == 1


def test_few_rows_stay_in_memory(rows, monkeypatch):
    path, images = rows
    monkeypatch.setattr(containers, "_KEPT", 10 * 40 * 40)
    stream = containers.Rows(path, "train_images")
    for row in (500, 495, 3):  # recent, recent, read anew
        assert np.array_equal(stream.read(row), images[row])
        assert len(stream._recent) <= 10


@pytest.mark.parametrize(
    ("member", "reason"),
    [("train/2000", "it has 2,000 rows, not 2,001"), ("val/0", "not in this archive")],
)
def test_a_row_that_is_not_there(rows, member, reason):
    with pytest.raises(BadImage, match=reason):
        containers.read(rows[0], member)


def test_an_array_that_is_cut_short(rows, tmp_path):
    with zipfile.ZipFile(rows[0]) as whole, zipfile.ZipFile(tmp_path / "a.npz", "w") as cut:
        cut.writestr("train_images.npy", whole.read("train_images.npy")[:-1])
    assert containers.read(tmp_path / "a.npz", "train/1998").shape == (40, 40)
    with pytest.raises(BadImage, match="cut short"):
        containers.read(tmp_path / "a.npz", "train/1999")


def test_other_values_than_bytes_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=np.zeros((2, 3, 3), np.float32))
    with pytest.raises(DataError, match="float32 values in train_images"):
        containers.shape(tmp_path / "a.npz", "train_images")


def test_an_archive_gives_what_its_files_give(films, tmp_path):  # noqa: F811
    root, names = films
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(root / name, f"images/{name}")
    members = [f"images.zip/images/{name}" for name in names]
    for name, member in zip(names, members, strict=True):
        image, side = read_sized(tmp_path / member, 32, radiograph=True)
        assert np.array_equal(image, read_gray(root / name, 32))
        assert side == read_sized(root / name, 32)[1]
    with pytest.raises(BadImage, match="not in this archive"):
        read_gray(tmp_path / "images.zip" / "nowhere.png", 32)
    from_files = Cache(prepare(root, names, tmp_path / "c1", 32, progress=False))
    from_archive = Cache(prepare(tmp_path, members, tmp_path / "c2", 32, progress=False))
    every = np.arange(len(names))
    assert np.array_equal(from_files.read(every), from_archive.read(every))


def test_the_cache_records_which_sources_are_too_small(rows, tmp_path):
    paths = [f"{rows[0].name}/train/{row}" for row in range(10)]
    for size, enlarged in ((40, 0), (41, 10)):
        cache = Cache(prepare(rows[0].parent, paths, tmp_path / "cache", size, progress=False))
        assert (cache.shortest, cache.enlarged, cache.resized) == (40, enlarged, size)


def test_threads_share_one_archive(films, tmp_path):  # noqa: F811
    root, names = films
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.write(root / name, name)
    barrier = threading.Barrier(4)

    def read_all(_):
        barrier.wait()
        return [containers.read(tmp_path / "a.zip", name) for name in names]

    with ThreadPoolExecutor(4) as pool:
        for contents in pool.map(read_all, range(4)):
            assert contents == [(root / name).read_bytes() for name in names]
