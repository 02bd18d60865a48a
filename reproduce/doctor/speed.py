"""Measure what Keras sees and how fast it trains, in a process of its own.

A backend that cannot be imported, hangs or crashes then becomes one of the doctor's findings. Each
line of the output is a JSON object of facts, written as soon as they are known.
"""

import argparse
import json
import os
import time
from typing import Any

NETWORK, SIZE = "densenet121", 224


def say(**facts: Any) -> None:
    """Print facts as one line of JSON."""
    print(json.dumps(facts), flush=True)


def devices(backend: str) -> dict[str, Any]:
    """Return the names of the GPUs, and whether this build of the backend could use any."""
    if backend == "jax":
        import jax

        gpus = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
        return {"gpus": gpus, "built_for_gpu": True}
    if backend == "torch":
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return {"gpus": gpus, "built_for_gpu": torch.backends.cuda.is_built()}
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    physical = tf.config.list_physical_devices("GPU")
    gpus = [details(gpu).get("device_name", gpu.name) for gpu in physical]
    return {"gpus": gpus, "built_for_gpu": tf.test.is_built_with_cuda()}


def training_speed(seconds: float, backend: str, gpu: bool) -> dict[str, Any]:
    """Train DenseNet-121 at 224 px for some seconds, not counting its compilation."""
    import numpy as np

    from losses.masking import MaskedBCE
    from models import classifier, fast

    batch = 32 if gpu else 8
    model = classifier.build(NETWORK, labels=14, size=SIZE)
    # on a CPU, a graph takes half a minute to trace and makes the steps little faster
    eager = backend == "tensorflow" and not gpu
    model.compile(fast.Adam(1e-4), MaskedBCE(), run_eagerly=eager, jit_compile=backend == "jax")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, SIZE, SIZE, 1), np.uint8)
    targets = rng.integers(0, 2, (batch, 14)).astype(np.float32)
    model.train_on_batch(images, targets)  # creates the optimizer's variables and the graph
    steps: list[float] = []
    while sum(steps) < seconds:
        began = time.perf_counter()
        model.train_on_batch(images, targets)
        steps.append(time.perf_counter() - began)
    return {"batch": batch, "images_a_second": batch / float(np.median(steps))}


def main() -> None:
    """Print the backend, its devices and, unless --seconds is 0, its training speed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10, help="of training; 0: none")
    seconds = parser.parse_args().seconds
    began = time.perf_counter()
    import keras

    backend = keras.backend.backend()
    seen = devices(backend)
    say(backend=backend, **seen, started_in=time.perf_counter() - began)
    if seconds:
        say(**training_speed(seconds, backend, bool(seen["gpus"])))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    main()
