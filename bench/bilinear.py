"""Bilinear pooling and whole bilinear training steps: time and memory, each in its own process.

`python -m bench.bilinear [--quick] [--write]`
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from bench import machine, publish

POOLINGS = {  # map -> (positions a side, channels)
    "ResNet-18, 7 × 7 × 512": (7, 512),
    "VGG-16, 14 × 14 × 512": (14, 512),
    "DenseNet-121, 7 × 7 × 1024": (7, 1024),
}
WAYS = ("printed: an outer product a position", "one matrix product", "count sketch, 8,192")
STEPS = {  # name -> (backbone, options of models.bilinear.build, None: the plain classifier)
    "R18": ("resnet18", None),
    "R18-BL": ("resnet18", {}),
    "R18-F-MSML": ("resnet18", {"streams": 2}),
    "D121": ("densenet121", None),
    "D121-BL, 1024² products to 128": ("densenet121", {"projection": 128}),
    "D121-BL, reduced to 512² products to 512": ("densenet121", {"reduce": 512}),
    "D121-BL, sketch of 8,192 to 512": ("densenet121", {"sketch": 8192}),
    "D121-F-MSML, 1024² products to 128": ("densenet121", {"streams": 2, "projection": 128}),
}
GIGABYTE = 1e9


def pooling_step(side: int, channels: int, way: str, batch: int):
    """(step, parameters): pooling, root and norm of a batch, and the gradient by both maps."""
    import numpy as np
    import tensorflow as tf

    from models import bilinear

    layer = bilinear.BilinearPooling(sketch=8192 if "sketch" in way else 0)
    generator = np.random.default_rng(0)
    shape = (batch, side, side, channels)
    maps = [tf.constant(generator.random(shape, np.float32)) for _ in range(2)]

    def pool(first, second):
        if "printed" not in way:
            return layer([first, second])
        first, second = (tf.reshape(x, (batch, -1, channels)) for x in (first, second))
        products = tf.reduce_mean(first[..., :, None] * second[..., None, :], axis=1)
        return bilinear.unit(bilinear.signed_root(tf.reshape(products, (batch, -1))))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(maps)
            pooled = pool(*maps)
            loss = tf.reduce_sum(tf.square(pooled - 0.01))
        return tape.gradient(loss, maps)

    return step, 0


def training_step(backbone: str, options: dict | None, batch: int, size: int):
    """(step, parameters): one batch through fit's own compiled step, Adam included."""
    import numpy as np

    from losses.masking import MaskedBCE
    from losses.multilabel_softmax import FineGrained
    from models import bilinear, classifier, fast

    if options is None:
        model, loss = classifier.build(backbone, 14, size), MaskedBCE()
    else:
        model = bilinear.build(backbone, 14, size, **options)
        loss = FineGrained() if options.get("streams") == 2 else MaskedBCE()
    model.compile(fast.Adam(1e-4), loss, jit_compile=False)
    fast.build_optimizer(model)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, size, size, 1)).astype("uint8")
    targets = (generator.random((batch, 14)) < 0.05).astype("float32")
    return lambda: model.train_on_batch(images, targets), model.count_params()


def measured(what: dict) -> dict:
    """Seconds a step and the peak of this process's memory above what it had before the first."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    kind, repeats = what.pop("kind"), what.pop("repeats")
    import tensorflow  # noqa: F401, so that its own memory does not count

    before = resident()
    step, parameters = (pooling_step if kind == "pooling" else training_step)(**what)
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": statistics.median(times),
        "gigabytes": (peak - before) / GIGABYTE,
        "parameters": parameters,
    }


def resident() -> int:
    """Bytes of memory that this process holds now."""
    with open("/proc/self/statm") as counts:
        return int(counts.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured_alone(**what) -> dict | None:
    """`measured` in a process of its own; None where it was killed for want of memory."""
    command = [sys.executable, "-m", "bench.bilinear", "--one", json.dumps(what)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode < 0:  # killed for memory
        return None
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def cells(measurement: dict | None) -> list[str]:
    """Time and peak memory, as the tables show them."""
    if measurement is None:
        return ["did not fit", ""]
    seconds = measurement["seconds"]
    duration = f"{seconds * 1e3:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"
    return [duration, f"{measurement['gigabytes']:.2f} GB"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two images, one repeat")
    parser.add_argument("--write", action="store_true", help="put it into docs/performance.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(json.loads(arguments.one))))
        return
    batch, repeats = (2, 1) if arguments.quick else (16, 5)
    lines = [["pooling alone, both maps' gradients", "way", "time", "peak memory"], ["---"] * 4]
    for name, (side, channels) in POOLINGS.items():
        for way in WAYS:
            what = {"side": side, "channels": channels, "way": way, "batch": batch}
            pooling = measured_alone(kind="pooling", repeats=repeats, **what)
            lines.append([name, way, *cells(pooling)])
    size, steps = (64, 1) if arguments.quick else (224, 3)
    more = [["training step, 224 px", "parameters", "time", "peak memory"], ["---"] * 4]
    for name, (backbone, options) in STEPS.items():
        what = {"backbone": backbone, "options": options, "batch": batch, "size": size}
        training = measured_alone(kind="training", repeats=steps, **what)
        count = f"{training['parameters'] / 1e6:,.1f} million" if training else ""
        more.append([name, count, *cells(training)])
    both = ("\n".join(f"| {' | '.join(line)} |" for line in table) for table in (lines, more))
    heading = f"{machine()}; batches of {batch}, float32, no XLA. Memory is above TensorFlow's own."
    publish("bilinear", "\n\n".join([heading, *both]), arguments.write)


if __name__ == "__main__":
    main()
