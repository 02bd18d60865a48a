"""Say in words what the parts of an effect show."""

import numpy as np
import pandas as pd

from reproduce.study.measures import AT, CHANGE, EVEN, MEAN

MARGIN = 0.01  # of AUC; two rows whose 90 % interval lies inside it are equal for our purposes


def select(effects: pd.DataFrame, effect: str, panel: str = "") -> pd.DataFrame:
    """Return the effects whose name, and whose panel's name, begin with these words."""
    named = effects["effect"].str.startswith(effect) & effects["panel"].str.startswith(panel)
    return effects[named]


def mean(effects: pd.DataFrame, effect: str, panel: str = "", margin: float = MARGIN) -> str:
    """Return the average of an effect over the knob: `+.012 [+.002, +.022], above 0`."""
    line = _part(effects, effect, panel, MEAN)
    return _unknown() if line is None else f"{interval(line)}, {verdict(line, margin)}"


def change(effects: pd.DataFrame, effect: str, panel: str = "") -> str:
    """Return the change of an effect over the knob, and its break-even if there is one."""
    line = _part(effects, effect, panel, CHANGE)
    if line is None:
        return _unknown()
    even = _part(effects, effect, panel, EVEN)
    crossing = ""
    if even is not None:
        ends = [f"{even[end]:.2g}" for end in ("value", "low", "high")]
        crossing = " (break-even at {} [{}, {}])".format(*ends)
    return f"{interval(line)}{crossing}"


def at(effects: pd.DataFrame, effect: str, panel: str, knob: float) -> str:
    """Return an effect at one value of the knob."""
    chosen = select(effects, effect, panel)
    chosen = chosen[(chosen["part"] == AT) & (chosen["knob"] == knob)]
    return interval(chosen.iloc[0]) if len(chosen) else _unknown()


def verdict(line: pd.Series, margin: float = MARGIN) -> str:
    """Say on which side of 0 the whole interval lies, or that the effect is smaller than `margin`.

    The latter is two one-sided tests at 5 %: the 90 % interval lies within the margin.
    """
    side = "above 0" if line["low"] > 0 else "below 0" if line["high"] < 0 else ""
    small = -margin < line["low90"] and line["high90"] < margin
    words = [side, f"equal to within {margin:g}".replace("0.", ".") if small else ""]
    return " but ".join(filter(None, words)) or "undecided"


def _part(effects: pd.DataFrame, effect: str, panel: str, part: str) -> pd.Series | None:
    chosen = select(effects, effect, panel)
    chosen = chosen[chosen["part"] == part]
    return chosen.iloc[0] if len(chosen) else None


def _unknown() -> str:
    return "unknown, because rows failed"


def signed(value: float) -> str:
    """Return a difference such as `+.012`."""
    if np.isnan(value):
        return "unknown"
    text = f"{value:+.3f}"
    return "0" if not float(text) else text.replace("0.", ".", 1)


def interval(line: pd.Series) -> str:
    """Return a difference with its interval: `+.012 [-.001, +.025]`."""
    return f"{signed(line['value'])} [{signed(line['low'])}, {signed(line['high'])}]"
