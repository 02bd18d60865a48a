"""Learning rates, and early stopping: functions of the epoch and the history of validation losses.

Keras' own callbacks keep their state to themselves, which a killed run loses.
"""

from collections.abc import Callable

import numpy as np


def constant(rate: float) -> Callable:
    """The same learning rate in every epoch."""
    return lambda epoch, history: rate


def exponential(rate: float, factor: float) -> Callable:
    """The learning rate falls by `factor` after every epoch."""
    return lambda epoch, history: rate * factor**epoch


def steps(rate: float, factor: float, every: int) -> Callable:
    """The learning rate falls by `factor` after every so many epochs."""
    return lambda epoch, history: rate * factor ** (epoch // every)


def plateau(rate: float, factor: float, least: float, floor: float) -> Callable:
    """ReduceLROnPlateau of patience 1: the rate falls by `factor` with every stale epoch."""
    return lambda epoch, history: max(rate * factor ** sum(stale(history, least)), floor)


def stale(history: list[dict], least: float = 0.0) -> list[bool]:
    """Of every epoch, whether its validation loss was no lower than all before, by `least`."""
    best, found = np.inf, []
    for line in history:
        found.append(not line["val_loss"] < best - least)
        best = best if found[-1] else line["val_loss"]
    return found


def patience(epochs: int) -> Callable:
    """EarlyStopping: whether so many epochs in a row were stale."""
    return lambda history: len(history) >= epochs and all(stale(history)[-epochs:])
