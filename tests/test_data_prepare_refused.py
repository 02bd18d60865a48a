"""Images, lists and folders that data.prepare cannot use."""

import os

import cv2
import numpy as np
import pytest

from data import DataError
from data import prepare as module
from data.cache import Cache
from data.images import unlike_radiograph
from data.prepare import prepare
from tests.films import make_images


@pytest.fixture
def films(tmp_path):
    return tmp_path / "films", make_images(tmp_path / "films", 21)


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
        prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)
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
        prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)
    monkeypatch.setattr(module, "read_gray", None)  # what was decoded is not decoded again
    folder = prepare(
        root,
        names,
        tmp_path / "cache",
        64,
        skip_corrupt=True,
        workers=2,
        progress=False,
        shard_images=8,
    )
    cache = Cache(folder)
    assert list(cache.skipped) == bad
    assert set(cache.skipped.values()) == {"is truncated or damaged"}
    good = [name for name in names if name not in bad]
    assert len(cache.indices(good)) == 13
    with pytest.raises(DataError, match="8 of 21 images are not in the cache"):
        cache.indices(names)
    with pytest.raises(DataError, match="8 of 21 images cannot be used"):
        prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)


def test_a_replaced_image_mends_the_cache(damaged, tmp_path):
    root, names, bad = damaged
    with pytest.raises(DataError):
        prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)
    for name in bad:
        cv2.imwrite(str(root / name), np.eye(80, dtype=np.uint8))
    folder = prepare(root, names, tmp_path / "cache", 64, progress=False, shard_images=8)
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


def test_an_unwritable_place_is_one_sentence(films, tmp_path):
    root, names = films
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(
        DataError, match=r"cannot be written .Not a directory.: .* choose another folder"
    ):
        prepare(root, names, tmp_path / "file" / "cache", 64, progress=False)


def test_a_disk_that_is_too_small_is_noticed_before_any_work(films, tmp_path, monkeypatch):
    root, names = films
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda _: module.shutil._ntuple_diskusage(9, 9, 9)
    )
    monkeypatch.setattr(module, "read_gray", None)
    with pytest.raises(DataError, match="GB free"):
        prepare(root, names, tmp_path / "cache", 64, progress=False)


def test_another_version_is_refused(films, tmp_path):
    root, names = films
    folder = prepare(root, names, tmp_path / "cache", 64, progress=False)
    index = folder / "index.json"
    index.write_text(index.read_text().replace('"version": 2', '"version": 1'))
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


def test_gray_stored_in_three_channels_is_a_radiograph(tmp_path):
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
