"""What the doctor asks of Keras, in a process of its own: what it sees, and how fast it trains.

A backend that cannot be imported, hangs or crashes is then the doctor's finding, not its end. Every
line of the output is a JSON object of facts, written as soon as they are known.
"""

import argparse
import json
import os
import time

NETWORK, SIZE = "densenet121", 224


def say(**facts) -> None:
    print(json.dumps(facts), flush=True)


def devices(backend: str) -> dict:
    """The GPUs by name, and whether this build could use any."""
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
    gpus = [
        details(gpu).get("device_name", gpu.name) for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {"gpus": gpus, "built_for_gpu": tf.test.is_built_with_cuda()}


def training_speed(seconds: float, backend: str, gpu: bool) -> dict:
    """Training DenseNet-121 at 224 px, without the compilation that every run starts with."""
    import numpy as np

    from losses.masking import MaskedBCE
    from models import classifier, fast

    batch = 32 if gpu else 8
    model = classifier.build(NETWORK, labels=14, size=SIZE)
    # a graph takes a CPU half a minute to trace and makes its steps little faster
    eager = backend == "tensorflow" and not gpu
    model.compile(fast.Adam(1e-4), MaskedBCE(), run_eagerly=eager, jit_compile=backend == "jax")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, SIZE, SIZE, 1), np.uint8)
    targets = rng.integers(0, 2, (batch, 14)).astype(np.float32)
    took: list[float] = []
    model.train_on_batch(images, targets)  # makes the optimizer's variables, and the graph if any
    while sum(took) < seconds:
        began = time.perf_counter()
        model.train_on_batch(images, targets)
        took.append(time.perf_counter() - began)
    return {"batch": batch, "images_a_second": batch / float(np.median(took))}


def main() -> None:
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
