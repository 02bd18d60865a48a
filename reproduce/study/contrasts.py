"""Define a contrast, and run it: a paper's own rows at several values of one knob.

The engine trains the rows, so the same command resumes a stopped contrast, two processes can share
one, and changed settings get folders of their own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import safefiles
from data.datasets import DATASETS
from data.phantom import drawing
from data.phantom.knobs import Knobs
from reproduce.engine import dataset, search
from reproduce.engine.options import Options
from reproduce.engine.rows import Combined, Data, Row, Run
from reproduce.engine.train import train_table
from reproduce.study.measures import Panel

IMAGES, PIXELS = 4000, 32  # drawn at every value of a knob; pixels per side
QUICK_IMAGES = 160
FLOOR = 0.03  # no label is rarer, except where the knob is the odds of findings
TRUE_LABELS = Knobs(label_noise=0)


@dataclass(frozen=True)
class Contrast:
    """One knob of the images, the settings or the labels, and the rows compared along it.

    The knob is the field of Knobs or of Config that `drawn` or `setting` names, else the labels'
    `damage`.
    """

    name: str
    script: Any  # the paper's module
    question: str
    knob: str  # the axis of the figure, in words
    values: Sequence[float]
    dataset: str
    config: Any  # of the script
    wanted: Sequence[str]  # the rows that are trained, with those they need
    panels: Sequence[Panel]
    conclude: Callable[[pd.DataFrame], str]  # effects -> about three sentences
    claims: Sequence[str] = ()  # of the paper, that the question bears on
    knobs: Knobs = TRUE_LABELS  # of all images
    drawn: str = ""  # the field of Knobs that takes the value
    damage: Callable[[pd.DataFrame, float], None] | None = None  # (frame, value): in place
    setting: str = ""  # the field of Config that takes the value
    rows: Callable[[Any, str], Sequence[Row | Combined]] | None = None  # None: the script's
    labels: str = ""  # an option of CheXpert's reader
    log: bool = False  # slopes and figures are over the logarithm of the knob
    trade_off: bool = False  # the figure shows the second panel's rows against the first's

    @property
    def paper(self) -> str:
        return self.script.__name__.rpartition(".")[2]

    def knobs_at(self, value: float) -> Knobs:
        """Return how the images are drawn at a value of the knob."""
        if not self.drawn:
            return self.knobs
        changed: dict[str, Any] = {self.drawn: value}
        return dataclasses.replace(self.knobs, **changed)

    def config_at(self, value: float) -> Any:
        """Return the settings at a value of the knob."""
        if not self.setting:
            return self.config
        return dataclasses.replace(self.config, **{self.setting: value})


def compute(contrast: Contrast, options: Options, quick: bool) -> pd.DataFrame:
    """Train the rows that are due at every value of the knob, and return the effects."""
    measures = dict.fromkeys(panel.measure for panel in contrast.panels)  # panels may share one
    measured: dict[Any, dict] = {measure: {} for measure in measures}
    for value in (contrast.values[0], contrast.values[-1]) if quick else contrast.values:
        print(f"\n=== {contrast.name}: {contrast.knob}: {value:g}", flush=True)
        runs = _train(contrast, value, options, quick)
        for measure, by_value in measured.items():
            by_value[value] = measure(runs, options.resamples)
    effects = [panel.table(measured[panel.measure], contrast.log) for panel in contrast.panels]
    return pd.concat(effects, ignore_index=True).assign(
        contrast=contrast.name, seeds=len(options.seeds)
    )


def _train(contrast: Contrast, value: float, options: Options, quick: bool) -> list[Run]:
    """Train the runs of one value of the knob, except those that are finished."""
    config, count = contrast.config_at(value), IMAGES
    if quick:
        config, count = smallest(config), QUICK_IMAGES
    # Values of a setting have the same images and labels, so rows that ignore it are shared.
    folder = "all" if contrast.setting else f"{value:g}"
    own = dataclasses.replace(
        options,
        results_dir=options.results_dir / contrast.name / folder,
        rows=list(contrast.wanted),
        dataset=contrast.dataset,
    )
    table = search.table(contrast.rows or contrast.script.rows, config, own)
    data = _data(contrast, value, config, count, own)
    return train_table(contrast.paper, table, config, data, own)


def smallest(config: Any) -> Any:
    """Return settings for a smoke run: one epoch of small images."""
    small = {"size": PIXELS, "resize": PIXELS + 4, "epochs": 1, "finetune_epochs": 1}
    fields = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{k: v for k, v in small.items() if k in fields})


def _data(contrast: Contrast, value: float, config: Any, count: int, options: Options) -> Data:
    """Draw the phantoms of a value, split them, damage their labels and decode them."""
    pixels = getattr(config, "resize", config.size)
    folder = _draw(contrast, value, count, pixels, options.cache_dir / "phantoms")
    reader = {"labels": contrast.labels} if contrast.labels else {}
    frame = DATASETS[contrast.dataset].read(folder, **reader)
    attrs = frame.attrs | {"folder": str(folder.absolute())}
    frame, _ = contrast.script.split(frame, config)
    # Every image outside training and validation is a test image here.
    names = frame["split"].where(frame["split"].isin(("train", "val")), "test")
    frame = frame.assign(split=names).reset_index(drop=True)
    if contrast.damage:
        frame = damage_labels(frame, contrast.damage, value)
    crop = config.size if getattr(config, "template", False) else None
    return dataset.decode(options, frame, attrs, "", pixels, crop)


def _draw(contrast: Contrast, value: float, count: int, pixels: int, parent: Path) -> Path:
    """Draw the phantoms of a value, unless their folder exists, and return the folder."""
    knobs = contrast.knobs_at(value)
    changes = "".join(f"-{_short(knob, each)}" for knob, each in knobs.changed().items())
    name = f"study-{contrast.dataset}-{count}-{pixels}px{changes}"
    waiting = "Another process is drawing these phantoms; waiting."
    with safefiles.lock(parent / f".{name}.lock", waiting=waiting):
        return drawing.write(contrast.dataset, parent / name, count, pixels, 0, FLOOR, knobs=knobs)


def _short(knob: str, value: Any) -> str:
    """Return a knob as it stands in the name of a folder."""
    if isinstance(value, list):
        return f"{len(value)}{knob}"
    return f"{knob.replace('_', '')}{value:g}"


def row_named(rows: Sequence[Row | Combined], name: str) -> Row:
    """Return the row of this name."""
    return next(row for row in rows if row.name == name and isinstance(row, Row))


def damage_labels(
    frame: pd.DataFrame, damage: Callable[[pd.DataFrame, float], None], value: float
) -> pd.DataFrame:
    """Damage the labels of training and validation images; those of test images stay true."""
    learnt = frame["split"] != "test"
    part = frame[learnt].copy()
    damage(part, value)
    whole = pd.concat([part, frame[~learnt]]).sort_index().astype(frame.dtypes)
    whole.attrs = frame.attrs
    return whole
