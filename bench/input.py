"""Measure images per second: first pass, later passes, cold disk, datasets of growing size.

    python -m bench.input [--quick] [--write]

The loaders of other suites are written again here, as small as possible and never slower than the
originals, so their figures are upper bounds.
"""

import functools
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from PIL import Image  # installed with matplotlib

import bench
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
from bench import megabytes
from data.prepare import prepare
root, out = sys.argv[1:]
names = sorted(os.listdir(root))
start = time.perf_counter()
prepare(root, names, out, 256, progress=False, workers=2)
print(time.perf_counter() - start, megabytes("VmHWM"))
"""


def film(number: int, side: int = 1024) -> np.ndarray:
    """Draw a film whose PNG is as large, and as slow to decode, as those of ChestX-ray14."""
    rng = np.random.default_rng(number)
    shadows = cv2.resize(rng.normal(128, 40, (16, 16)), (side, side), interpolation=cv2.INTER_CUBIC)
    grain = cv2.resize(rng.normal(0, 3, (side * 5 // 8, side * 5 // 8)), (side, side))
    return np.clip(shadows + grain, 0, 255).astype(np.uint8)


def write_films(root: Path, count: int, distinct: int, side: int, kind: str) -> list[str]:
    """Write `count` files, most of them links to a few distinct images; return their names."""
    root.mkdir()
    for k in range(distinct):
        cv2.imwrite(str(root / f"{k:06d}.{kind}"), film(k, side))
    for k in range(distinct, count):
        os.link(root / f"{k % distinct:06d}.{kind}", root / f"{k:06d}.{kind}")
    return sorted(os.listdir(root))


def decode_and_shrink(paths: list[str]) -> None:
    """Run the bare first pass: cv2.imdecode and area resizing alone."""
    cv2.setNumThreads(1)
    for path in paths:
        shrunk(path)


def shrunk(path: str) -> np.ndarray:
    """Decode an image file and shrink it with OpenCV."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None, path
    return cv2.resize(image, (STORED, STORED), interpolation=cv2.INTER_AREA)


def opencv_batch(paths: list[str]) -> np.ndarray:
    """Return one uint8 batch by OpenCV: decode, shrink, crop and mirror."""
    cv2.setNumThreads(1)
    rng, batch = np.random.default_rng(0), np.empty((len(paths), CROP, CROP, 1), np.uint8)
    for slot, path in zip(batch, paths, strict=True):
        top, left = rng.integers(0, STORED - CROP + 1, 2)
        window = shrunk(path)[top : top + CROP, left : left + CROP]
        slot[..., 0] = window[:, ::-1] if rng.random() < 0.5 else window
    return batch


def chexnet_keras(paths: list[str]) -> None:
    """Load batches as CheXNet-Keras: one thread, RGB floats; Pillow's resize for scikit-image's."""
    rng = np.random.default_rng(0)
    for start in range(0, len(paths), BATCH):
        images = []
        for path in paths[start : start + BATCH]:
            image = Image.open(path).convert("RGB").resize((CROP, CROP), Image.Resampling.BILINEAR)
            array = np.asarray(image) / 255.0
            images.append(array[:, ::-1] if rng.random() < 0.5 else array)
        (np.stack(images) - MEAN) / STD


def plain_tf_data(paths: list[str]):
    """Return batches decoded, shrunk, cropped and mirrored by tf.data's own operations."""
    import tensorflow as tf

    def load(path):
        image = tf.io.decode_png(tf.io.read_file(path), channels=1)
        image = tf.image.resize(image, (STORED, STORED), method="area")
        image = tf.image.random_crop(image, (CROP, CROP, 1))
        return tf.image.random_flip_left_right(image)

    files = tf.data.Dataset.from_tensor_slices(paths)
    batches = files.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
    return batches.prefetch(tf.data.AUTOTUNE)


