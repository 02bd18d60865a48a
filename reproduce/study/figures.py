"""Draw the figure of a contrast: every effect against the knob, with its interval, as SVG."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from evaluation import figures

COLOURS = (figures.BLUE, figures.ORANGE, figures.GREEN, figures.PURPLE, figures.GREY, "#E69F00")
MARKERS = "osD^vP"
ALONE, ONE_OF_SEVERAL, HEIGHT = 6.4, 4.2, 3.2  # inches of a panel


@figures.literal_text
def draw(path: Path, effects: pd.DataFrame, title: str, knob: str, log: bool) -> Path:
    """Draw one panel per measure; `effects` has panel, effect, knob, value, low and high."""
    names = effects["panel"].unique()
    legends = [effects["effect"][effects["panel"] == name].unique() for name in names]
    columns = 2 if len(names) == 1 else 1
    below = 0.2 * -(-max(map(len, legends)) // columns)
    width = ALONE if len(names) == 1 else ONE_OF_SEVERAL * len(names)
    figure = Figure((width, HEIGHT + below), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False).ravel()
    for panel, name in zip(axes, names, strict=True):
        _panel(panel, effects[effects["panel"] == name], log, columns)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel(knob, fontsize=8)
    return figures.save(figure, path, title, phantom=True)


@figures.literal_text
def draw_trade_off(path: Path, effects: pd.DataFrame, title: str, knob: str) -> Path:
    """Draw each row's first measure against its second, one point per value of the knob."""
    first, second = effects["panel"].unique()[:2]
    figure = Figure((ALONE, 1.3 * HEIGHT), layout="constrained")
    axes = figure.subplots()
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
    of_both = effects[effects["panel"].isin((first, second))].groupby("effect", sort=False)
    for (name, line), (colour, marker) in zip(of_both, looks, strict=False):
        y, x = (line[line["panel"] == panel].set_index("knob") for panel in (first, second))
        error_y, error_x = ([z["value"] - z["low"], z["high"] - z["value"]] for z in (y, x))
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1}
        axes.errorbar(x["value"], y["value"], error_y, error_x, label=name, **style)
        if x["value"].nunique() > 1:
            for value, at_x, at_y in zip(x.index, x["value"], y["value"], strict=True):
                axes.text(at_x, at_y, f"  {value:g}", fontsize=7, verticalalignment="bottom")
    axes.set_xlabel(f"{second}; numbers: {knob}", fontsize=8)
    axes.set_ylabel(first, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    return figures.save(figure, path, title, phantom=True)


def _panel(panel, effects: pd.DataFrame, log: bool, columns: int) -> None:
    values = sorted(effects["knob"].unique())
    lines = effects.groupby("effect", sort=False)
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
    # Points of several effects at one value are drawn next to each other.
    steps = np.linspace(-1, 1, len(lines) + 2)[1:-1] * 0.06
    for (name, line), (colour, marker), step in zip(lines, looks, steps, strict=False):
        position = np.searchsorted(values, line["knob"]) + 3 * step if log else None
        if position is None:
            position = line["knob"] + step * (max(values) - min(values))
        ends = [line["value"] - line["low"], line["high"] - line["value"]]
        style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1}
        panel.errorbar(
            position, line["value"], ends, label=name, elinewidth=1.2, capsize=2, **style
        )
    panel.axhline(0, color=figures.GREY, linewidth=0.8, linestyle=":")
    ticks = [*range(len(values))] if log else values
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.set_xticks(ticks, [f"{value:g}" for value in values])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.tick_params(labelsize=8)
    panel.grid(axis="y", color="#eeeeee", linewidth=0.6)
    at_foot = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
    panel.legend(fontsize=7, frameon=False, ncols=columns, **at_foot)
