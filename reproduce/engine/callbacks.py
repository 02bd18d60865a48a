"""Keras callbacks of the training loop: a progress bar, and an end on NaN.

JAX calls them from threads, so that no step waits for the loss of the step before. They must not
use `self.model`: on JAX, reading it takes the weights away from the step in progress.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import keras
import pandas as pd
from tqdm import tqdm

import safefiles
from reproduce.engine.rows import Row, Run
from reproduce.engine.runs import RowFailed


class ProgressBar(keras.callbacks.Callback):
    """Show a progress bar over the batches of an epoch, on a terminal."""

    async_safe = True

    def __init__(self, run: Run[Row], epoch: int, model: keras.Model):
        super().__init__()
        self.title = f"{run.name}: epoch {epoch + 1}/{run.row.fit.epochs}"
        self.steps = model.steps_per_execution

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        steps, quiet = self.params["steps"], not sys.stderr.isatty()
        self.bar = tqdm(total=steps, desc=self.title, leave=False, disable=quiet)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.bar.update(min(self.steps, self.bar.total - self.bar.n))
        self.bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.bar.close()


class StopOnNaN(keras.callbacks.Callback):
    """Stop training on a NaN or infinite loss, and list the images of that batch.

    With several steps per execution, list the images of all their batches.
    """

    async_safe = True

    def __init__(
        self,
        run: Run[Row],
        epoch: int,
        rate: float,
        images_of: Callable[..., pd.Series],
        model: keras.Model,
    ):
        super().__init__()
        self.run, self.epoch, self.rate, self.images_of = run, epoch, rate, images_of
        self.trained = model
        self.not_finite: list[tuple[int, float]] = []  # (batch, loss), in any order

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            self.not_finite.append((batch, logs["loss"]))
            self.trained.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.not_finite:
            batch, loss = min(self.not_finite)
            kind = "NaN" if math.isnan(loss) else "infinite loss"
            images = self.images_of(batch, self.trained.steps_per_execution)
            raise not_finite(self.run, kind, self.epoch, self.rate, images)


def not_finite(run: Run[Row], kind: str, epoch: int, rate: float, images: pd.Series) -> RowFailed:
    """Return the failure of a row whose loss or outputs are not finite after these images."""
    listing = safefiles.write(run.folder / "bad-batch.txt", "\n".join(images) + "\n")
    return RowFailed(
        f"{kind} in epoch {epoch + 1}",
        f"The learning rate was {rate:g}: lower --learning-rate, or look at the images of that "
        f"batch, which {listing} lists.",
    )
