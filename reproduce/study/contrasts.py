"""What a contrast is, and how it runs: a paper's own rows at several values of one knob.

The rows are trained by the engine's loop, so a contrast that was stopped goes on where it was, two
processes share one, and settings that change get folders of their own.
"""

import copy
import dataclasses
import functools
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import safefiles
from data.phantom import drawing
from data.phantom.knobs import Knobs
from reproduce.engine import dataset, loop
from reproduce.engine.rows import Data, Row, Run
from reproduce.study.measures import Panel

IMAGES, PIXELS = 4000, 32  # drawn for a value of a knob, and their side
QUICK_IMAGES, QUICK_PIXELS = 160, 32
FLOOR = 0.03  # no label is rarer, where the knob is not its odds
TRUE_LABELS = Knobs(label_noise=0)


@dataclass(frozen=True)
class Point:
    """One value of a knob: what is drawn, what becomes of the labels, and the settings."""

    value: float
    config: Any  # of the paper's script
    knobs: Knobs = TRUE_LABELS
    damage: Callable[[pd.DataFrame], pd.DataFrame] | None = None  # of the labels trained on
    folder: str = ""  # of its runs; points with the same images and labels may share one


@dataclass(frozen=True)
class Images:
    """The phantoms that a contrast draws, and how the paper's script takes them in."""

    dataset: str
    reader: dict = dataclasses.field(default_factory=dict)  # options of the dataset's reader
    template: bool = False  # images are cut out by template matching


@dataclass(frozen=True)
class Contrast:
    """One knob of the drawing or of the labels, and the rows that are compared along it."""

    name: str
    script: Any  # the paper's module
    question: str
    knob: str  # the axis of the figure, in words
    points: Sequence[Point]
    images: Images
    rows: Callable[[Any, Data], Sequence]  # the script's, or with others beside them
    wanted: Sequence[str]  # the rows that are trained, with those they need
    panels: Sequence[Panel]
    conclude: Callable[[pd.DataFrame], str]  # effects -> what they say, in a sentence or two
    log: bool = False  # the values of the knob stand at equal distances in the figure

    @property
    def paper(self) -> str:
        return self.script.__name__.rpartition(".")[2]


class Why(NamedTuple):
    """What shows when a claim holds: effects of a contrast, by the beginnings of their names."""

    contrast: str
    effect: str
    panel: str = ""


def compute(contrast: Contrast, options: Namespace) -> pd.DataFrame:
    """Train what is due at every value of the knob; the effects, one line a panel and value."""
    lines = []
    points = contrast.points if not options.quick else contrast.points[-1:]
    for point in points:
        print(f"\n=== {contrast.name}: {contrast.knob}: {point.value:g}", flush=True)
        runs = _train(contrast, point, options)
        # panels may share a measure, which takes seconds
        measures = dict.fromkeys(panel.measure for panel in contrast.panels)
        measured = {measure: measure(runs, options.resamples) for measure in measures}
        for panel in contrast.panels:
            for effect in panel.effects_of(measured[panel.measure]):
                about = {"contrast": contrast.name, "knob": point.value}
                lines.append(about | effect | {"seeds": len(options.seeds)})
    return pd.DataFrame(lines)


def _train(contrast: Contrast, point: Point, options: Namespace) -> list[Run]:
    """The runs of one value of the knob: found finished, or trained."""
    own = copy.copy(options)
    config, count = point.config, IMAGES
    if options.quick:
        config, count = quick(config), QUICK_IMAGES
    own.results_dir = options.results_dir / contrast.name / (point.folder or f"{point.value:g}")
    own.rows = list(contrast.wanted)
    own.dataset = contrast.images.dataset
    data = _data(contrast, point, config, count, own)
    return loop.train(contrast.paper, contrast.rows, data, config, own)


def quick(config: Any) -> Any:
    """The settings that show that a contrast runs: an epoch of small images."""
    small = {"size": QUICK_PIXELS, "resize": QUICK_PIXELS + 4, "epochs": 1, "finetune_epochs": 1}
    fields = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{k: v for k, v in small.items() if k in fields})


def _data(contrast: Contrast, point: Point, config: Any, count: int, options) -> Data:
    """The phantoms of a point: drawn once, split by the script, labels damaged, decoded."""
    pixels = getattr(config, "resize", config.size)
    of = contrast.images
    folder = _draw(of.dataset, point.knobs, count, pixels, options.cache_dir / "phantoms")
    frame = dataset.READERS[of.dataset].read(folder, **of.reader)
    attrs = frame.attrs | {"folder": str(folder.absolute())}
    frame, _ = contrast.script.split(frame, config)
    # a further test set of a paper makes its only one larger here
    named = frame["split"].where(frame["split"].isin(("train", "val")), "test")
    frame = frame.assign(split=named).reset_index(drop=True)
    if point.damage:
        frame = point.damage(frame)
    return dataset.decode(options, frame, attrs, "", pixels, config.size if of.template else None)


def _draw(name: str, knobs: Knobs, count: int, pixels: int, below: Path) -> Path:
    """The folder of these phantoms, which are drawn if they are not there yet."""
    changes = "".join(f"-{_short(knob, value)}" for knob, value in knobs.changed().items())
    own = f"study-{name}-{count}-{pixels}px{changes}"
    with safefiles.lock(below / f".{own}.lock", waiting="Another process draws them; waiting."):
        return drawing.write(name, below / own, count, pixels, 0, FLOOR, knobs=knobs)


def _short(name: str, value: Any) -> str:
    """A knob in a folder's name."""
    if isinstance(value, list):
        return f"{len(value)}{name}"
    return f"{name.replace('_', '')}{value:g}"


def row_named(rows: Sequence, name: str) -> Row:
    """One row of a table, by its name."""
    return next(row for row in rows if row.name == name)


def damaged(change: Callable[[pd.DataFrame], None]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Labels damaged where images are trained on or choose the epoch; those of the test stay true.

    `change` works in place on the frame of these images.
    """

    @functools.wraps(change)
    def whole(frame: pd.DataFrame) -> pd.DataFrame:
        learnt = frame["split"] != "test"
        part = frame[learnt].copy()
        change(part)
        whole_frame = pd.concat([part, frame[~learnt]]).sort_index().astype(frame.dtypes)
        whole_frame.attrs = frame.attrs
        return whole_frame

    return whole
