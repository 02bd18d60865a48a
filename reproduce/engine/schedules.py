"""Learning rates and early stopping as functions of the epoch and the history before it.

Keras' own callbacks keep their state to themselves, and an interrupted run would lose it. Here
both are computed anew from the recorded history, one dictionary per epoch with `val_loss`.
"""

import math
from dataclasses import dataclass

from reproduce.engine.rows import History


@dataclass(frozen=True)
class Constant:
    """The same learning rate in every epoch."""

    rate: float

    def __call__(self, epoch: int, history: History) -> float:
        return self.rate


@dataclass(frozen=True)
class Exponential:
    """A learning rate that is multiplied by `factor` after every epoch."""

    rate: float
    factor: float

    def __call__(self, epoch: int, history: History) -> float:
        return self.rate * self.factor**epoch


@dataclass(frozen=True)
class Steps:
    """A learning rate that is multiplied by `factor` after every `every` epochs."""

    rate: float
    factor: float
    every: int

    def __call__(self, epoch: int, history: History) -> float:
        return self.rate * self.factor ** (epoch // self.every)


@dataclass(frozen=True)
class Milestones:
    """A learning rate that is multiplied by `factor` after each of some numbers of epochs."""

    rate: float
    factor: float
    after: tuple[int, ...]

    def __call__(self, epoch: int, history: History) -> float:
        return self.rate * self.factor ** sum(epoch >= each for each in self.after)


@dataclass(frozen=True)
class Cosine:
    """A learning rate that falls to 0 along half a cosine over `epochs`."""

    rate: float
    epochs: int

    def __call__(self, epoch: int, history: History) -> float:
        return self.rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


@dataclass(frozen=True)
class Plateau:
    """ReduceLROnPlateau with patience 1: multiply by `factor` after each stale epoch."""

    rate: float
    factor: float
    least: float  # improvement of the loss that counts
    floor: float  # the lowest rate

    def __call__(self, epoch: int, history: History) -> float:
        return max(self.rate * self.factor ** sum(stale(history, self.least)), self.floor)


@dataclass(frozen=True)
class Patience:
    """EarlyStopping: stop after so many stale epochs in a row."""

    epochs: int

    def __call__(self, history: History) -> bool:
        return len(history) >= self.epochs and all(stale(history)[-self.epochs :])


def stale(history: History, least: float = 0.0) -> list[bool]:
    """Return for each epoch if its validation loss did not fall by more than `least`."""
    best, stale_epochs = math.inf, []
    for epoch in history:
        improved = epoch["val_loss"] < best - least
        best = epoch["val_loss"] if improved else best
        stale_epochs.append(not improved)
    return stale_epochs
