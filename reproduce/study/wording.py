"""Say in words where effects are above or below zero, and how they change along the knob."""

import numpy as np
import pandas as pd


def select(effects: pd.DataFrame, effect: str, panel: str = "") -> pd.DataFrame:
    """Return the effects whose name, and whose panel's name, begin with these words."""
    named = effects["effect"].str.startswith(effect) & effects["panel"].str.startswith(panel)
    return effects[named]


def verdict(effects: pd.DataFrame, higher: str = "higher", lower: str = "lower") -> str:
    """Name the values at which the whole interval is above or below zero.

    For example: `higher at 0.5 and lower at 0, within noise elsewhere`.
    """
    above, below = effects["low"] > 0, effects["high"] < 0
    parts = []
    if above.any():
        parts.append(f"{higher} {_at(effects['knob'][above])}")
    if below.any():
        parts.append(f"{lower} {_at(effects['knob'][below])}")
    if not parts:
        return "within noise at every value"
    rest = "" if (above | below).all() else ", within noise elsewhere"
    return " and ".join(parts) + rest


def _at(values: pd.Series) -> str:
    *first, last = [f"{value:g}" for value in values]
    return f"at {', '.join(first)} and {last}" if first else f"at {last}"


def trend(effects: pd.DataFrame) -> str:
    """Return the effects at the first and last value of the knob, with intervals."""
    known = effects.dropna(subset=["value"])
    if known.empty:
        return "unknown, because rows failed"
    ends = known.iloc[[0, -1]] if len(known) > 1 else known
    return " to ".join(f"{interval(line)} at {line['knob']:g}" for _, line in ends.iterrows())


def signed(value: float) -> str:
    """Return a difference such as `+.012`."""
    return "unknown" if np.isnan(value) else f"{value:+.3f}".replace("0.", ".", 1)


def interval(line: pd.Series) -> str:
    """Return a difference with its interval: `+.012 [-.001, +.025]`."""
    return f"{signed(line['value'])} [{signed(line['low'])}, {signed(line['high'])}]"


def summary(effects: pd.DataFrame, unit: str = "") -> str:
    """Return the verdict and the trend: `lower at 1, from +.006 [-.003, +.015] at 0 to … at 1`."""
    return f"{verdict(effects)}, from {trend(effects)}{unit}"
