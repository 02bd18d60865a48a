"""Make tf.data batches of a prepared cache: shuffled and augmented for training, else in order.

Batches hold one uint8 gray channel; models scale and repeat it in their first layers, which is much
cheaper than doing so here. NumPy and OpenCV cut a whole batch per call from memory-mapped shards.
Batches depend on (seed, epoch, index) alone, so parallelism does not change them.
"""

import atexit
import math
import threading
import time
import weakref
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data import DataError
from data.augment import AS_STORED, Augment, apply
from data.cache import Cache

_PARALLEL_CALLS = 4
_READ_AHEAD = 8  # batches
_WINDOW_CHUNKS = 256


def train_batches(
    cache: Cache,
    indices: np.ndarray,
    targets: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    augment: Augment = AS_STORED,
    crop: int | None = None,
    chunk: int = 0,
    drop_remainder: bool = True,
    floats: bool = False,
) -> tf.data.Dataset:
    """Return one epoch of (uint8 (B, crop, crop, 1), float32 (B, labels)).

    The batches depend on the arguments alone, not on the machine. chunk 0 shuffles all images; see
    `cache.chunk_images` for caches that are larger than memory.
    """
    order = epoch_order(indices, seed, epoch, chunk)
    batch_size = max(1, min(batch_size, len(indices)))  # keep a set smaller than one batch
    if drop_remainder:
        order = order._replace(shown=order.shown[: len(indices) // batch_size * batch_size])
    draws = {"augment": augment, "seed": seed, "epoch": epoch}
    return _batches(cache, indices, targets, order, batch_size, crop, draws, floats)


def ordered_batches(
    cache: Cache,
    indices: np.ndarray,
    targets: np.ndarray | None = None,
    batch_size: int = 32,
    *,
    crop: int | None = None,
    augment: Augment = AS_STORED,
    seed: int = 0,
    draw: int = 0,
    floats: bool = False,
) -> tf.data.Dataset:
    """Return every image once, in the order of `indices`; images alone if targets is None.

    For test-time augmentation, pass the ranges in `augment` and the number of the pass in `draw`.
    """
    in_order = np.arange(len(indices))
    draws = {"augment": augment, "seed": seed, "epoch": draw}
    order = Order(in_order, in_order, 0)
    return _batches(cache, indices, targets, order, batch_size, crop, draws, floats)


class Order(NamedTuple):
    """Positions in `indices`: those to show, and all in the order in which they are read."""

    shown: np.ndarray
    read: np.ndarray
    ahead: int  # images that are read ahead; 0: no preference


def epoch_order(indices: np.ndarray, seed: int, epoch: int, chunk: int = 0) -> Order:
    """Return the order in which an epoch shows and reads the images at `indices`.

    With chunks, groups of `chunk` neighbours in the cache are shuffled, then the images within each
    window of 256 groups: a batch mixes images from 256 parts of the cache, while the disk reads
    1 MB at a time.
    """
    random = np.random.default_rng([seed, epoch])
    if not chunk:
        order = random.permutation(len(indices))
        return Order(order, order, 0)
    along = np.argsort(indices, kind="stable")
    starts = random.permutation(np.arange(0, len(indices), chunk))
    read = np.concatenate([along[start : start + chunk] for start in starts])
    shown, window = read.copy(), chunk * _WINDOW_CHUNKS
    for start in range(0, len(shown), window):
        random.shuffle(shown[start : start + window])
    return Order(shown, read, window)


def _batches(
    cache: Cache,
    indices: np.ndarray,
    targets: np.ndarray | None,
    order: Order,
    batch_size: int,
    crop: int | None,
    draws: dict,
    floats: bool,
) -> tf.data.Dataset:
    """Return batches of the images in `order`; `draws` are the options of `augment.apply`."""
    indices, crop = np.asarray(indices), crop or cache.size
    if not len(indices):
        raise DataError("There are no images to make batches of; check the split and its filters.")
    if targets is not None and len(targets) != len(indices):
        raise DataError(f"There are {len(targets)} rows of targets for {len(indices)} images.")
    if crop > cache.size:
        raise DataError(f"Cannot crop {crop} px from the {cache.size} px images of {cache.folder}.")
    shown, read, ahead = order
    ahead = ahead or _READ_AHEAD * batch_size
    steps = math.ceil(len(shown) / batch_size)
    whole = batch_size if len(shown) % batch_size == 0 else None

    def cut(step: np.ndarray) -> np.ndarray:
        start = int(step) * batch_size
        cache.will_need(indices[read[start + ahead if step else 0 : start + ahead + batch_size]])
        index = shown[start : start + batch_size]
        return apply(cache.images(indices[index]), crop, index=index, **draws)

    # TensorFlow never releases a Python function of a graph, so give it one that holds no data.
    alive = weakref.ref(cut)
    with tf.device("CPU"):
        positions = tf.constant(shown)
        by_position = None if targets is None else tf.constant(targets, tf.float32)

    def load(step):
        images = tf.numpy_function(_until_exit(alive), [step], tf.uint8, stateful=False)
        images.set_shape((whole, crop, crop, 1))
        if floats:
            images = tf.cast(images, tf.float32)
        if by_position is None:
            return images
        index = positions[step * batch_size : (step + 1) * batch_size]
        batch = tf.gather(by_position, index)
        batch.set_shape((whole, by_position.shape[1]))
        return images, batch

    batches = tf.data.Dataset.range(steps)
    batches = batches.map(load, num_parallel_calls=_PARALLEL_CALLS, deterministic=True)
    # Turn off TensorFlow's tuner: it has nothing to tune, and an iterator ends only when the tuner
    # next wakes, after 10 ms, 20 ms, ... 5.12 s, which delays the end of an epoch.
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = batches.prefetch(_PARALLEL_CALLS).with_options(options)
    # keeps `cut` alive as long as the dataset, which its iterators hold
    batches.cut = cut  # pyright: ignore[reportAttributeAccessIssue]
    return batches


# An interpreter that exits while tf.data still calls Python from its threads never ends. An exit
# hook therefore drains these calls first, which matters after Ctrl-C in the middle of an epoch.
_calls = 0
_running = 0
_closing = False
_counting = threading.Lock()


def _until_exit(function: weakref.ref):
    """Return a call of the referenced function that stops the iterator once Python exits."""

    def counted(*inputs):
        global _calls, _running
        with _counting:
            _calls += 1
            _running += 1
        try:
            cut = function()
            if _closing or cut is None:
                raise StopIteration
            return cut(*inputs)
        finally:
            with _counting:
                _running -= 1

    return counted


@atexit.register
def _run_dry() -> None:
    global _closing
    _closing, seen = True, -1
    while _calls and (_running or seen != _calls):
        seen = _calls
        time.sleep(0.05)
