"""The cache: its fingerprint, read-ahead, and the detection and repair of damaged files."""

import functools
import os
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from data import DataError, cache
from data.cache import Cache
from data.prepare import prepare
from safefiles import UserError
from tests.films import contents, make_images

COUNT = 21


@pytest.fixture
def films(tmp_path):
    return tmp_path / "films", make_images(tmp_path / "films", COUNT)


prepared = functools.partial(prepare, size=32, progress=False, shard_images=8)


@pytest.fixture
def folder(films, tmp_path) -> Path:
    """Return a prepared cache of three shards."""
    return prepared(*films, tmp_path / "cache")


def test_new_file_times_and_another_folder_give_the_same_fingerprint(films, tmp_path):
    root, names = films
    first = Cache(prepared(root, names, tmp_path / "cache"))
    copied = tmp_path / "elsewhere" / "copy"
    shutil.copytree(root, copied, copy_function=shutil.copyfile)
    for name in names:
        os.utime(copied / name, ns=(5, 5))
    second = Cache(prepared(copied, names, tmp_path / "local disk"))
    assert second.folder != first.folder
    assert second.fingerprint == first.fingerprint
    for name in names[:3]:
        os.utime(root / name, ns=(7, 7))
    again = Cache(prepared(root, names, tmp_path / "cache"))
    assert again.folder == first.folder
    assert again.fingerprint == first.fingerprint


def test_another_pixel_path_order_or_size_gives_another_fingerprint(films, tmp_path):
    root, names = films
    made = [Cache(prepared(root, names, tmp_path / "a")).fingerprint]
    made.append(Cache(prepared(root, names[::-1], tmp_path / "b")).fingerprint)
    made.append(Cache(prepared(root, names[:-1], tmp_path / "c")).fingerprint)
    made.append(
        Cache(prepare(root, names, tmp_path / "d", 40, progress=False, shard_images=8)).fingerprint
    )
    image = cv2.imread(str(root / names[3]), cv2.IMREAD_GRAYSCALE)
    image[:8, :8] = 255 - image[:8, :8]
    cv2.imwrite(str(root / names[3]), image)
    made.append(Cache(prepared(root, names, tmp_path / "e")).fingerprint)
    (root / names[3]).rename(root / "renamed.png")
    renamed = ["renamed.png" if name == names[3] else name for name in names]
    made.append(Cache(prepared(root, renamed, tmp_path / "f")).fingerprint)
    assert len(set(made)) == 6


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "one bit": _flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "missing": Path.unlink,
    "another shard": lambda path: shutil.copyfile(
        next(p for p in sorted(path.parent.glob("0*.npy")) if p.name[:5] == "00000"), path
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_refused_and_prepared_again_with_one_line(
    films, folder, tmp_path, capsys, damage
):
    Cache(folder)
    before = contents(folder)
    shard = next(folder.glob("00001*.npy"))
    times = {path: path.stat().st_mtime_ns for path in folder.glob("0*.npy") if path != shard}
    damage(shard)
    with pytest.raises(DataError, match=rf"{shard} is damaged, missing or cut short; run the same"):
        Cache(folder)
    prepared(*films, tmp_path / "cache")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"1 of 3 shards of the image cache {folder} are damaged or gone")
    assert shard.name in lines[0]
    assert contents(folder) == before
    assert all(path.stat().st_mtime_ns == when for path, when in times.items()), "redone"
    Cache(folder)


@pytest.mark.parametrize("damage", [_flip, Path.unlink, lambda p: p.write_text("[]")])
@pytest.mark.parametrize("name", ["index.json", "00002*.npy.json"])
def test_a_damaged_index_or_note_is_written_again(films, folder, tmp_path, name, damage):
    before = contents(folder)
    damage(next(folder.glob(name)))
    if name == "index.json":
        with pytest.raises(DataError, match=r"no finished image cache|damaged|another version"):
            Cache(folder)
    prepared(*films, tmp_path / "cache")
    assert contents(folder) == before


