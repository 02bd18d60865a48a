"""Training one row: an epoch at a time through Keras' fit, resumable bit for bit.

Keras' BackupAndRestore loses dropout seeds and callback state, so the state here is our own: after
every epoch the network's variables (seeds included), the optimizer's and the history, by one atomic
rename. An epoch is a function of that state, the seed and its number, so a killed run repeats the
epoch under way exactly.
"""

import io
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from data import pipeline
from evaluation import predict
from models import classifier, fast
from reproduce import RunError
from reproduce.run import Clock, Data, Row, Run, write_whole

NETWORK = ("backbone", "size", "weights", "precision")  # the fields of Config that describe it


def train(run: Run, weights: Path | None, data: Data, config, options, clock: Clock) -> None:
    """Train a row to its end, from where it stands, and write its predictions of the test set."""
    row, folder = run.row, run.folder
    model = _compiled(run, weights, config, options)
    frame, split = data.frame, data.frame["split"].to_numpy()
    # an image of which nothing is known teaches nothing
    learnt = (split == "train") & ~np.isnan(row.targets).all(axis=1)

    def predicted(name: str, passes=predict.once) -> np.ndarray:
        """(passes, images, outputs) of the images of a set."""

        def batches(**draw):
            cached = data.cache.rows(frame["image_path"][split == name])
            return pipeline.ordered_batches(
                data.cache,
                cached,
                batch_size=config.batch_size,
                crop=config.size,
                seed=run.seed,
                **draw,
            )

        return passes(model, batches, config.batch_size)

    best = folder / "best.weights.h5"
    history = _load_state(folder, model)
    if history:
        _say(run, f"goes on after epoch {len(history)} of {row.epochs}")
        clock.skip(len(history))
    for epoch in range(len(history), row.epochs):
        if row.stop(history):
            clock.skip(row.epochs - epoch)
            break
        started = time.perf_counter()
        rate = row.learning_rate(epoch, history)
        model.optimizer.learning_rate = rate
        loss = _fit_epoch(run, model, epoch, data, np.flatnonzero(learnt), config)
        outputs, held_out = predicted("val")[0], split == "val"
        val_loss = float(keras.ops.mean(model.loss(row.targets[held_out], outputs)))
        score = float(row.select(row.truth[held_out], row.probabilities(outputs), val_loss))
        seconds = time.perf_counter() - started
        if not any(entry["val"] >= score for entry in history):  # also where none is defined
            _write_weights(model, best)
        line = {"epoch": epoch + 1, "learning_rate": rate, "loss": loss, "val_loss": val_loss}
        history.append(line | {"val": score, "seconds": round(seconds, 1)})
        _save_state(folder, model, history)
        write_whole(folder / "history.csv", pd.DataFrame(history).to_csv(index=False))
        left = clock.epoch_took(seconds)
        done = f"epoch {epoch + 1}/{row.epochs}  loss {loss:.4f}  val {score:.4f}"
        _say(run, f"{done}  {seconds:.0f} s, {left}")
    if history:
        model.load_weights(best)
    # the test set last: predictions.npz means that the run is finished
    for name in sorted({*split} - {"train", "val"}, key=lambda name: name == "test"):
        chosen = frame[split == name]
        probabilities = [row.probabilities(of_pass) for of_pass in predicted(name, row.passes)]
        predict.save(
            folder / ("predictions.npz" if name == "test" else f"predictions-{name}.npz"),
            chosen["image_path"],
            chosen["patient_id"],
            row.labels,
            row.truth[split == name],
            np.stack(probabilities),
            {"row": row.name, "seed": run.seed, "dataset": data.facts["dataset"], "set": name},
        )
    (folder / "state.npz").unlink(missing_ok=True)


def set_up(device: str) -> str:
    """See that the device that was asked for is there; its name."""
    backend = keras.backend.backend()
    if backend == "torch":  # Keras cannot list torch's devices
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    else:
        gpus = [name for name in keras.distribution.list_devices() if not name.startswith("cpu")]
    advice = f"{backend} sees no GPU: see environment.yml and the driver's version"
    if device == "gpu" and not gpus:
        raise RunError(f"--device gpu, but {advice}, or leave it out to run on the CPU.")
    driver = shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists()
    if device == "auto" and driver and not gpus:
        print(f"WARNING: there is an NVIDIA driver, but {advice}. Training on the CPU.", flush=True)
    return ", ".join(gpus) or "cpu"


