"""Words for what effects say: where they are above or below zero, and whether they grow."""

import numpy as np
import pandas as pd


def of(effects: pd.DataFrame, effect: str, panel: str = "") -> pd.DataFrame:
    """The effects whose name, and whose panel's, begin so."""
    begins = effects["effect"].str.startswith(effect) & effects["panel"].str.startswith(panel)
    return effects[begins]


def verdict(effects: pd.DataFrame, higher: str = "higher", lower: str = "lower") -> str:
    """Where the whole interval is above zero, and where below: "higher at 0.5, lower at 0"."""
    above, below = effects["low"] > 0, effects["high"] < 0
    parts = [
        f"{word} {_at(effects['knob'][where])}"
        for word, where in ((higher, above), (lower, below))
        if where.any()
    ]
    if not parts:
        return "within noise at every value"
    rest = "" if (above | below).all() else ", within noise elsewhere"
    return " and ".join(parts) + rest


def _at(values: pd.Series) -> str:
    *first, last = [f"{value:g}" for value in values]
    return f"at {', '.join(first)} and {last}" if first else f"at {last}"


def trend(effects: pd.DataFrame) -> str:
    """From the first to the last value of the knob, with intervals."""
    known = effects.dropna(subset=["value"])
    if known.empty:
        return "unknown, as rows failed"
    ends = known.iloc[[0, -1]] if len(known) > 1 else known
    return " to ".join(f"{interval(line)} at {line['knob']:g}" for _, line in ends.iterrows())


def signed(value: float) -> str:
    """A difference: +.012."""
    return "unknown" if np.isnan(value) else f"{value:+.3f}".replace("0.", ".", 1)


def interval(line: pd.Series) -> str:
    """+.012 [-.001, +.025]."""
    return f"{signed(line['value'])} [{signed(line['low'])}, {signed(line['high'])}]"
