"""Measure time and memory of bilinear pooling and of whole bilinear training steps.

    python -m bench.bilinear [--quick] [--write]

Each measurement runs in its own process, so that its peak memory is its own.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys

import bench

POOLINGS = {  # feature map -> (positions per side, channels)
    "ResNet-18, 7 × 7 × 512": (7, 512),
    "VGG-16, 14 × 14 × 512": (14, 512),
    "DenseNet-121, 7 × 7 × 1024": (7, 1024),
}
METHODS = (
    "printed: one outer product per position",
    "one matrix product",
    "count sketch, 8,192",
)
STEPS = {  # name -> (backbone, options of models.bilinear.build; None for the plain classifier)
    "R18": ("resnet18", None),
    "R18-BL": ("resnet18", {}),
    "R18-F-MSML": ("resnet18", {"streams": 2}),
    "D121": ("densenet121", None),
    "D121-BL, 1024² products to 128": ("densenet121", {"projection": 128}),
    "D121-BL, reduced to 512² products to 512": ("densenet121", {"reduce": 512}),
    "D121-BL, sketch of 8,192 to 512": ("densenet121", {"sketch": 8192}),
    "D121-F-MSML, 1024² products to 128": ("densenet121", {"streams": 2, "projection": 128}),
}


def pooling_step(side: int, channels: int, method: str, batch: int):
    """Return (step, parameters): pool, root and normalise a batch; its gradient by both maps."""
    import numpy as np
    import tensorflow as tf

    from models import bilinear

    layer = bilinear.BilinearPooling(sketch=8192 if "sketch" in method else 0)
    generator = np.random.default_rng(0)
    shape = (batch, side, side, channels)
    maps = [tf.constant(generator.random(shape, np.float32)) for _ in range(2)]

    def pool(first, second):
        if "printed" not in method:
            return layer([first, second])
        first, second = (tf.reshape(x, (batch, -1, channels)) for x in (first, second))
        products = tf.reduce_mean(first[..., :, None] * second[..., None, :], axis=1)
        return bilinear.unit(bilinear.signed_root(tf.reshape(products, (batch, -1))))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(maps)
            loss = tf.reduce_sum(tf.square(pool(*maps) - 0.01))
        return tape.gradient(loss, maps)

    return step, 0


def training_step(backbone: str, options: dict | None, batch: int, size: int):
    """Return (step, parameters): train on one batch with Keras' compiled step and Adam."""
    import numpy as np

    from losses.masking import MaskedBCE
    from losses.multilabel_softmax import FineGrained
    from models import bilinear, classifier, fast

    if options is None:
        model, loss = classifier.build(backbone, bench.LABELS, size), MaskedBCE()
    else:
        model = bilinear.build(backbone, bench.LABELS, size, **options)
        loss = FineGrained() if options.get("streams") == 2 else MaskedBCE()
    model.compile(fast.Adam(1e-4), loss, jit_compile=False)
    fast.build_optimizer(model)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, size, size, 1)).astype("uint8")
    targets = (generator.random((batch, bench.LABELS)) < 0.05).astype("float32")
    return lambda: model.train_on_batch(images, targets), model.count_params()


def measure(kind: str, repeats: int, **arguments) -> dict:
    """Return the seconds per step and the peak memory above that of importing TensorFlow."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow  # noqa: F401, so that its own memory does not count

    before = bench.megabytes("VmRSS") * 2**20
    make = pooling_step if kind == "pooling" else training_step
    step, parameters = make(**arguments)
    seconds = bench.interleave({kind: step}, repeats)[kind]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": statistics.median(seconds),
        "gigabytes": (peak - before) / 1e9,
        "parameters": parameters,
    }


def measure_alone(**arguments) -> dict | None:
    """Call `measure` in a new process; return None if it was killed for lack of memory."""
    command = [sys.executable, "-m", "bench.bilinear", "--one", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode < 0:
        return None
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def cells(measured: dict | None) -> list[str]:
    """Return time and peak memory as the tables show them."""
    if measured is None:
        return ["did not fit", ""]
    return [bench.duration(measured["seconds"]), f"{measured['gigabytes']:.2f} GB"]


def main() -> None:
    parser = bench.parser(__doc__, quick="two images, one repeat")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    batch, repeats = (2, 1) if options.quick else (16, 5)
    poolings = []
    for name, (side, channels) in POOLINGS.items():
        for method in METHODS:
            shape = {"side": side, "channels": channels, "method": method, "batch": batch}
            measured = measure_alone(kind="pooling", repeats=repeats, **shape)
            poolings.append([name, method, *cells(measured)])
    size, repeats = (64, 1) if options.quick else (224, 3)
    steps = []
    for name, (backbone, build) in STEPS.items():
        network = {"backbone": backbone, "options": build, "batch": batch, "size": size}
        measured = measure_alone(kind="training", repeats=repeats, **network)
        count = f"{measured['parameters'] / 1e6:,.1f} million" if measured else ""
        steps.append([name, count, *cells(measured)])
    heading = f"{bench.machine()}; batches of {batch}, float32, no XLA. TensorFlow's own memory is "
    columns = ["time", "peak memory"]
    parts = [
        heading + "left out.",
        bench.table(["pooling alone, both maps' gradients", "method", *columns], poolings),
        bench.table([f"training step, {size} px", "parameters", *columns], steps),
    ]
    bench.publish("bilinear", "\n\n".join(parts), options.write)


if __name__ == "__main__":
    main()
