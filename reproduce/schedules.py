"""Schedules that look back: functions of the history of validation losses, as Keras' callbacks.

Keras' own keep their state in the callback, which a killed run loses.
"""

from collections.abc import Callable

import numpy as np


def stale(history: list[dict], least: float = 0.0) -> list[bool]:
    """Of every epoch, whether its validation loss was no lower than all before, by `least`."""
    best, found = np.inf, []
    for line in history:
        found.append(not line["val_loss"] < best - least)
        best = best if found[-1] else line["val_loss"]
    return found


def plateau(rate: float, factor: float, least: float, floor: float) -> Callable:
    """ReduceLROnPlateau of patience 1: the rate falls by `factor` with every stale epoch."""
    return lambda epoch, history: max(rate * factor ** sum(stale(history, least)), floor)


def patience(epochs: int) -> Callable:
    """EarlyStopping: whether so many epochs in a row were stale."""
    return lambda history: len(history) >= epochs and all(stale(history)[-epochs:])
