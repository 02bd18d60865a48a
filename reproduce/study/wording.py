"""Words for what effects say: where they are above or below zero, and whether they grow."""

import numpy as np
import pandas as pd


def above_zero(effects: pd.DataFrame) -> list[float]:
    """The knob's values at which the whole interval is above zero."""
    return effects["knob"][effects["low"] > 0].tolist()


def below_zero(effects: pd.DataFrame) -> list[float]:
    """The knob's values at which the whole interval is below zero."""
    return effects["knob"][effects["high"] < 0].tolist()


def listed(values: list[float]) -> str:
    """at 0, 0.3 and 0.5; nowhere."""
    if not values:
        return "nowhere"
    *first, last = [f"{value:g}" for value in values]
    return "at " + (f"{', '.join(first)} and {last}" if first else last)


def trend(effects: pd.DataFrame) -> str:
    """From the first to the last value of the knob, and whether their intervals part."""
    known = effects.dropna(subset=["value"])
    if len(known) < 2:
        return "its course is unknown, as rows failed"
    first, last = known.iloc[0], known.iloc[-1]
    apart = first["high"] < last["low"] or last["high"] < first["low"]
    word = "goes" if apart else "does not clearly change: it goes"
    return (
        f"the difference {word} from {signed(first['value'])} at {first['knob']:g} "
        f"to {signed(last['value'])} at {last['knob']:g}"
    )


def signed(value: float) -> str:
    """A difference in AUC: +.012."""
    return "unknown" if np.isnan(value) else f"{value:+.3f}".replace("0.", ".")


def with_interval(line: pd.Series) -> str:
    """+.012 [-.001, .025]."""
    low, high = (f"{line[end]:.3f}".replace("0.", ".") for end in ("low", "high"))
    return f"{signed(line['value'])} [{low}, {high}]"