def test_random_bit_flips_are_found_or_change_no_image(films, folder, tmp_path):
    before, pixels = contents(folder), Cache(folder).read(np.arange(COUNT))
    random_numbers = random.Random(0)
    refused = 0
    for _ in range(150):
        path = folder / random_numbers.choice(sorted(before))
        content = bytearray(before[path.name])
        content[random_numbers.randrange(len(content))] ^= 1 << random_numbers.randrange(8)
        path.write_bytes(content)
        try:
            assert np.array_equal(Cache(folder).read(np.arange(COUNT)), pixels)
        except DataError:
            refused += 1
        prepared(*films, tmp_path / "cache")
        assert contents(folder) == before
    assert refused > 80


def test_a_blocking_folder_is_named_and_foreign_files_are_kept(films, folder, tmp_path):
    root, names = films
    (folder / "thesis.txt").write_text("years of work")
    (folder / "pictures").mkdir()
    shard = next(folder.glob("00001*.npy"))
    shard.unlink()
    shard.mkdir()
    with pytest.raises(UserError, match=rf"{shard} cannot be written .*a folder has its name"):
        prepared(*films, tmp_path / "cache")
    shard.rmdir()
    os.utime(root / names[0], ns=(1, 1))
    prepared(*films, tmp_path / "cache")
    assert (folder / "thesis.txt").read_text() == "years of work"
    assert (folder / "pictures").is_dir()
    assert len(list(folder.glob("0*.npy"))) == 3  # the shard of the former file time is gone
    (folder / "index.json").unlink()
    (folder / "index.json").mkdir()
    with pytest.raises(UserError, match=r"index.json cannot be written .*move that folder away"):
        prepared(*films, tmp_path / "cache")


def test_a_shard_is_compared_once_in_a_process(folder, monkeypatch):
    counted, crc32 = [], cache.zlib.crc32  # a shard's block comes with a value to go on from
    monkeypatch.setattr(
        cache.zlib, "crc32", lambda *block: counted.extend(block[1:]) or crc32(*block)
    )
    Cache(folder)
    assert len(counted) == 3
    Cache(folder)
    assert len(counted) == 3
    os.utime(next(folder.glob("00001*.npy")))
    Cache(folder)
    assert len(counted) == 4


def test_images_that_are_not_in_the_cache_are_named(films, folder):
    _, names = films
    opened = Cache(folder)
    empty = opened.read(np.array([], np.int64))
    assert (empty.shape, empty.dtype) == ((0, 32, 32), np.uint8)
    assert opened.indices(names[::-1]).tolist() == list(range(COUNT))[::-1]
    with pytest.raises(DataError, match=r"^2 of 3 images are not in the cache .* first: x\.png\)"):
        opened.indices([names[0], "x.png", "y.png"])


def test_neighbours_are_read_ahead_in_one_request_within_their_shard(folder):
    """Shards have 8 images of 1024 bytes; a request begins at a page and ends with its images."""
    opened = Cache(folder)
    requests = []

    class Shard:
        def __init__(self, number, mapped):
            self.number, self.mapped = number, mapped

        def __len__(self):
            return len(self.mapped)

        def madvise(self, advice, begin, size):
            assert (advice, begin % cache.mmap.PAGESIZE) == (cache.mmap.MADV_WILLNEED, 0)
            assert begin + size <= len(self)
            requests.append((self.number, begin, size))

    opened._maps = [(Shard(k, mapped), count) for k, (mapped, count) in enumerate(opened._maps)]
    opened.will_need(np.array([], np.int64))
    assert requests == []
    opened.will_need(np.array([0, 1, 5, 7, 8, 9, 16, 20]))
    image = 32**2
    whole = len(opened._maps[0][0])
    assert requests == [(0, 0, whole), (1, 0, 3 * image), (2, 0, whole - 3 * image)]
    requests.clear()
    opened.will_need(np.array([4, 7]))  # from the page of image 4 to the end of the file
    assert requests == [(0, cache.mmap.PAGESIZE, whole - cache.mmap.PAGESIZE)]
    requests.clear()
    opened.will_need(np.array([7, 2, 3]))  # backwards: two requests
    assert [number for number, _, _ in requests] == [0, 0]


def test_images_are_shuffled_in_chunks_of_1_mb_where_they_exceed_the_limit(folder):
    opened = Cache(folder)
    size = COUNT * 32 * 32
    assert [cache.chunk_images(opened, limit) for limit in (size, size - 1)] == [0, 1024]
    opened.size = 2048
    assert cache.chunk_images(opened, 0) == 1
    assert len(opened.fingerprint) == 16
