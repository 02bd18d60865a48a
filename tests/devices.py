"""What tests/test_engine_devices.py looks at, run on JAX in a process of its own.

python -m tests.devices PART FOLDER DEVICES prints what PART returns, as JSON in the last line.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

import numpy as np

from data import labels, plco, splits
from data.phantom import drawing
from data.progress import TimeLeft
from evaluation import predictions
from reproduce import RunError
from reproduce.engine import backend, dataset, state
from reproduce.engine.rows import Data, Fit, Row, Run, Task

BATCH = 8
CONFIG = {"size": 32, "weights": "none", "precision": "float32"}
networks = []  # that were built
compilations = {"cache_hits": 0, "cache_misses": 0}


def count_compilations() -> None:
    from jax import monitoring

    def count(event, **_):
        name = event.removeprefix("/jax/compilation_cache/")
        if name in compilations:
            compilations[name] += 1

    monitoring.register_event_listener(count)


def options_for(folder: Path, devices: int, **changes) -> argparse.Namespace:
    settings = {
        "cache_dir": folder / "cache",
        "skip_corrupt": False,
        "fast": True,
        "jit": None,
        "deterministic": False,
        "devices_per_row": devices,
        "steps_per_execution": None,
    }
    return argparse.Namespace(**settings | changes)


def phantoms(options) -> Data:
    folder = drawing.write(
        "plco", options.cache_dir / "plco", 60, 64, seed=1, prevalence_floor=0.1, progress=False
    )
    frame = plco.read(folder)
    attrs = frame.attrs | {"folder": str(folder)}
    return dataset.decode(options, splits.as_released(frame), attrs, "", 32, None)


def build(*, labels: int, size: int, **_):
    """A network that compiles in seconds, with all that could differ between devices."""
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


def train(folder: Path, data: Data, options, rate=1e-3, batch_size=BATCH) -> np.ndarray:
    """The probabilities of two epochs, or of what is left of them."""
    from losses import masking
    from reproduce.engine import fit

    targets = data.frame[list(labels.PLCO)].to_numpy(np.float32)
    task, at = (
        Task(labels.PLCO, targets, truth=targets),
        rate if callable(rate) else lambda *_: rate,
    )
    row = Row(
        "BR-all", task, masking.MaskedBCE, Fit(2, at), network={"backbone": "tiny"}, build=build
    )
    folder.mkdir(exist_ok=True)
    run = Run(row, 0, folder, {}, digest="of-the-settings")
    record = state.begin(run, data, "cpu", recipe={})
    config = argparse.Namespace(**CONFIG, batch_size=batch_size)
    fit.train(run, None, data, config, options, record=record, left=TimeLeft(2))
    return predictions.load(folder / "predictions.npz").probabilities


def refusal(*arguments, **settings) -> str:
    try:
        train(*arguments, **settings)
    except RunError as error:
        return str(error)
    return ""


def devices_of_a_variable() -> int:
    return len(networks[-1].weights[0].value.sharding.device_set)


def one_device(folder: Path, devices: int) -> dict:
    import keras

    from data import pipeline
    from reproduce.engine import fit

    options = options_for(folder, devices)
    data = phantoms(options)
    probabilities = train(folder / "one", data, options)
    seen = devices_of_a_variable()
    failure = refusal(folder / "nan", data, options, rate=float("inf"))
    run = Run(Row("", None, None, Fit(2, None)), 0, folder, {})
    own = fit.ProgressBar(run, 0, 1), fit.StopOnNaN(run, 0, 1.0, list, networks[-1])
    callbacks = keras.callbacks.CallbackList(own)
    images = data.frame["image_path"][data.frame["split"] == "train"]
    chunk = state.record(folder / "nan")["chunk"]
    order = pipeline.epoch_order(data.pixels.indices(images), 0, 0, chunk)[0]
    return {
        "probabilities": probabilities.tolist(),
        "devices of a variable": seen,
        "callbacks are asynchronous": callbacks._async_train,
        "failure": failure,
        "images of the batch": images.iloc[order[BATCH : 2 * BATCH]].tolist(),
        "images named": (folder / "nan/bad-batch.txt").read_text().split(),
    }


def two_devices(folder: Path, devices: int) -> dict:
    options = options_for(folder, devices)
    data = phantoms(options)
    probabilities = train(folder / f"{devices}", data, options)
    seen = devices_of_a_variable()

    def stop(epoch, history):
        if epoch == 1:
            raise KeyboardInterrupt
        return 1e-3

    with contextlib.suppress(KeyboardInterrupt):
        train(folder / "stopped", data, options, rate=stop)
    resumed = train(folder / "stopped", data, options)
    return {
        "probabilities": probabilities.tolist(),
        "devices of a variable": seen,
        "resumed with equal bytes": resumed.tobytes() == probabilities.tobytes(),
        "an odd batch": refusal(folder / "odd", data, options, batch_size=9),
        "too many devices": refusal(folder / "four", data, options_for(folder, 4)),
    }


def again(folder: Path, devices: int) -> dict:
    """The same in another process."""
    options = options_for(folder, devices)
    return {"probabilities": train(folder / "again", phantoms(options), options).tolist()}


def main() -> None:
    part, folder, devices = sys.argv[1:]
    backend.start("cpu", compiled=Path(folder) / "compiled", devices=int(devices))
    count_compilations()
    found = globals()[part](Path(folder), int(devices))
    print(json.dumps(found | compilations))


if __name__ == "__main__":
    main()