def rates(methods: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Return the median images per second of methods that return how many images they made."""
    counts = {name: method() for name, method in methods.items()}  # warms up as well
    seconds = bench.interleave(methods, rounds, warm_up=0)
    return {name: counts[name] / statistics.median(seconds[name]) for name in methods}


def first_pass(folder: Path, count: int, rounds: int, pool) -> dict[str, float]:
    """Return the rates of decoding PNGs alone, of `prepare`, and of `prepare` with a template."""
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

    methods = {
        "two processes, imdecode + area resize only": bare,
        "`prepare`": prepared,
        "`prepare` with template crop": lambda: prepared(template),
    }
    return rates(methods, rounds)


def raw_files(folder: Path, rounds: int, pool) -> dict[str, float]:
    """Return the rates of loaders that decode image files in every epoch."""
    paths = sorted(str(path) for path in (folder / "films").iterdir())[: 6 * BATCH]
    parts = [paths[at : at + BATCH] for at in range(0, len(paths), BATCH)]
    batches = plain_tf_data(paths)

    def pillow() -> int:
        chexnet_keras(paths[:BATCH])
        return BATCH

    methods = {
        "CheXNet-Keras' generator (Pillow, one thread)": pillow,
        "plain tf.data (decode_png)": lambda: drained(batches),
        "OpenCV in two processes": lambda: sum(map(len, pool.map(opencv_batch, parts))),
    }
    return rates(methods, rounds)


def drained(batches) -> int:
    """Iterate over a dataset within TensorFlow, as fit does; return its number of images."""
    import tensorflow as tf

    def add(count, batch):
        images = batch[0] if isinstance(batch, tuple) else batch
        return count + tf.shape(images)[0]

    return int(batches.reduce(0, add))


def epoch(cache: Cache, augment: Augment, images: int = 0, **options) -> int:
    """Run one epoch of our pipeline over at least `images` images; return their number."""
    from data.pipeline import train_batches

    indices = np.tile(np.arange(len(cache)), max(1, images // len(cache)))
    targets = np.zeros((len(indices), bench.LABELS), np.float32)
    more = {"augment": augment, "crop": CROP, **options}
    return drained(train_batches(cache, indices, targets, BATCH, seed=0, epoch=0, **more))


def later_passes(cache: Cache, images: int, rounds: int) -> dict[str, float]:
    """Return the rates of our pipeline and of reading the cache without any pipeline."""
    order = np.random.default_rng(0).permutation(np.resize(np.arange(len(cache)), images))

    def bare() -> int:
        for start in range(0, len(order) - BATCH + 1, BATCH):
            np.stack(cache.images(order[start : start + BATCH]))
        return len(order)

    methods = {
        "bare memmap: 256 px batches by NumPy, no crop": bare,
        "ours, uint8, crop + flip": lambda: epoch(cache, DRAW, images),
        "ours, float32, crop + flip": lambda: epoch(cache, DRAW, images, floats=True),
        "ours, uint8, crop + flip + affine": lambda: epoch(cache, AFFINE, images // 4),
    }
    return rates(methods, rounds)


def cold(folder: Path, rounds: int) -> tuple[dict[str, float], float]:
    """Return the rates with no file in memory, and the share of bytes read from the disk."""
    by_shuffle: dict[str, list[float]] = {"exact shuffle": [], "chunk shuffle": []}
    shares = []
    for _ in range(rounds):
        for name, chunk in (("exact shuffle", 0), ("chunk shuffle", 16)):
            gc.collect()
            for path in folder.glob("*.npy"):
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            before, start = read_bytes(), time.perf_counter()
            cache = Cache(folder)
            count = epoch(cache, DRAW, chunk=chunk)
            by_shuffle[name].append(count / (time.perf_counter() - start))
            shares.append((read_bytes() - before) / (len(cache) * STORED**2))
            del cache
    return {name: statistics.median(each) for name, each in by_shuffle.items()}, min(shares)


def read_bytes() -> int:
    """Return the number of bytes that this process has read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def prepare_alone(folder: Path, size: int) -> tuple[Cache, list[str]]:
    """Prepare `size` images in a new process; return the cache, and its time and peak memory."""
    write_films(folder / f"small{size}", size, 16, STORED, "bmp")
    out = folder / f"cache{size}"
    command = [sys.executable, "-c", PREPARE_ALONE, str(folder / f"small{size}"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak = map(float, done.stdout.split())
    path = next(path for path in out.iterdir() if path.is_dir())
    return Cache(path), [f"{seconds / size * 1e3:.2f}", f"{peak:.0f}"]


def growth(folder: Path, sizes: list[int]) -> tuple[Path, list[list[str]]]:
    """Return the folder of the largest cache, and one table row per dataset size."""
    prepared = {size: prepare_alone(folder, size) for size in sizes}
    memory, counts = {}, {}

    def run_epoch(size: int) -> None:
        counts[size] = epoch(prepared[size][0], DRAW, sizes[-1])
        memory[size] = bench.megabytes("RssAnon")

    # Small before large: memory that an epoch keeps would show.
    epochs = {str(size): functools.partial(run_epoch, size) for size in sizes}
    seconds = bench.interleave(epochs, 3)
    rows = []
    for size, (_, cells) in prepared.items():
        milliseconds = statistics.median(seconds[str(size)]) / counts[size] * 1e3
        rows.append([f"{size:,}", *cells, f"{milliseconds:.3f}", f"{memory[size]:.0f}"])
    return Path(prepared[sizes[-1]][0].folder), rows


def report(
    first: dict[str, float],
    raw: dict[str, float],
    later: dict[str, float],
    disk: dict[str, float],
    share: float,
    grown: list[list[str]],
) -> str:
    """Return the section of docs/performance.md."""
    bare, prepared, cropped = first.values()
    memmap, ours, floats, _ = later.values()
    slowest, best = next(iter(raw.values())), max(raw.values())
    passes = [(name, f"{rate:,.0f}", f"{rate / bare:.2f}") for name, rate in first.items()]
    batches = [(name, f"{rate:,.0f}", f"{ours / rate:,.0f}×") for name, rate in raw.items()]
    batches += [(name, f"{rate:,.0f}", f"{ours / rate:.2f}×") for name, rate in later.items()]
    from_disk = f"From a cold disk (at least {100 * share:.0f} % of the bytes came from it)"
    parts = [
        f"{bench.machine()}. 1024 × 1024 noisy PNGs of 0.4 MB; batches of {BATCH} at {CROP} px.",
        bench.table(["First pass", "images/s", "relative to the bare decode"], passes),
        f"Template matching adds {100 * (prepared / cropped - 1):.0f} %.",
        bench.table(["Augmented batches", "images/s", "ours is faster by"], batches),
        f"Our batches are {ours / slowest:,.0f}× faster than the slowest method, "
        f"{ours / best:,.0f}× faster than the best that decodes files, and {memmap / ours:.1f} "
        f"times slower than the bare memmap; float batches take {ours / floats:.2f} times as long.",
        bench.table([from_disk, "images/s"], [(k, f"{rate:,.0f}") for k, rate in disk.items()]),
        bench.table(
            [
                "Images",
                "prepare, ms per image",
                "its peak, MB",
                "an epoch, ms per image",
                "own memory, MB",
            ],
            grown,
        ),
    ]
    return "\n\n".join(parts)


def main() -> None:
    parser = bench.parser(__doc__, quick="fewer images and rounds")
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
        largest, grown = growth(folder, [unit, 4 * unit, 16 * unit])
        later = later_passes(Cache(largest), 64 * unit, rounds)
        disk, share = cold(largest, max(2, rounds // 2))  # no cache is mapped any more
    bench.publish("input", report(first, raw, later, disk, share, grown), options.write)


if __name__ == "__main__":
    main()
