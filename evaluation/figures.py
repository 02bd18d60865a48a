"""Draw the papers' figures as SVG; the same data give the same bytes.

Only Matplotlib's Figure is used, so there is no global state. The colours are those of Okabe and
Ito, which colour-blind readers can distinguish; shapes repeat the distinction.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import safefiles
from evaluation import Names, metrics, tables
from evaluation.predictions import Predictions

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"
READER_STYLES = (("o", ORANGE), ("s", GREEN), ("^", PURPLE), ("D", "#E69F00"), ("v", "#56B4E9"))
PHANTOM_WARNING = "drawn phantoms, not comparable"
PANEL = 2.3  # inches
SIGNIFICANT = 0.05
FEW = 10  # images in a bin of a reliability diagram

# A decorator: `$` and `_` in labels and file names are shown as they are and start no formula.
literal_text = matplotlib.rc_context({"text.parse_math": False})


def printable(text: str) -> str:
    """Return a file name with "?" for bytes that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()


@literal_text
def roc_curves(
    path: str | Path,
    targets: np.ndarray,
    probabilities: np.ndarray,
    labels: Names,
    readers: dict[str, np.ndarray] | None = None,
    *,
    title: str = "",
    phantom: bool = False,
) -> Path:
    """Draw one panel per label with its ROC curve.

    `readers` are decisions (images, labels), drawn as operating points. A point is filled if it
    lies below the curve.
    """
    columns = min(5 if len(labels) <= 10 else 7, len(labels))
    figure, panels = _grid_of_panels(len(labels), columns)
    auc = metrics.auroc(targets, probabilities)
    for label, (name, panel) in enumerate(zip(labels, panels, strict=True)):
        _unit_square(panel)
        false, true = metrics.roc_curve(targets[:, label], probabilities[:, label])
        if np.isnan(auc[label]):
            panel.text(0.5, 0.5, "one class only", ha="center", va="center", color=GREY)
        else:
            panel.plot(false / false[-1], true / true[-1], color=BLUE, linewidth=1.3)
        panel.set_title(f"{name}\nAUC {tables.number(auc[label])}", fontsize=8)
        if label % columns == 0:
            panel.set_ylabel("sensitivity", fontsize=7)
        if label + columns >= len(labels):
            panel.set_xlabel("1 − specificity", fontsize=7)
    _draw_readers(figure, panels, targets, probabilities, readers or {})
    return save(figure, path, title, phantom)


