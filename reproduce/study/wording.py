"""Say in words where effects are above or below zero along the knob."""

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
    if effects["value"].isna().all():
        return "unknown, because rows failed"
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


def signed(value: float) -> str:
    """Return a difference such as `+.012`."""
    return "unknown" if np.isnan(value) else f"{value:+.3f}".replace("0.", ".", 1)


def interval(line: pd.Series) -> str:
    """Return a difference with its interval: `+.012 [-.001, +.025]`."""
    return f"{signed(line['value'])} [{signed(line['low'])}, {signed(line['high'])}]"
