"""Small trainings on JAX, each in a process of its own, for tests/test_engine_devices.py.

python -m tests.devices PART FOLDER DEVICES prints what PART returns, as JSON in the last line.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from data import labels, plco, splits
from data.phantom import drawing
from evaluation import predictions
from reproduce import RunError
from reproduce.engine import backend, dataset, runs, train
from reproduce.engine.options import Options
from reproduce.engine.rows import Data, Fit, Network, Row, Run, Targets, Task, bce
from reproduce.engine.schedules import Constant
from reproduce.engine.time_left import TimeLeft

BATCH = 8
CONSTANT = Constant(1e-3)
networks = []  # that were built
compilations = {"cache_hits": 0, "cache_misses": 0}


def count_compilations() -> None:
    """Count what JAX compiles, and what it reads from its cache instead."""
    from jax import monitoring

    def count(event, **_):
        name = event.removeprefix("/jax/compilation_cache/")
        if name in compilations:
            compilations[name] += 1

    monitoring.register_event_listener(count)


def options_for(folder: Path, devices: int) -> Options:
    return Options(cache_dir=folder / "cache", devices_per_row=devices)


def phantoms(options: Options) -> Data:
    """Return 60 synthetic radiographs, decoded."""
    folder = drawing.write(
        "plco", options.cache_dir / "plco", 60, 64, seed=1, prevalence_floor=0.1, progress=False
    )
    frame = plco.read(folder)
    attrs = frame.attrs | {"folder": str(folder)}
    return dataset.decode(options, splits.as_released(frame), attrs, "", 32, None)


def targets(frame: pd.DataFrame) -> Targets:
    released = frame[list(labels.PLCO)].to_numpy(np.float32)
    return Targets(learnt=released, truth=released)


def build(*, labels: int, size: int, **_):
    """Build a network that compiles in seconds, with all layers that devices could change."""
    import keras

    image = keras.Input((size, size, 1))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    networks.append(keras.Model(image, keras.layers.Dense(labels)(x)))
    return networks[-1]


def probabilities_of(
    folder: Path, data: Data, options: Options, rate=CONSTANT, batch_size=BATCH
) -> np.ndarray:
    """Train two epochs, or the rest of them; return the probabilities of the test set."""
    network = Network("tiny", 32, "none", build=build)
    row = Row("BR-all", Task(labels.PLCO, targets), bce, Fit(2, rate, batch_size), network)
    run = Run(row, 0, folder, {}, digest="of-the-settings")
    folder.mkdir(exist_ok=True)
    runs.begin(run, data, "cpu", {})
    with backend.devices_of_row(options.devices_per_row):
        train.train_row(run, None, data, options, TimeLeft(2))
    return predictions.load(folder / "predictions.npz").probabilities


def refusal(*arguments, **settings) -> str:
    """Return the message of a training that must fail."""
    try:
        probabilities_of(*arguments, **settings)
    except RunError as error:
        return str(error)
    return ""


def devices_of_a_variable() -> int:
    return len(networks[-1].weights[0].value.sharding.device_set)


def one_device(folder: Path, devices: int) -> dict:
    import keras

    from data import pipeline
    from reproduce.engine import callbacks

    options = options_for(folder, devices)
    data = phantoms(options)
    probabilities = probabilities_of(folder / "one", data, options)
    seen = devices_of_a_variable()
    failure = refusal(folder / "nan", data, options, rate=Constant(float("inf")))
    run = Run(Row("", None, None, Fit(2, None, BATCH), None), 0, folder, {})
    bar = callbacks.ProgressBar(run, 0, networks[-1])
    stop = callbacks.StopOnNaN(run, 0, 1.0, list, networks[-1])
    in_keras = keras.callbacks.CallbackList([bar, stop])
    images = data.frame["image_path"][data.frame["split"] == "train"]
    chunk = runs.record(folder / "nan")["chunk"]
    order = pipeline.epoch_order(data.pixels.indices(images), 0, 0, chunk)[0]
    return {
        "probabilities": probabilities.tolist(),
        "devices of a variable": seen,
        "callbacks are asynchronous": in_keras._async_train,
        "failure": failure,
        "images of the batch": images.iloc[order[BATCH : 2 * BATCH]].tolist(),
        "images named": (folder / "nan/bad-batch.txt").read_text().split(),
    }


def two_devices(folder: Path, devices: int) -> dict:
    options = options_for(folder, devices)
    data = phantoms(options)
    probabilities = probabilities_of(folder / f"{devices}", data, options)
    seen = devices_of_a_variable()

    def stop(epoch, history):
        if epoch == 1:
            raise KeyboardInterrupt
        return 1e-3

    with contextlib.suppress(KeyboardInterrupt):
        probabilities_of(folder / "stopped", data, options, rate=stop)
    resumed = probabilities_of(folder / "stopped", data, options)
    return {
        "probabilities": probabilities.tolist(),
        "devices of a variable": seen,
        "resumed with equal bytes": resumed.tobytes() == probabilities.tobytes(),
        "an odd batch": refusal(folder / "odd", data, options, batch_size=9),
        "too many devices": refusal(folder / "four", data, options_for(folder, 4)),
    }


def again(folder: Path, devices: int) -> dict:
    """Train as `two_devices` does, in another process with the same compilation cache."""
    options = options_for(folder, devices)
    probabilities = probabilities_of(folder / "again", phantoms(options), options)
    return {"probabilities": probabilities.tolist()}


def main() -> None:
    part, folder, devices = sys.argv[1:]
    backend.start("cpu", compiled=Path(folder) / "compiled", devices=int(devices))
    count_compilations()
    parts = {"one_device": one_device, "two_devices": two_devices, "again": again}
    result = parts[part](Path(folder), int(devices))
    print(json.dumps(result | compilations))


if __name__ == "__main__":
    main()