def _grid_of_panels(
    count: int, columns: int, size: tuple[float, float] = (PANEL, PANEL), legend: float = 1.0
) -> tuple:
    """Return a figure and its panels; `size` of a panel and height of the legend in inches."""
    rows = -(-count // columns)
    width, height = size[0] * columns, size[1] * rows + legend
    figure = Figure((width, height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels[:count]


def _unit_square(panel) -> None:
    """Prepare a square panel from 0 to 1 with its diagonal."""
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=":")
    panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    panel.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    panel.tick_params(labelsize=7)


def _draw_readers(figure, panels, targets, probabilities, readers: dict[str, np.ndarray]) -> None:
    if not readers:
        return
    under = metrics.under_curve(targets, probabilities, np.stack([*readers.values()]))
    for reader, (decisions, (marker, colour)) in enumerate(
        zip(readers.values(), itertools.cycle(READER_STYLES), strict=False)
    ):
        false, true = metrics.operating_points(targets, decisions)
        for label, panel in enumerate(panels):
            face = colour if under[reader, label] == 1 else "white"
            style = {"markersize": 5, "markeredgecolor": colour, "markerfacecolor": face}
            panel.plot(false[label], true[label], marker, zorder=3, clip_on=False, **style)
    handles = [
        matplotlib.lines.Line2D([], [], marker=marker, color=colour, linestyle="")
        for _, (marker, colour) in zip(readers, itertools.cycle(READER_STYLES), strict=False)
    ]
    legend = _legend(figure, handles, list(readers), ncols=len(readers), fontsize=7)
    legend.set_title("readers' operating points, filled below the curve", {"size": 7})


def _legend(figure: Figure, handles: Sequence, names: Names, **style):
    """Draw a legend below the panels; names may begin with `_`, which Matplotlib would skip."""
    stand_ins = [f"name {position}" for position in range(len(names))]
    legend = figure.legend(handles, stand_ins, loc="outside lower center", **style)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(printable(name))
    return legend


@literal_text
def roc_by_row(
    path: str | Path, rows: dict[str, Predictions], title: str = "", phantom: bool = False
) -> Path:
    """Draw Mo's Figure 1: one panel per network with the ROC curves of all labels."""
    figure, panels = _grid_of_panels(len(rows), min(3, len(rows)), size=(3.2, 3.4), legend=1.4)
    colours = matplotlib.color_sequences["tab20"]
    for panel, letter, (name, predictions) in zip(panels, "abcdefghi", rows.items(), strict=False):
        _unit_square(panel)
        for label, colour in zip(
            range(len(predictions.labels)), itertools.cycle(colours), strict=False
        ):
            false, true = metrics.roc_curve(
                predictions.targets[:, label], predictions.mean[:, label]
            )
            curve: tuple = ([], [])  # a label with one class only still has its legend
            if false[-1] and true[-1]:
                curve = (false / false[-1], true / true[-1])
            panel.plot(*curve, color=colour, linewidth=1)
        mean = metrics.macro_mean(metrics.auroc(predictions.targets, predictions.mean))
        panel.set_title(f"({letter}) {name}\nmean AUC {tables.number(float(mean))}", fontsize=8)
        panel.set_xlabel("1 − specificity", fontsize=7)
        panel.set_ylabel("sensitivity", fontsize=7)
    curves = panels[0].lines[1:]  # without the diagonal
    _legend(figure, curves, next(iter(rows.values())).labels, ncols=5, fontsize=7)
    return save(figure, path, title, phantom)


@literal_text
def examples(
    path: str | Path,
    images: Sequence[np.ndarray],
    overlays: Sequence[np.ndarray],
    captions: Sequence[str],
    title: str = "",
    phantom: bool = False,
) -> Path:
    """Draw images (H, W) above their heatmaps (H, W, 3); the first line of a caption is bold."""
    lines = max(caption.count("\n") for caption in captions)
    figure = Figure((PANEL * len(images), 2 * PANEL + 0.9 + 0.12 * lines), layout="constrained")
    panels = figure.subplots(2, len(images), squeeze=False)
    for above, below, image, overlay, caption in zip(
        *panels, images, overlays, captions, strict=True
    ):
        heading, _, more = caption.partition("\n")
        above.imshow(image, cmap="gray", vmin=0, vmax=255)
        above.set_title(heading, fontsize=8, fontweight="bold")
        below.imshow(overlay)
        below.set_xlabel(more, fontsize=6)
        for panel in (above, below):
            panel.set(xticks=(), yticks=())
    return save(figure, path, title, phantom)


@literal_text
def auc_comparison(
    path: str | Path,
    compared: pd.DataFrame,
    names: tuple[str, str] = ("first", "second"),
    high_level: Sequence[str] = (),
    *,
    title: str = "",
    phantom: bool = False,
    p: str = "p",
) -> Path:
    """Draw Chen's Figure 3: the AUC per label of two models, from `delong.table`.

    Labels that differ significantly (column `p` below .05) are bold with larger markers; a dashed
    line separates the high-level labels.
    """
    leaf = ~compared["label"].isin(high_level)
    compared = pd.concat([compared[leaf], compared[~leaf]], ignore_index=True)
    figure = Figure((6.5, 0.24 * len(compared) + 1.3), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(compared))
    significant = (compared[p] < SIGNIFICANT).to_numpy()
    axes.hlines(positions, compared["first"], compared["second"], color=GREY, linewidth=1, zorder=1)
    sizes = np.where(significant, 46, 16)
    points = [
        axes.scatter(compared[column], positions, sizes, colour, marker=marker, zorder=2)
        for column, marker, colour in (("first", "o", ORANGE), ("second", "D", BLUE))
    ]
    axes.set_yticks(positions, compared["label"], fontsize=8)
    for text, bold in zip(axes.get_yticklabels(), significant, strict=True):
        text.set_fontweight("bold" if bold else "normal")
    if 0 < leaf.sum() < len(compared):
        axes.axhline(leaf.sum() - 0.5, color=GREY, linestyle="--", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel(f"AUC; bold: DeLong's {_P_NAMES.get(p, p)} < {SIGNIFICANT:g}", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    _legend(figure, points, names, ncols=2, fontsize=8)
    return save(figure, path, title, phantom)


@literal_text
def reliability(
    path: str | Path, bins: pd.DataFrame, title: str = "", phantom: bool = False
) -> Path:
    """Draw one reliability diagram per label: observed share against mean probability.

    `bins` has the columns group, variant, observed, predicted and images. Markers grow with the
    number of images. A bin of few images is unreliable, so its marker is hollow and not connected.
    """
    labels, variants = bins["group"].unique(), bins["variant"].unique()
    columns = min(4, len(labels))  # more are unreadable on a small screen
    figure, panels = _grid_of_panels(len(labels), columns)
    styles = dict(zip(variants, (("o", BLUE), ("s", ORANGE)), strict=False))
    for position, (name, panel) in enumerate(zip(labels, panels, strict=True)):
        _unit_square(panel)
        for variant, (marker, colour) in styles.items():
            drawn = bins[(bins["group"] == name) & (bins["variant"] == variant)]
            sizes = 6 + 6 * np.log10(drawn["images"].to_numpy(float))
            few = (drawn["images"] < FEW).to_numpy()
            joined, faces = drawn[~few], np.where(few, "white", colour)
            panel.plot(joined["predicted"], joined["observed"], color=colour, linewidth=1)
            points = drawn["predicted"], drawn["observed"], sizes, faces
            panel.scatter(*points, marker=marker, edgecolors=colour, linewidths=0.8, zorder=2)
        panel.set_title(name, fontsize=8)
        if position % columns == 0:
            panel.set_ylabel("observed share", fontsize=7)
        if position + columns >= len(labels):
            panel.set_xlabel("mean probability", fontsize=7)
    handles = [
        matplotlib.lines.Line2D([], [], marker=marker, color=colour)
        for marker, colour in styles.values()
    ]
    legend = _legend(figure, handles, list(styles), ncols=len(styles), fontsize=7)
    legend.set_title(f"hollow: fewer than {FEW} images", {"size": 7})
    return save(figure, path, title, phantom)


@literal_text
def subgroups(
    path: str | Path, values: pd.DataFrame, title: str = "", phantom: bool = False
) -> Path:
    """Draw AUC, false negative and false positive rate of each subgroup, as means over labels.

    `values` has the columns by, subgroup, group (only "mean" is drawn), metric, value, low, high
    and images.
    """
    mean = values[values["group"] == "mean"]
    names = mean.drop_duplicates(["by", "subgroup"])
    ticks = [f"{row.by}: {row.subgroup} (n = {row.images:,})" for row in names.itertuples()]
    drawn = mean["metric"].unique()
    figure = Figure((3.0 * len(drawn) + 1.5, 0.3 * len(ticks) + 1.2), layout="constrained")
    panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False).ravel()
    colours = dict(zip(names["by"].unique(), itertools.cycle((BLUE, ORANGE, GREEN)), strict=False))
    for panel, metric in zip(panels, drawn, strict=True):
        lines = mean[mean["metric"] == metric]
        for position, line in enumerate(lines.itertuples()):
            style = {"color": colours[line.by], "linewidth": 1.3}
            panel.plot([line.low, line.high], [position, position], **style)
            panel.plot(line.value, position, "o", markersize=4, color=colours[line.by])
        panel.set_title(f"{_MEASURES.get(metric, metric)}, mean over labels", fontsize=8)
        panel.tick_params(axis="x", labelsize=7)
        panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panels[0].set_yticks(np.arange(len(ticks)), ticks, fontsize=8)
    panels[0].invert_yaxis()
    return save(figure, path, title, phantom)


_MEASURES = {"FNR": "missed (FNR)", "FPR": "false alarms (FPR)"}
_P_NAMES = {"p_holm": "p after Holm", "p_bh": "p after Benjamini–Hochberg"}


def save(figure: Figure, path: str | Path, title: str, phantom: bool) -> Path:
    """Write a figure as SVG, with a warning across it if its images are phantoms."""
    if phantom:
        title = f"{title}\n{PHANTOM_WARNING}".strip()
        size = min(26, 4 * figure.get_figwidth())
        warning = figure.text(0.5, 0.5, PHANTOM_WARNING, ha="center", va="center", rotation=20)
        warning.set(fontsize=size, color=ORANGE, alpha=0.25, zorder=10)
    if title:
        figure.suptitle(printable(title), fontsize=9, color=ORANGE if phantom else "black")
    # A fixed salt for ids and no date make files reproducible; text stays searchable.
    repeatable = matplotlib.rc_context({"svg.hashsalt": "figures", "svg.fonttype": "none"})
    with repeatable, safefiles.whole(path) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})
    return Path(path)
