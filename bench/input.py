"""Images per second from files to batches: first pass, later passes, cold disk, growing datasets.

The loaders of other suites are written again here, as small as they go and never slower than the
originals, so their figures are upper bounds.
"""

import argparse
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image  # installed with matplotlib

from bench import machine, publish
from data import template_crop
from data.augment import Augment
from data.cache import Cache
from data.prepare import prepare

BATCH, STORED, CROP = 32, 256, 224
DRAW = Augment(random_crop=True, flip=True)
AFFINE = Augment(random_crop=True, flip=True, degrees=7, scale=0.02, shear=5 / 224)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

PREPARE_ALONE = """
import os, sys, time
from pathlib import Path
from data.prepare import prepare
root, out = sys.argv[1:]
names = sorted(os.listdir(root))
start = time.perf_counter()
prepare(root, names, out, 256, progress=False, workers=2)
seconds = time.perf_counter() - start
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(seconds, peak / 1024)
"""


class Growth(NamedTuple):
    """What one size of a dataset costs."""

    images: int
    cache: Path
    prepare_ms: float  # an image
    prepare_mb: float  # at its peak
    epoch_ms: float  # an image
    epoch_mb: float  # of the process' own memory


def film(number: int, side: int = 1024) -> np.ndarray:
    """A drawn X-ray film whose PNG is as large, and as slow to decode, as those of ChestX-ray14."""
    rng = np.random.default_rng(number)
    shadows = cv2.resize(rng.normal(128, 40, (16, 16)), (side, side), interpolation=cv2.INTER_CUBIC)
    grain = cv2.resize(rng.normal(0, 3, (side * 5 // 8, side * 5 // 8)), (side, side))
    return np.clip(shadows + grain, 0, 255).astype(np.uint8)


def write_films(root: Path, count: int, distinct: int, side: int, kind: str) -> list[str]:
    """A folder of `count` file names, links to a few distinct images."""
    root.mkdir()
    for k in range(distinct):
        cv2.imwrite(str(root / f"{k:06d}.{kind}"), film(k, side))
    for k in range(distinct, count):
        os.link(root / f"{k % distinct:06d}.{kind}", root / f"{k:06d}.{kind}")
    return sorted(os.listdir(root))


def decode_and_shrink(paths: list[str]) -> None:
    """The bare first pass: nothing but cv2.imdecode and area resizing."""
    cv2.setNumThreads(1)
    for path in paths:
        shrunk(path)


def shrunk(path: str) -> np.ndarray:
    """An image file as OpenCV decodes and shrinks it."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None, path
    return cv2.resize(image, (STORED, STORED), interpolation=cv2.INTER_AREA)


def opencv_batch(paths: list[str]) -> np.ndarray:
    """A raw-file loader's batch by OpenCV: decode, shrink, crop, mirror; uint8."""
    cv2.setNumThreads(1)
    rng, batch = np.random.default_rng(0), np.empty((len(paths), CROP, CROP, 1), np.uint8)
    for slot, path in zip(batch, paths, strict=True):
        top, left = rng.integers(0, STORED - CROP + 1, 2)
        window = shrunk(path)[top : top + CROP, left : left + CROP]
        slot[..., 0] = window[:, ::-1] if rng.random() < 0.5 else window
    return batch


def chexnet_keras(paths: list[str]) -> None:
    """CheXNet-Keras' Sequence: one thread, RGB floats; Pillow's resize for scikit-image's."""
    rng = np.random.default_rng(0)
    for start in range(0, len(paths), BATCH):
        images = []
        for path in paths[start : start + BATCH]:
            image = Image.open(path).convert("RGB").resize((CROP, CROP), Image.Resampling.BILINEAR)
            array = np.asarray(image) / 255.0
            images.append(array[:, ::-1] if rng.random() < 0.5 else array)
        (np.stack(images) - MEAN) / STD


def plain_tf_data(paths: list[str]):
    """Decode, shrink, crop and mirror by tf.data's own operations, as its guides show."""
    import tensorflow as tf

    def load(path):
        image = tf.io.decode_png(tf.io.read_file(path), channels=1)
        image = tf.image.resize(image, (STORED, STORED), method="area")
        image = tf.image.random_crop(image, (CROP, CROP, 1))
        return tf.image.random_flip_left_right(image)

    files = tf.data.Dataset.from_tensor_slices(paths)
    batches = files.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
    return batches.prefetch(tf.data.AUTOTUNE)


def take_turns(ways: dict, rounds: int) -> dict[str, float]:
    """Median images per second of each way; a way returns how many images it made."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):  # the first, which warms up, does not count
        for name, way in ways.items():
            start = time.perf_counter()
            count = way()
            if turn:
                rates[name].append(count / (time.perf_counter() - start))
    return {name: statistics.median(each) for name, each in rates.items()}


def first_pass(folder: Path, count: int, rounds: int, pool) -> dict[str, float]:
    names = write_films(folder / "films", count, 32, 1024, "png")
    paths = [str(folder / "films" / name) for name in names]
    template = template_crop.build(folder / "films", names[:32], STORED, CROP)

    def bare() -> int:
        list(pool.map(decode_and_shrink, [paths[::2], paths[1::2]]))
        return count

    def prepared(chosen=None) -> int:
        prepare(folder / "films", names, folder / "c", STORED, chosen, workers=2, progress=False)
        shutil.rmtree(folder / "c")
        return count

    ways = {
        "two processes, imdecode + area resize only": bare,
        "`prepare`": prepared,
        "`prepare` with template crop": lambda: prepared(template),
    }
    return take_turns(ways, rounds)


def raw_files(folder: Path, rounds: int, pool) -> dict[str, float]:
    paths = sorted(str(path) for path in (folder / "films").iterdir())[: 6 * BATCH]
    parts = [paths[at : at + BATCH] for at in range(0, len(paths), BATCH)]
    batches = plain_tf_data(paths)

    def pillow() -> int:
        chexnet_keras(paths[:BATCH])
        return BATCH

    def opencv() -> int:
        return sum(len(batch) for batch in pool.map(opencv_batch, parts))

    def tensorflow() -> int:
        return drained(batches)

    ways = {
        "CheXNet-Keras' generator (Pillow, one thread)": pillow,
        "plain tf.data (decode_png)": tensorflow,
        "OpenCV in two processes": opencv,
    }
    return take_turns(ways, rounds)


def drained(batches) -> int:
    """Run a dataset to its end within TensorFlow, as fit does, and count its images."""
    import tensorflow as tf

    def add(count, batch):
        images = batch[0] if isinstance(batch, tuple) else batch
        return count + tf.shape(images)[0]

    return int(batches.reduce(0, add))


def epoch(cache: Cache, augment: Augment, images: int = 0, **options) -> int:
    """One epoch of ours over at least so many images, repeated where the cache has fewer."""
    from data.pipeline import train_batches

    indices = np.tile(np.arange(len(cache)), max(1, images // len(cache)))
    targets = np.zeros((len(indices), 14), np.float32)
    batches = train_batches(
        cache,
        indices,
        targets,
        batch_size=BATCH,
        seed=0,
        epoch=0,
        augment=augment,
        crop=CROP,
        **options,
    )
    return drained(batches)


def later_passes(cache: Cache, images: int, rounds: int) -> dict[str, float]:
    order = np.random.default_rng(0).permutation(np.resize(np.arange(len(cache)), images))

    def bare() -> int:
        for start in range(0, len(order) - BATCH + 1, BATCH):
            np.stack(cache.images(order[start : start + BATCH]))
        return len(order)

    ways = {
        "bare memmap: 256 px batches by NumPy, no crop": bare,
        "ours, uint8, crop + flip": lambda: epoch(cache, DRAW, images),
        "ours, float32, crop + flip": lambda: epoch(cache, DRAW, images, floats=True),
        "ours, uint8, crop + flip + affine": lambda: epoch(cache, AFFINE, images // 4),
    }
    return take_turns(ways, rounds)


def cold(folder: Path, rounds: int) -> tuple[dict[str, float], float]:
    """Rates with no file in memory, and the share of bytes that did come from the disk."""
    rates: dict[str, list[float]] = {"exact shuffle": [], "chunk shuffle": []}
    shares = []
    for _ in range(rounds):
        for name, chunk in (("exact shuffle", 0), ("chunk shuffle", 16)):
            gc.collect()
            for path in folder.glob("*.npy"):
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            before, start = read_bytes(), time.perf_counter()
            cache = Cache(folder)
            rates[name].append(epoch(cache, DRAW, chunk=chunk) / (time.perf_counter() - start))
            shares.append((read_bytes() - before) / (len(cache) * STORED**2))
            del cache
    return {name: statistics.median(each) for name, each in rates.items()}, min(shares)


def read_bytes() -> int:
    """Bytes that this process has read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def memory() -> float:
    """This process' own memory in MB; mapped cache pages belong to the kernel."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def growth(folder: Path, sizes: list[int]) -> list[Growth]:
    """Time and memory of preparing and of an epoch, for datasets of growing size."""
    prepared = []
    for size in sizes:
        write_films(folder / f"small{size}", size, 16, STORED, "bmp")
        command = [sys.executable, "-c", PREPARE_ALONE, str(folder / f"small{size}")]
        command.append(str(folder / f"cache{size}"))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak = map(float, done.stdout.split())
        path = next(path for path in (folder / f"cache{size}").iterdir() if path.is_dir())
        prepared.append((size, path, seconds / size * 1e3, peak))
    caches = [Cache(path) for _, path, _, _ in prepared]
    times: list[list[float]] = [[] for _ in sizes]
    own = [0.0] * len(sizes)
    for turn in range(4):
        for number, cache in enumerate(
            caches
        ):  # small before large: what an epoch keeps would show
            start = time.perf_counter()
            count = epoch(cache, DRAW, sizes[-1])
            if turn:
                times[number].append((time.perf_counter() - start) / count * 1e3)
            own[number] = memory()
    return [
        Growth(*line, statistics.median(taken), megabytes)
        for line, taken, megabytes in zip(prepared, times, own, strict=True)
    ]


def report(
    first: dict[str, float],
    raw: dict[str, float],
    later: dict[str, float],
    disk: dict[str, float],
    share: float,
    grown: list[Growth],
) -> str:
    """The section of docs/performance.md."""
    bare, prepared, cropped = first.values()
    plain, ours, floats, _ = later.values()
    slowest = next(iter(raw.values()))
    best = max(raw.values())
    lines = [
        f"{machine()}. 1024 × 1024 noisy PNGs of 0.4 MB; batches of {BATCH} at {CROP} px.",
        "",
        "| First pass | images/s | of the bare decode |",
        "|---|---|---|",
        *(f"| {name} | {rate:,.0f} | {rate / bare:.2f} |" for name, rate in first.items()),
        "",
        f"Template matching adds {100 * (prepared / cropped - 1):.0f} %.",
        "",
        "| Augmented batches | images/s | ours is faster by |",
        "|---|---|---|",
        *(f"| {name} | {rate:,.0f} | {ours / rate:,.0f}× |" for name, rate in raw.items()),
        *(f"| {name} | {rate:,.0f} | {ours / rate:.2f}× |" for name, rate in later.items()),
        "",
        f"Against the slowest {ours / slowest:,.0f}×, against the best raw-file way "
        f"{ours / best:,.0f}×, {plain / ours:.1f} times slower than the bare memmap; float batches "
        f"take {ours / floats:.2f} times as long.",
        "",
        f"| From a cold disk ({100 * share:.0f} % or more of the bytes came from it) | images/s |",
        "|---|---|",
        *(f"| {name} | {rate:,.0f} |" for name, rate in disk.items()),
        "",
        "| Images | prepare, ms an image | its peak, MB | an epoch, ms an image | own memory, MB |",
        "|---|---|---|---|---|",
        *(
            f"| {one.images:,} | {one.prepare_ms:.2f} | {one.prepare_mb:.0f} "
            f"| {one.epoch_ms:.3f} | {one.epoch_mb:.0f} |"
            for one in grown
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.input", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument("--write", action="store_true", help="put the table into docs/")
    parser.add_argument("--folder", type=Path, help="where to make 3 GB of temporary files")
    options = parser.parse_args()
    rounds, unit = (2, 256) if options.quick else (5, 1024)
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as temporary,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        folder = Path(temporary)
        first = first_pass(folder, unit // 4, rounds, pool)
        raw = raw_files(folder, rounds, pool)
        grown = growth(folder, [unit, 4 * unit, 16 * unit])
        largest = grown[-1].cache
        later = later_passes(Cache(largest), 64 * unit, rounds)
        disk, share = cold(largest, max(2, rounds // 2))  # no cache is mapped any more
    publish("input", report(first, raw, later, disk, share, grown), options.write)


if __name__ == "__main__":
    main()
