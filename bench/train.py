"""Time training by stock Keras on TensorFlow, by models.fast, and by PyTorch if it is installed.

    python -m bench.train [--quick] [--write] [--torch PYTHON]

Each method runs in its own process and they take turns, so that a busy machine slows all alike.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import bench
from bench import LABELS, pytorch


@dataclass(frozen=True)
class Way:
    """A method that is timed: a training step (`how` is stock, fast or torch), input or matmul.

    bench.gpu times further methods: on GPUs, on JAX, and with a cache of images.
    """

    how: str
    backbone: str = "densenet121"
    size: int = 224
    batch: int = 32
    precision: str = "float32"  # tf32: float32, but a GPU rounds factors to 10 bits
    backend: str = "tensorflow"  # of Keras
    device: str = "cpu"
    images: str = ""  # the cache that batches are drawn from; default: one batch in memory


class Worker:
    """A process that builds one network and trains one step, and further steps on request."""

    def __init__(self, way: Way, python: str = sys.executable):
        self.way = way
        self.seconds: list[float] = []
        self.process = subprocess.Popen(
            [python, "-m", "bench.train", "--worker", json.dumps(asdict(way))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": way.backend},
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.orders, self.answers = self.process.stdin, self.process.stdout
        self.first_step = self._answer()

    def _answer(self) -> float:
        line = self.answers.readline()
        if not line:
            raise RuntimeError(f"{self.way} failed. Run bench.train --worker by hand to see why.")
        return float(line)

    def take(self, steps: int) -> None:
        self.orders.write(f"{steps}\n")
        self.orders.flush()
        self.seconds.append(self._answer())

    def close(self) -> None:
        self.orders.close()
        self.process.wait()


def work(way: Way) -> None:
    """Print the seconds to the end of the first step, then those per step of each request."""
    kinds = {"torch": pytorch.steps, "input": input_steps, "matmul": matmul_steps}
    prepare = kinds.get(way.how, keras_steps)(way)  # imports what it needs, untimed
    start = time.perf_counter()
    step = prepare()
    step(1)
    print(time.perf_counter() - start, flush=True)
    for line in sys.stdin:
        step(1)  # not timed: other processes have filled the processor's caches
        start = time.perf_counter()
        step(int(line))
        print((time.perf_counter() - start) / int(line), flush=True)


def start(way: Way) -> None:
    """Start Keras' backend as the papers do."""
    os.environ["KERAS_BACKEND"] = way.backend
    from reproduce.engine import backend

    backend.start(way.device)
    if way.backend == "jax":
        import jax

        products = "tensorfloat32" if way.precision == "tf32" else "float32"
        jax.config.update("jax_default_matmul_precision", products)
    else:
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(way.precision == "tf32")


def batches_of(way: Way):
    """Return (dataset, endless batches): augmented images from a cache, or one batch repeated."""
    import numpy as np
    import tensorflow as tf

    from data import cache, pipeline
    from data.augment import Augment

    draw = np.random.default_rng(0)
    if way.images:
        images = cache.Cache(Path(way.images))
        count = len(images.paths)
        targets = draw.integers(0, 2, (count, LABELS)).astype("float32")
        augment = Augment(random_crop=True, flip=True)
        kept = pipeline.train_batches(
            images, np.arange(count), targets, way.batch, 0, 0, augment=augment, crop=way.size
        )
        return kept, kept.repeat()  # the first keeps its images alive
    array = draw.integers(0, 256, (way.batch, way.size, way.size, 1), "uint8")
    targets = draw.integers(0, 2, (way.batch, LABELS)).astype("float32")
    options = tf.data.Options()
    options.autotune.enabled = False  # data/pipeline.py says why
    kept = tf.data.Dataset.from_tensors((array, targets)).with_options(options)
    return kept, kept.repeat().with_options(options)


def input_steps(way: Way):
    """Draw batches and discard them: the highest rate at which a network could be fed."""
    _, batches = kept = batches_of(way)

    def prepare():
        iterator = iter(batches)

        def step(steps):
            for _ in range(steps):
                next(iterator)
            return kept

        return step

    return prepare


def matmul_steps(way: Way):
    """Multiply large matrices of `size` per side: an upper bound of any rate."""
    start(way)
    import jax
    import jax.numpy as jnp

    def prepare():
        kind = "bfloat16" if way.precision == "bfloat16" else "float32"
        matrix = jnp.ones((way.size, way.size), kind)
        multiply = jax.jit(lambda a, b: a @ b / way.size)

        def step(steps):
            product = matrix
            for _ in range(steps):
                product = multiply(product, matrix)
            product.block_until_ready()

        return step

    return prepare


def keras_steps(way: Way):
    """Train with Keras, by its own layers and Adam or by those of models.fast."""
    start(way)
    import keras

    from models import classifier, fast
    from reproduce.engine import backend

    kept, batches = batches_of(way)

    def prepare():
        is_fast = way.how == "fast"
        precision = "bfloat16" if way.precision == "bfloat16" else "float32"
        model = classifier.build(way.backbone, LABELS, way.size, precision=precision, fast=is_fast)
        model.kept = kept
        adam = (fast.Adam if is_fast else keras.optimizers.Adam)(1e-4)
        model.compile(
            adam,
            keras.losses.BinaryCrossentropy(from_logits=True),
            jit_compile=backend.jit(None),
            steps_per_execution=backend.steps_per_execution(None),
        )
        if is_fast:
            fast.build_optimizer(model)
        return lambda steps: model.fit(batches, steps_per_epoch=steps, verbose=0)

    return prepare


