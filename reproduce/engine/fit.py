"""Training one row: the network, the optimizer, the loss, and the loop over epochs.

An epoch is a function of the state after the epoch before, the seed and its number, so a stopped
run repeats the epoch under way exactly. Keras' BackupAndRestore loses dropout seeds and callback
state, so the state here is our own (state.py).
"""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

import safefiles
from data import pipeline
from data.cache import chunk_images
from data.progress import TimeLeft
from evaluation import metrics, predictions
from models import backbones, classifier, fast, inference
from reproduce.engine import backend, state
from reproduce.engine.rows import Data, Fit, Row, Run

# What a full host or GPU raises; JAX and PyTorch raise RuntimeErrors.
MAY_BE_MEMORY: tuple[type[Exception], ...] = (MemoryError, RuntimeError)
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    MAY_BE_MEMORY = (*MAY_BE_MEMORY, tf.errors.ResourceExhaustedError)


def train(
    run: Run[Row], weights: Path | None, data: Data, config, options, *, record, left: TimeLeft
) -> None:
    """Train a row to its last epoch, from where it stands, and predict the test set."""
    with backend.devices_of_row(options.devices_per_row):
        _train(run, weights, data, config, options, record=record, left=left)


def _train(
    run: Run[Row], weights: Path | None, data: Data, config, options, *, record, left: TimeLeft
) -> None:
    """The same, on devices that are chosen."""
    row, task, fit = run.row, run.row.task, run.row.fit
    seed = run.seed + fit.reseed
    keras.utils.set_random_seed(seed)
    model = build_network(row, config, options)
    start(model, fit, weights, row.loss(), options)
    trained = state.is_trained(run, record)
    history, best = ([], {}) if trained else resume(model, run, left)
    chunk = images_in_chunk(run, data, record)

    # training images without any known target are dropped
    train_set = np.flatnonzero(_in(data, "train") & ~np.isnan(task.targets).all(axis=1))
    val_set = _in(data, "val")
    backend.check_devices(options.devices_per_row, min(config.batch_size, len(train_set)))

    for epoch in range(len(history), 0 if trained else fit.epochs):
        if fit.stop(history):  # early stopping
            left.skip(fit.epochs - epoch)
            break
        started = time.perf_counter()
        model.optimizer.learning_rate = rate = fit.learning_rate(epoch, history)
        batches, images_of = epoch_batches(
            run, epoch, data, train_set, config, seed=seed, chunk=chunk
        )
        watch = StopOnNaN(run, epoch, rate, images_of, model)
        fitted = model.fit(
            batches,
            shuffle=False,  # the pipeline shuffles, repeatably
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=[ProgressBar(run, epoch, model), watch],
        )
        logits = predict(model, data, "val", config, inference.single_pass, seed)[0]
        if not np.isfinite(logits).all():  # after the last step, whose loss was still finite
            raise not_finite(run, "NaN", epoch, rate, images_of(len(batches) - 1))
        val_loss = float(keras.ops.mean(model.loss(task.targets[val_set], logits)))
        probabilities = row.readout.probabilities(logits)
        score = float(fit.select(task.truth[val_set], probabilities, val_loss))
        seconds = time.perf_counter() - started
        if not any(line["val"] >= score for line in history):  # also where no score is defined
            best = state.save_weights(run, model.save_weights, _bytes(model), epoch + 1)
        loss = float(fitted.history["loss"][0])
        line = {"epoch": epoch + 1, "learning_rate": rate, "loss": loss, "val_loss": val_loss}
        history.append(line | {"val": score, "seconds": round(seconds, 1)})
        state.save_epoch(run, map(_array, variables(model)), history, best)
        progress = f"epoch {epoch + 1}/{fit.epochs}  loss {loss:.4f}  val {score:.4f}"
        state.say(run, f"{progress}  {seconds:.0f} s, {left.after(seconds)}")

    if best:
        state.keep_best(run, best)
    if fit.epochs:
        model.load_weights(state.weights_of(run.folder))
    for name in sorted({*data.frame["split"]} - {"train"}, key=lambda name: name == "test"):
        write_predictions(model, run, data, name, config, seed)  # test last: it means finished
    (run.folder / state.STATE).unlink(missing_ok=True)


def images_in_chunk(run: Run, data: Data, record: dict) -> int:
    """How many images are shuffled together: a stopped run goes on with what it began with."""
    chunk = record["chunk"]
    if chunk is None:
        chunk = chunk_images(data.pixels)
        state.add_to_record(run.folder, chunk=chunk)
    return chunk


def build_network(row: Row, config, options) -> keras.Model:
    """The network of a row, with the weights that Config says."""
    given = {
        "labels": row.task.targets.shape[1],
        "size": config.size,
        "weights": backbones.weights_of(config.weights, row.network["backbone"]),
        "precision": config.precision,
        "fast": options.fast,
    }
    return (row.build or classifier.build)(**given | row.network)


def start(model: keras.Model, fit: Fit, weights: Path | None, loss, options) -> None:
    """Load the weights that the row starts from, freeze what stays, and compile."""
    if weights is not None:
        classifier.load_weights(model, weights)
    if fit.head_only:
        for layer in model.layers[:-1]:
            layer.trainable = False
    adam = fast.Adam if options.fast else keras.optimizers.Adam
    model.compile(
        adam(fit.learning_rate(0, [])),
        loss,
        jit_compile=backend.jit(options.jit, options.deterministic),
        steps_per_execution=backend.steps_per_execution(options.steps_per_execution),
    )
    fast.build_optimizer(model)


