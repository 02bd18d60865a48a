"""tf.data batches: complete, reproducible, resumable, and ended without delay."""

import collections
import gc
import subprocess
import sys
import time
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from data import DataError, pipeline
from data.augment import Augment
from data.cache import Cache, chunk_images
from data.pipeline import epoch_order, ordered_batches, train_batches
from data.prepare import prepare

REPOSITORY = Path(__file__).parent.parent
COUNT, SIZE = 101, 24
DRAW = Augment(random_crop=True, flip=True)
AFFINE = Augment(flip=True, degrees=7, scale=0.02, shear=5 / 224)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    root = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    for k in range(COUNT):
        cv2.imwrite(str(root / f"{k:03d}.png"), rng.integers(0, 256, (48, 48), np.uint8))
    names = sorted(path.name for path in root.iterdir())
    folder = prepare(root, names, root / "cache", SIZE, progress=False, shard_images=16)
    return Cache(folder)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).permutation(COUNT)[:90]  # as a split: some, in any order


@pytest.fixture(scope="module")
def targets(rows) -> np.ndarray:
    targets = np.stack([rows, -rows], 1).astype(np.float32)
    targets[3, 1] = np.nan
    return targets


def collected(dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(images.numpy(), targets.numpy()) for images, targets in dataset]


def images_of(dataset) -> np.ndarray:
    """Return all images of a dataset without targets."""
    return np.concatenate([images.numpy() for images in dataset])


def same(first, second) -> bool:
    pairs = zip(first, second, strict=True)
    return all(np.array_equal(a[k], b[k], equal_nan=k == 1) for a, b in pairs for k in (0, 1))