def first_steps(ways: list[Way], repeats: int) -> dict[str, list[float]]:
    """Return the seconds to the first step, each in a new process, in turn."""
    seconds: dict[str, list[float]] = {way.how: [] for way in ways}
    for way in ways * repeats:
        worker = Worker(way)
        worker.close()
        seconds[way.how].append(worker.first_step)
        print(f"  {way.how}: first step after {worker.first_step:.1f} s", file=sys.stderr)
    return seconds


def steady_steps(ways: list[Way], turns: int, steps: int, torch_python: str | None = None) -> dict:
    """Return the seconds per step of each turn, without a first turn that warms up."""
    pythons = {"torch": torch_python}
    workers = []
    for way in ways:
        if python := pythons.get(way.how, sys.executable):
            workers.append(Worker(way, python))
    for turn in range(turns + 1):
        for worker in workers:
            worker.take(steps)
        taken = ", ".join(f"{w.way.how} {1e3 * w.seconds[-1]:.0f} ms" for w in workers)
        print(f"  {ways[0].backbone} {ways[0].precision}, turn {turn}: {taken}", file=sys.stderr)
    for worker in workers:
        worker.close()
    return {worker.way.how: worker.seconds[1:] for worker in workers}


def ratio(slow: list[float] | None, quick: list[float]) -> str:
    """Return the median of the ratios within a turn, which other programs disturb least."""
    if slow is None:
        return "–"
    return f"{statistics.median(a / b for a, b in zip(slow, quick, strict=True)):.2f}×"


def bfloat16() -> str:
    """Say if this processor has bfloat16 instructions; emulated, it is slower than float32."""
    flags = Path("/proc/cpuinfo").read_text()
    has = "avx512_bf16" in flags or "amx_bf16" in flags
    return "with bfloat16 instructions" if has else "without bfloat16 instructions (emulated)"


def row(
    title: str, seconds: dict[str, list[float]], show: Callable[[float], str], goal: str
) -> list[str]:
    """Return one row of the table: medians, and ratios to models.fast."""
    shown = [
        show(statistics.median(seconds[how])) if how in seconds else "–"
        for how in ("stock", "fast", "torch")
    ]
    ratios = [ratio(seconds.get(how), seconds["fast"]) for how in ("stock", "torch")]
    return [title, *shown, *ratios, goal]


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms"


def images_per_second(seconds: float) -> str:
    return f"{32 / seconds:.0f} images/s"


def main() -> None:
    parser = bench.parser(__doc__, quick="small images, one turn: a smoke run")
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that has PyTorch")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(Way(**json.loads(options.worker)))
        return

    torch_python = options.torch
    if torch_python is None and importlib.util.find_spec("torch"):
        torch_python = sys.executable
    if torch_python is None:
        print("PyTorch is not installed: give an interpreter with --torch.", file=sys.stderr)
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > cores / 2:
        print(
            f"This machine is busy (load {load:.1f} on {cores} cores), so its figures mean little; "
            "PyTorch's mean least, because its threads spin while they wait.",
            file=sys.stderr,
        )
    repeats, turns, size, batch = (1, 1, 64, 8) if options.quick else (3, 5, 224, 8)
    hows = ("stock", "fast", "torch")
    first = first_steps([Way(how, size=64, batch=8) for how in hows[:2]], repeats)
    rows = [row("DenseNet-121, build to first step (64 px)", first, "{:.1f} s".format, "≥ 4×")]
    for precision, goal in (("float32", "≥ 1.2×, ≥ 1× PyTorch"), ("bfloat16", "≥ 1.8×")):
        ways = [Way(how, size=size, batch=batch, precision=precision) for how in hows]
        seconds = steady_steps(ways, turns, 2, torch_python)
        title = f"DenseNet-121, {precision} step ({size} px, batch {batch})"
        rows.append(row(title, seconds, milliseconds, goal))
    small = [Way(how, "tiny", 64, 32) for how in hows[:2]]
    first = first_steps(small, repeats)
    rows.append(row("`tiny`, build to first step", first, "{:.1f} s".format, "< 10 s"))
    seconds = steady_steps(small, turns, 5 if options.quick else 60)
    title = "`tiny`, training (64 px, batch 32)"
    rows.append(row(title, seconds, images_per_second, "≥ 350 images/s"))
    heading = ["", "stock Keras", "fast", "PyTorch", "stock / fast", "PyTorch / fast", "goal"]
    text = (
        f"{bench.machine()}, load {load:.1f} at the start, {bfloat16()}. Ratios are medians "
        f"over {turns} turns ({repeats} new processes for the first step).\n\n"
    )
    bench.publish("train", text + bench.table(heading, rows), options.write)


if __name__ == "__main__":
    main()