def resume(model: keras.Model, run: Run[Row], left: TimeLeft) -> tuple[list[dict], dict]:
    """Set every variable to what it was after the last whole epoch; the history, and the best."""
    shapes = [tuple(variable.shape) for variable in variables(model)]
    arrays, history, best = state.load_epoch(run, shapes)
    if history:
        for variable, array in zip(variables(model), arrays, strict=True):
            variable.assign(array)
        state.say(run, f"goes on after epoch {len(history)} of {run.row.fit.epochs}")
        left.skip(len(history))
    return history, best


def variables(model: keras.Model) -> list:
    """All that training changes: weights, moving statistics, dropout seeds, optimizer moments."""
    metrics = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in metrics]
    return [*own, *model.optimizer.variables]


def epoch_batches(
    run: Run[Row], epoch: int, data: Data, train_set: np.ndarray, config, *, seed: int, chunk: int
):
    """The training batches of an epoch, and which images a batch, or `count` up to it, hold."""
    images = data.frame["image_path"].iloc[train_set]
    indices = data.pixels.indices(images)
    batches = pipeline.train_batches(
        data.pixels,
        indices,
        run.row.task.targets[train_set],
        batch_size=config.batch_size,
        seed=seed,
        epoch=epoch,
        augment=run.row.fit.augment,
        crop=config.size,
        chunk=chunk,
    )

    def images_of(batch: int, count: int = 1) -> pd.Series:
        order = pipeline.epoch_order(indices, seed, epoch, chunk)[0]
        size = min(config.batch_size, len(order))
        first = max(0, batch + 1 - count)
        return images.iloc[order[first * size : min(batch + 1, len(batches)) * size]]

    return batches, images_of


def predict(model, data: Data, name: str, config, passes: Callable, seed: int) -> np.ndarray:
    """(passes, images, outputs): the logits of a set's images."""
    indices = data.pixels.indices(data.frame["image_path"][_in(data, name)])

    def batches(**draw):
        return pipeline.ordered_batches(
            data.pixels,
            indices,
            batch_size=config.batch_size,
            crop=config.size,
            seed=seed,
            **draw,
        )

    return passes(model, batches, config.batch_size)


def write_predictions(model, run: Run[Row], data: Data, name: str, config, seed: int) -> None:
    """Write the row's probabilities of the validation set or a test set."""
    row, in_set = run.row, _in(data, name)
    passes = predict(model, data, name, config, row.readout.passes, seed)
    probabilities = np.stack([row.readout.probabilities(logits) for logits in passes])
    if metrics.collapsed(probabilities):
        state.say(run, f"collapsed: (nearly) the same probabilities for every image of {name}")
    predictions.save(
        run.folder / state.file_of(name),
        predictions.Predictions(
            ids=data.frame["image_path"][in_set].to_numpy(),
            patients=data.frame["patient_id"][in_set].to_numpy(),
            labels=np.asarray(row.task.labels),
            targets=row.task.truth[in_set],
            probabilities=probabilities,
            meta={
                "row": row.name,
                "seed": seed,
                "run": run.digest,
                "dataset": data.dataset,
                "set": name,
            },
        ),
    )


# JAX calls these from threads, so that no step waits for the loss of the step before. They must not
# touch `self.model`: on JAX, looking at it takes the weights away from the step under way.


class ProgressBar(keras.callbacks.Callback):
    """A progress bar over the batches of an epoch, on a terminal."""

    async_safe = True

    def __init__(self, run: Run[Row], epoch: int, model):
        super().__init__()
        self.title = f"{run.name}: epoch {epoch + 1}/{run.row.fit.epochs}"
        self.steps = model.steps_per_execution

    def on_epoch_begin(self, epoch, logs=None):
        steps, quiet = self.params["steps"], not sys.stderr.isatty()
        self.bar = tqdm(total=steps, desc=self.title, leave=False, disable=quiet)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(min(self.steps, self.bar.total - self.bar.n))
        self.bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()


class StopOnNaN(keras.callbacks.Callback):
    """Stops training on a NaN or infinite loss, and lists the images of that batch.

    With several steps an execution, it lists the images of all their batches.
    """

    async_safe = True

    def __init__(self, run: Run[Row], epoch: int, rate: float, images_of: Callable, model):
        super().__init__()
        self.run, self.epoch, self.rate, self.images_of = run, epoch, rate, images_of
        self.trained = model
        self.not_finite: list[tuple[int, float]] = []  # (batch, loss), in any order

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            self.not_finite.append((batch, logs["loss"]))
            self.trained.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if self.not_finite:
            batch, loss = min(self.not_finite)
            kind = "NaN" if math.isnan(loss) else "infinite loss"
            images = self.images_of(batch, self.trained.steps_per_execution)
            raise not_finite(self.run, kind, self.epoch, self.rate, images)


def not_finite(run: Run, kind: str, epoch: int, rate: float, images: pd.Series) -> state.RowFailed:
    """The failure of a row whose loss or outputs became NaN or infinite at these images."""
    listing = safefiles.write(run.folder / "bad-batch.txt", "\n".join(images) + "\n")
    return state.RowFailed(
        f"{kind} in epoch {epoch + 1}",
        f"It came at a learning rate of {rate:g}: lower --learning-rate, or look at the images of "
        f"that batch, listed in {listing}.",
    )


def _in(data: Data, name: str) -> np.ndarray:
    """(images,) bool: those of a set."""
    return (data.frame["split"] == name).to_numpy()


def _array(variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)


def _bytes(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) * 4 for variable in model.variables)