@pytest.mark.parametrize("batch_size", [1, 7, 30, 90, 1000])
def test_evaluation_is_ordered_and_complete(cache, rows, targets, batch_size):
    dataset = ordered_batches(cache, rows, targets, batch_size)
    batches = collected(dataset)
    assert len(batches) == dataset.cardinality().numpy() == -(-90 // batch_size)
    images = np.concatenate([images for images, _ in batches])
    assert images.dtype == np.uint8
    assert images.shape == (90, SIZE, SIZE, 1)
    assert np.array_equal(images[..., 0], cache.read(rows))
    values = np.concatenate([values for _, values in batches])
    assert np.array_equal(values, targets, equal_nan=True)


def test_evaluation_crops_the_centre_and_needs_no_targets(cache, rows):
    images = images_of(ordered_batches(cache, rows, crop=20))
    assert np.array_equal(images[..., 0], cache.read(rows)[:, 2:22, 2:22])


def test_an_epoch_shows_every_image_once_with_its_own_target(cache, rows, targets):
    batches = collected(train_batches(cache, rows, targets, 30, seed=0, epoch=0))
    images = np.concatenate([images for images, _ in batches])[..., 0]
    shown = np.concatenate([values for _, values in batches])[:, 0].astype(int)
    assert sorted(shown) == sorted(rows)
    assert not np.array_equal(shown, rows)
    assert np.array_equal(images, cache.read(shown))


@pytest.mark.parametrize("augment", [DRAW, AFFINE], ids=["crop and flip", "affine"])
@pytest.mark.parametrize("chunk", [0, 4])
def test_batches_depend_on_seed_and_epoch_alone(cache, rows, targets, augment, chunk):
    def batches(seed, epoch):
        made = train_batches(
            cache, rows, targets, 16, seed, epoch, augment=augment, crop=20, chunk=chunk
        )
        return collected(made)

    first = batches(5, 2)
    assert same(first, batches(5, 2))
    assert not same(first, batches(5, 3))
    assert not same(first, batches(6, 2))


@pytest.mark.parametrize("calls", [1, 2, 8])
def test_parallelism_changes_nothing(cache, rows, targets, monkeypatch, calls):
    reference = collected(train_batches(cache, rows, targets, 4, 0, 0, augment=DRAW, crop=20))
    monkeypatch.setattr(pipeline, "_PARALLEL_CALLS", calls)
    for _ in range(3):
        assert same(
            reference,
            collected(train_batches(cache, rows, targets, 4, 0, 0, augment=DRAW, crop=20)),
        )


def test_another_process_makes_the_same_batches_and_ends_in_mid_epoch(
    cache, rows, targets, tmp_path
):
    np.savez(tmp_path / "in.npz", rows=rows, targets=targets)
    code = f"""
import sys
import numpy as np
from data.augment import Augment
from data.cache import Cache
from data.pipeline import ordered_batches, train_batches
cache, given = Cache(r"{cache.folder}"), np.load(r"{tmp_path / "in.npz"}")
batches = train_batches(cache, given["rows"], given["targets"], 16, 3, 4,
                        augment=Augment(random_crop=True, flip=True), crop=20)
np.save(r"{tmp_path / "out.npy"}", np.concatenate([images.numpy() for images, _ in batches]))
running = [iter(ordered_batches(cache, np.tile(np.arange(101), 500), None, 8)) for _ in range(4)]
[next(iterator) for iterator in running]
sys.exit(3)  # with tf.data's threads at work, which would wait for the interpreter for ever
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(
        command, cwd=REPOSITORY, timeout=120, check=False, capture_output=True, text=True
    )
    assert run.returncode == 3, run.stderr
    here = collected(train_batches(cache, rows, targets, 16, 3, 4, augment=DRAW, crop=20))
    there = np.load(tmp_path / "out.npy")
    assert np.array_equal(there, np.concatenate([images for images, _ in here]))


def test_the_remainder_is_dropped_in_training_on_request_only(cache, rows, targets):
    dropped = collected(train_batches(cache, rows, targets, 40, 0, 0))
    kept = collected(train_batches(cache, rows, targets, 40, 0, 0, drop_remainder=False))
    assert [len(images) for images, _ in dropped] == [40, 40]
    assert [len(images) for images, _ in kept] == [40, 40, 10]
    assert same(dropped, kept[:2])


def test_a_training_set_smaller_than_a_batch_still_trains(cache, rows, targets):
    batches = collected(train_batches(cache, rows[:5], targets[:5], 32, 0, 0))
    assert [len(images) for images, _ in batches] == [5]


def test_whole_batches_have_static_shapes(cache, rows, targets):
    images, labels = train_batches(
        cache, rows, targets, 16, 0, 0, augment=DRAW, crop=20
    ).element_spec
    assert images == tf.TensorSpec((16, 20, 20, 1), tf.uint8)
    assert labels == tf.TensorSpec((16, 2), tf.float32)
    images, _ = ordered_batches(cache, rows, targets, 16).element_spec
    assert images.shape.as_list() == [None, SIZE, SIZE, 1]


def test_float_batches_hold_the_same_values(cache, rows, targets):
    whole = collected(train_batches(cache, rows, targets, 16, 0, 0, augment=AFFINE))
    floats = collected(train_batches(cache, rows, targets, 16, 0, 0, augment=AFFINE, floats=True))
    assert floats[0][0].dtype == np.float32
    assert same(whole, floats)


def test_test_time_draws_differ_and_repeat(cache, rows):
    def drawn(draw):
        return images_of(ordered_batches(cache, rows, augment=AFFINE, seed=1, draw=draw))

    assert np.array_equal(drawn(0), drawn(0))
    assert not np.array_equal(drawn(0), drawn(1))


def test_augmentation_does_not_depend_on_the_batch_size(cache, rows):
    small, large = (
        images_of(ordered_batches(cache, rows, None, size, augment=AFFINE)) for size in (7, 64)
    )
    assert np.array_equal(small, large)


@pytest.mark.parametrize(("count", "chunk"), [(1000, 4), (90, 16), (10, 16), (5000, 1)])
def test_chunks_are_read_as_runs_and_shown_mixed(count, chunk):
    rows = np.random.default_rng(0).permutation(count)
    order, reading, window = epoch_order(rows, 0, 0, chunk)
    assert sorted(order) == sorted(reading) == list(range(count))
    runs = (np.diff(rows[reading]) == 1).mean()
    assert runs >= (chunk - 1) / chunk - chunk / count
    for start in range(0, count, window):  # a window shows what was read for it
        part = slice(start, start + window)
        assert set(order[part]) == set(reading[part])
    if chunk == 4:
        mixed = [len(set(rows[order[at : at + 32]] // chunk)) for at in range(0, count - 32, 32)]
        assert min(mixed) > 20  # of at most 32 places in the cache
    again = epoch_order(rows, 0, 1, chunk)[0]
    assert count <= chunk or not np.array_equal(order, again)


def test_small_caches_are_shuffled_as_a_whole(cache, monkeypatch):
    assert chunk_images(cache) == 0
    monkeypatch.setattr("os.sysconf", lambda name: 100)  # a machine with 10 kB
    assert chunk_images(cache) == (1 << 20) // SIZE**2


def test_impossible_requests_are_refused_in_one_sentence(cache, rows, targets):
    with pytest.raises(DataError, match="no images to make batches of"):
        ordered_batches(cache, rows[:0])
    with pytest.raises(DataError, match="no images to make batches of"):
        train_batches(cache, rows[:0], targets[:0], 8, 0, 0)
    with pytest.raises(DataError, match="Cannot crop 25 px"):
        ordered_batches(cache, rows, crop=25)
    with pytest.raises(DataError, match="89 rows of targets for 90 images"):
        train_batches(cache, rows, targets[1:], 8, 0, 0)


def test_an_epoch_is_freed_when_it_is_over(cache, rows, targets):
    watched = []
    for epoch in range(3):
        batches = train_batches(cache, rows, targets, 16, 0, epoch, augment=DRAW)
        for _ in batches:
            pass
        watched.append(weakref.ref(batches.cut))
    del batches
    gc.collect()
    assert [work() for work in watched] == [None] * 3


def test_an_epoch_ends_without_delay(cache, rows, targets):
    """TensorFlow's tuner would delay the end of an iterator until it next wakes."""
    made = (train_batches(cache, rows, targets, 16, seed=0, epoch=epoch) for epoch in range(8))
    iterators = [iter(batches) for batches in made]
    for iterator in iterators:
        next(iterator)
    time.sleep(0.7)  # it would wake after 1.28 s
    for iterator in iterators:
        collections.deque(iterator, maxlen=0)
    start = time.perf_counter()
    del iterator, iterators
    assert time.perf_counter() - start < 0.2


def test_an_iterator_outlives_the_name_of_its_dataset(cache, rows, targets):
    derived = iter(train_batches(cache, rows, targets, 9, 0, 0).map(lambda x, y: x).prefetch(1))
    gc.collect()
    assert len(list(derived)) == 10


def test_a_single_pass_is_the_first_draw(cache, rows):
    plain, first = (
        images_of(ordered_batches(cache, rows, augment=AFFINE, **draw))
        for draw in ({}, {"draw": 0, "seed": 0})
    )
    assert np.array_equal(plain, first)
