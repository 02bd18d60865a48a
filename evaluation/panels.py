"""Draw single predictions as PNG: Grad-CAM overlays, probabilities and the label tree."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import safefiles
from evaluation import Names, heatmap
from evaluation.figures import literal_text, printable

DISCLAIMER = "For research only. Not a medical device; not for diagnosis."
DPI = 130
COLOURS = matplotlib.colormaps["YlOrRd"]
INK, FAINT = "#222222", "#777777"


def percent(probability: float, spread: float | None = None) -> str:
    """Return a probability as a whole percentage, with the deviation over members if given."""
    text = f"{100 * probability:.0f} %"
    return text if spread is None else f"{100 * probability:.0f} ± {100 * spread:.0f} %"


@literal_text
def activations(
    path: str | Path,
    image: np.ndarray,
    heat: np.ndarray,
    labels: Names,
    probabilities: np.ndarray,
    spread: np.ndarray | None,
    *,
    true: Names,
    columns: int = 7,
    title: str = "",
) -> Path:
    """Draw Asadi's Figure 3: one tile per label with Grad-CAM, probability and uncertainty.

    `image` is (H, H) and `heat` (labels, h, w). The names of `true` labels are bold.
    """
    rows = -(-len(labels) // columns)
    figure = Figure((1.75 * columns, 2.06 * rows + 0.35), layout="constrained")
    tiles = figure.subplots(rows, columns, squeeze=False).ravel()
    for tile in tiles[len(labels) :]:
        tile.set_axis_off()
    for k, (tile, label) in enumerate(zip(tiles, labels, strict=False)):
        _picture(tile, heatmap.overlay(image, heat[k]))
        label_spread = None if spread is None else spread[k]
        tile.set_title(
            f"{label}\n{percent(probabilities[k], label_spread)}",
            fontsize=7.2,
            fontweight="bold" if label in true else "normal",
        )
    figure.suptitle(printable(title), fontsize=9)
    return _save(figure, path)


@literal_text
def prediction(
    path: str | Path,
    image: np.ndarray,
    labels: Names,
    probabilities: np.ndarray,
    spread: np.ndarray | None,
    *,
    shown: Sequence[int] | np.ndarray,
    heat: np.ndarray,
    parents: np.ndarray,
    title: str = "",
    note: str = "",
) -> Path:
    """Draw one image with its likeliest labels, their Grad-CAM maps and the label tree.

    `image` is (H, H). `heat` (shown, h, w) has the maps of the `shown` labels. `parents` (labels,
    labels) is 1 at [child, parent].
    """
    figure = Figure((12, 7.6), layout="constrained")
    parts = figure.subfigures(3, 1, squeeze=False, height_ratios=(4.6, 2.75, 0.25))
    above, below, foot = parts[:, 0]
    picture, bars, tree = above.subplots(1, 3, width_ratios=(1.1, 1, 1.15))
    _picture(picture, image)
    picture.set_anchor("N")
    picture.set_title(printable(title), fontsize=10, loc="left")
    _bars(bars, labels, probabilities, spread)
    _tree(tree, labels, probabilities, spread, parents)
    for position, tile in enumerate(below.subplots(1, 6)):
        if position >= len(shown):
            tile.set_axis_off()
            continue
        label = shown[position]
        _picture(tile, heatmap.overlay(image, heat[position]))
        label_spread = None if spread is None else spread[label]
        tile.set_title(
            f"{labels[label]}\n{percent(probabilities[label], label_spread)}", fontsize=8
        )
    below.suptitle("Where the likeliest labels come from (Grad-CAM above half its maximum)", size=9)
    foot.text(0.01, 0.5, printable(note), size=7.5, color=FAINT, va="center")
    foot.text(0.99, 0.5, DISCLAIMER, size=8.5, color="#B00020", va="center", ha="right")
    return _save(figure, path)


def _picture(tile, pixels: np.ndarray) -> None:
    tile.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    tile.set(xticks=(), yticks=())
    for side in tile.spines.values():
        side.set_visible(False)


def _bars(tile, labels, probabilities: np.ndarray, spread: np.ndarray | None, most: int = 10):
    """Draw bars of the likeliest labels, with whiskers of one standard deviation."""
    likeliest = np.argsort(-probabilities, kind="stable")[:most]
    positions = np.arange(len(likeliest))
    values = probabilities[likeliest]
    tile.barh(positions, values, 0.62, color=COLOURS(values), edgecolor="#999999", linewidth=0.4)
    if spread is not None:
        reach = spread[likeliest]
        low, high = values - np.maximum(values - reach, 0), np.minimum(values + reach, 1) - values
        tile.errorbar(values, positions, xerr=(low, high), fmt="none", ecolor=INK, elinewidth=0.9)
    for position, label in zip(positions, likeliest, strict=True):
        text = percent(probabilities[label], None if spread is None else spread[label])
        tile.text(1.03, position, text, va="center", fontsize=8)
    tile.set_yticks(positions, [labels[label] for label in likeliest], fontsize=8)
    tile.set(xlim=(0, 1), ylim=(max(len(positions), 6) - 0.4, -0.6), xticks=(0, 0.5, 1))
    tile.tick_params(axis="x", labelsize=7)
    tile.spines[["top", "right"]].set_visible(False)
    tile.set_title("Likeliest labels", fontsize=10, loc="left")


def _tree(tile, labels, probabilities, spread, parents: np.ndarray) -> None:
    """Draw the hierarchy as an indented list; the colour of each box shows the probability."""
    lines = outline(parents)
    height = max(len(lines), 14)
    for position, (label, level) in enumerate(lines):
        left = 0.04 * level
        box = matplotlib.patches.FancyBboxPatch(
            (left, position + 0.09),
            width=0.035,
            height=0.82 - 0.18,
            boxstyle="round,pad=0.004",
            mutation_aspect=height,
            facecolor=COLOURS(probabilities[label]),
            edgecolor="#999999",
            linewidth=0.4,
        )
        tile.add_patch(box)
        label_spread = None if spread is None else spread[label]
        weight = "bold" if probabilities[label] >= 0.5 else "normal"
        style = {"fontsize": 7.8, "va": "center", "fontweight": weight, "color": INK}
        tile.text(left + 0.055, position + 0.43, labels[label], **style)
        tile.text(
            1.0, position + 0.43, percent(probabilities[label], label_spread), ha="right", **style
        )
    tile.set(xlim=(-0.01, 1), ylim=(height, 0))
    tile.set_axis_off()
    tile.set_title("Label tree" if parents.any() else "All labels", fontsize=10, loc="left")


def outline(parents: np.ndarray) -> list[tuple[int, int]]:
    """Return (label, level) in the order of an indented list; the deepest parent counts."""
    count = len(parents)
    level = np.zeros(count, int)
    for _ in range(count):  # the longest path to every label
        for child, parent in np.argwhere(parents > 0):
            level[child] = max(level[child], level[parent] + 1)
    above = [
        max(np.flatnonzero(own_parents), key=lambda parent: level[parent], default=-1)
        for own_parents in parents > 0
    ]
    lines: list[tuple[int, int]] = []

    def walk(parent: int, depth: int) -> None:
        children = [label for label in range(count) if above[label] == parent]
        # labels with children come last, so that the leaves stay together
        for label in sorted(children, key=lambda label: label in above):
            lines.append((label, depth))
            walk(label, depth + 1)

    walk(-1, 0)
    return lines


def _save(figure: Figure, path: str | Path) -> Path:
    with safefiles.whole(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI, metadata={"Software": None})
    return Path(path)