def network(row: Row, config, options) -> keras.Model:
    """The network of a row, with the weights that it starts from."""
    of_config = {name: getattr(config, name) for name in NETWORK if hasattr(config, name)}
    given = of_config | {"labels": row.targets.shape[1], "fast": options.fast} | row.network
    return (row.build or classifier.build)(**given)


def _compiled(run: Run, weights: Path | None, config, options) -> keras.Model:
    keras.utils.clear_session()
    keras.utils.set_random_seed(run.seed)
    model = network(run.row, config, options)
    if weights is not None:
        classifier.load_weights(model, weights)
    if run.row.head_only:
        for layer in model.layers[:-1]:
            layer.trainable = False
    adam = fast.Adam if options.fast else keras.optimizers.Adam
    model.compile(
        adam(run.row.learning_rate(0, [])),
        run.row.loss(),
        # XLA costs a CPU minutes of compiling and pays on a GPU
        jit_compile=set_up("any") != "cpu" if options.jit is None else options.jit,
    )
    fast.build_optimizer(model)
    return model


def _fit_epoch(run: Run, model, epoch: int, data: Data, rows: np.ndarray, config) -> float:
    """One pass over the training images; its mean loss."""
    images, chunk = data.frame["image_path"].iloc[rows], pipeline.chunk_images(data.cache)
    cached = data.cache.rows(images)
    batches = pipeline.train_batches(
        data.cache,
        cached,
        run.row.targets[rows],
        config.batch_size,
        run.seed,
        epoch,
        run.row.augment,
        config.size,
        chunk,
    )

    def batch_images(batch: int) -> pd.Series:
        order = pipeline.epoch_order(cached, run.seed, epoch, chunk)[0]
        return images.iloc[order[batch * config.batch_size : (batch + 1) * config.batch_size]]

    fitted = model.fit(
        batches,
        shuffle=False,  # the pipeline does, repeatably
        initial_epoch=epoch,
        epochs=epoch + 1,
        verbose=0,
        callbacks=[_Watch(run, epoch, batch_images)],
    )
    return float(fitted.history["loss"][0])


class _Watch(keras.callbacks.Callback):
    """The bar of an epoch, where someone looks; and the end of training at a loss that is none."""

    def __init__(self, run: Run, epoch: int, batch_images: Callable):
        super().__init__()
        self.run, self.epoch, self.batch_images = run, epoch, batch_images

    def on_epoch_begin(self, epoch, logs=None):
        self.bar = tqdm(
            total=self.params["steps"],
            desc=f"{_name(self.run)}: epoch {self.epoch + 1}/{self.run.row.epochs}",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()
        self.bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)
        if math.isfinite(logs["loss"]):
            return
        self.bar.close()
        listing = self.run.folder / "bad-batch.txt"
        write_whole(listing, "\n".join(self.batch_images(batch)) + "\n")
        raise RunError(
            f"{_name(self.run)}: the loss became {logs['loss']} in epoch {self.epoch + 1}. Look at "
            f"the images of that batch, listed in {listing}, or lower --learning-rate; the weights "
            "of the epochs before are kept."
        )

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()


def _state_variables(model) -> list:
    metrics = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in metrics]
    return [*own, *model.optimizer.variables]


def _save_state(folder: Path, model, history: list[dict]) -> None:
    arrays = [keras.ops.convert_to_numpy(variable) for variable in _state_variables(model)]
    buffer = io.BytesIO()
    np.savez(buffer, *arrays, history=json.dumps(history))
    write_whole(folder / "state.npz", buffer.getvalue())


def _load_state(folder: Path, model) -> list[dict]:
    """The history of the finished epochs, after setting every variable to where they left it."""
    path = folder / "state.npz"
    if not path.exists():
        return []
    with np.load(path) as state:
        for place, variable in enumerate(_state_variables(model)):
            variable.assign(state[f"arr_{place}"])
        return json.loads(str(state["history"]))


def _write_weights(model, path: Path) -> None:
    partial = path.with_name(f"{os.getpid()}.part.weights.h5")
    model.save_weights(partial)
    partial.replace(path)


def _name(run: Run) -> str:
    return f"{run.row.name}, seed {run.seed}"


def _say(run: Run, text: str) -> None:
    """A line for whoever watches, and for the log."""
    print(f"{_name(run)}: {text}", flush=True)
    with (run.folder / "log.txt").open("a") as log:
        log.write(f"{time.strftime('%F %T')}  {text}\n")
