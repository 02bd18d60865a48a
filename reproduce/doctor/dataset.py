"""Checks a dataset's folder, and computes what each paper will need of the machine."""

import dataclasses
import functools
import importlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pandas as pd

from data import BadImage, DataError, images, label_tree, labels, splits
from data.phantom import drawing
from data.phantom import labels as drawn_labels
from evaluation import published
from models.backbones import BACKBONES
from reproduce.doctor.machine import OK, PROBLEM, WARNING, Finding
from reproduce.engine.dataset import READERS
from reproduce.engine.rows import Data, Row, to_the_end

LABELS = {
    "chestxray14": (labels.CHESTXRAY14, None),  # no hierarchy of it was released
    "chexpert": (labels.CHEXPERT, label_tree.CHEXPERT),
    "plco": (labels.PLCO, label_tree.PLCO),
}
SAMPLE = 200  # images decoded
RARE = 20  # positives; with fewer, a share says little
FAR = 1.25  # the ratio to the released share from which a label is pointed out
STATE_BYTES = 16  # a parameter: float32 weights, Adam's two moments and the best epoch's weights


def findings(folder: Path, dataset: str, frame: pd.DataFrame, size: int) -> Iterator[Finding]:
    """Every check of a dataset that its reader could read."""
    yield layout(frame)
    yield missing(frame)
    yield Finding(OK, "patients", f"{frame['patient_id'].nunique():,}, none in two released sets")
    yield closure(frame, dataset)
    yield from prevalence(frame, dataset)
    yield decoding(folder, frame, size)


def read(folder: Path, dataset: str) -> pd.DataFrame | Finding:
    """The frame without its missing images, or why the reader refuses the folder."""
    try:
        return READERS[dataset].read(folder, allow_missing=True)
    except DataError as error:
        return Finding(
            PROBLEM, "layout", str(error), "Get the folder right; docs/data.md shows it."
        )


def layout(frame: pd.DataFrame) -> Finding:
    counts = ", ".join(f"{count:,} {name}" for name, count in frame["split"].value_counts().items())
    text = f"{frame.attrs['dataset']}, {len(frame):,} images ({counts})"
    if frame.attrs["phantom"]:
        return Finding(
            WARNING,
            "layout",
            f"{text}, drawn phantoms",
            "Phantoms show that everything runs; for numbers to compare, give the real dataset.",
        )
    if frame.attrs["complete"]:
        return Finding(OK, "layout", f"{text}, complete")
    return Finding(
        WARNING,
        "layout",
        f"{text}, a subset of the released dataset",
        "With a subset, results are marked as not comparable; get the rest to compare.",
    )


def missing(frame: pd.DataFrame) -> Finding:
    lost = frame.attrs["missing"]
    if not lost:
        return Finding(OK, "images", "every listed image is there")
    text = f"{len(lost):,} listed images are missing, such as {', '.join(lost[:3])}"
    return Finding(
        PROBLEM, "images", text, "Get the missing images, or train with --allow-missing."
    )


def closure(frame: pd.DataFrame, dataset: str) -> Finding:
    """Whether a positive label makes its ancestors positive."""
    names, tree = LABELS[dataset]
    if tree is None:
        return Finding(OK, "hierarchy", "the labels were released flat; nothing to be closed")
    targets = frame[list(names)].to_numpy(np.float32)
    # a blank is negative under every policy, an uncertain label contradicts nothing
    targets = np.where(np.isnan(targets), 0, np.where(targets < 0, np.nan, targets))
    open_labels = label_tree.violations(targets, tree)
    share = open_labels.any(axis=1).mean()
    if not share:
        return Finding(OK, "hierarchy", "closed: every positive label's ancestors are positive")
    worst = names[int(open_labels.sum(axis=0).argmax())]
    text = f"{share:.1%} of images have a positive label without its parent, most often {worst}"
    if dataset == "chexpert":
        return Finding(OK, "hierarchy", f"{text}; so it was released, and every script closes it")
    return Finding(
        PROBLEM, "hierarchy", text, "Get the label lists again: as released, they are closed."
    )


def prevalence(frame: pd.DataFrame, dataset: str) -> Iterator[Finding]:
    """The share of positives of each label beside that of the whole released dataset."""
    names = LABELS[dataset][0]
    positive = (frame[list(names)] == 1).sum()
    known = pd.Series(drawn_labels.prevalences(dataset), drawn_labels.NAMES[dataset])
    if dataset == "chexpert":  # of inner labels it counts what the released ones leave out
        uncertain = pd.Series(drawn_labels.UNCERTAIN, labels.CHEXPERT)
        known = known - drawn_labels.UNCERTAIN_BUT_TRUE * uncertain
        known = known.drop([names[label] for label in label_tree.inner(label_tree.CHEXPERT)])
    known = known.reindex(names)
    share = positive / len(frame)
    far = (np.abs(np.log(share.clip(1e-9) / known)) > np.log(FAR)) & (known * len(frame) > RARE)
    shares = [
        f"{name} {share[name]:.1%}" + ("" if np.isnan(known[name]) else f" ({known[name]:.1%})")
        for name in names
    ]
    text = "here (released): " + ", ".join(shares)
    if far.any() and frame.attrs["complete"] and not frame.attrs["phantom"]:
        strange = ", ".join(far.index[far])
        yield Finding(
            WARNING,
            "prevalence",
            text,
            f"Look at {strange}: far from the released share, though the dataset is complete.",
        )
    else:
        yield Finding(OK, "prevalence", text)
    tested = frame[frame["split"] == "test"]
    empty = [name for name in names if len(tested) and not (tested[name] == 1).any()]
    if empty:
        yield Finding(
            WARNING,
            "test set",
            f"no positive image of {', '.join(empty)}",
            "The AUC of a label without a positive test image is undefined; means leave it out.",
        )


def decoding(folder: Path, frame: pd.DataFrame, size: int) -> Finding:
    """Some images, spread over the dataset, decoded as the cache will decode all."""
    paths = frame["image_path"].sample(min(SAMPLE, len(frame)), random_state=0).sort_values()

    def why_not(path: str) -> str | None:
        try:
            images.read_gray(Path(folder) / path, size)
        except BadImage as error:
            return f"{path} {error.reason}"
        return None

    began = time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        corrupt = [text for text in pool.map(why_not, paths) if text]
    rate = len(paths) / (time.perf_counter() - began)
    if corrupt:
        shown = "; ".join(corrupt[:10]) + (f"; and {len(corrupt) - 10} more" * (len(corrupt) > 10))
        text = f"{len(corrupt)} of {len(paths)} cannot be used: {shown}"
        return Finding(
            PROBLEM,
            "decoding",
            text,
            "Get these images again (a sample only: others "
            "may be damaged too), or train with --skip-corrupt.",
        )
    text = f"{len(paths)} sampled images are whole; {rate:.0f} a second, so all take "
    return Finding(OK, "decoding", text + duration(len(frame) / rate))


# What a paper needs


class Need(NamedTuple):
    """What a paper needs at its own settings."""

    paper: str
    dataset: str
    images: int  # to be decoded
    epochs: int  # over all rows, one seed
    may_stop: bool  # whether training can end earlier
    training: int  # images an epoch
    pixels: int  # a side, of what the networks see
    cache: float  # bytes
    results: float  # bytes


def needs(frame: pd.DataFrame | None = None) -> list[Need]:
    """Every paper that trains, or only those on this frame's dataset, on its images."""
    wanted = frame.attrs["dataset"] if frame is not None else None
    made = []
    for paper in published.papers():
        dataset = published.load(paper)["dataset"].iloc[0].lower().replace("-", "")
        if wanted in (None, dataset) and importlib.util.find_spec(f"reproduce.{paper}"):
            script = importlib.import_module(f"reproduce.{paper}")
            made.append(_need(script, paper, dataset, frame))
    return made


def _need(script: ModuleType, paper: str, dataset: str, frame: pd.DataFrame | None) -> Need:
    config = script.Config()
    rows = script.rows(config, Data(handful(dataset), None, {"dataset": dataset}))
    trained = [row for row in rows if isinstance(row, Row)]
    if frame is None:
        total, training = _released(dataset)
    else:
        total, training = len(frame), int(frame["split"].str.startswith("train").sum())
    parameters = max(
        BACKBONES[value].parameters
        for value in dataclasses.asdict(config).values()
        if value in BACKBONES
    )
    return Need(
        paper,
        dataset,
        images=total,
        epochs=sum(row.fit.epochs for row in trained),
        may_stop=any(row.fit.stop is not to_the_end for row in trained),
        training=training,
        pixels=config.size,
        cache=total * getattr(config, "resize", config.size) ** 2,
        results=len(trained) * parameters * STATE_BYTES,
    )


@functools.cache
def handful(dataset: str) -> pd.DataFrame:
    """A few phantoms, split: the number of a script's rows does not depend on the data."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = drawing.write(
            dataset, Path(temporary) / "phantoms", 40, 32, seed=0, progress=False
        )
        return splits.by_patient(READERS[dataset].read(folder), seed=0)


def _released(dataset: str) -> tuple[int, int]:
    """(all, training) images of the whole dataset."""
    complete = READERS[dataset].COMPLETE
    if dataset == "plco":  # its training list is not counted in public: 70 % beside these 30
        total = round(sum(complete.values()) / 0.3)
        return total, total - sum(complete.values())
    return sum(complete.values()), max(complete.values())


def time_needed(need: Need, images_a_second: float, measured_at: int) -> float:
    """Seconds to train all rows, as if each were the network that was measured."""
    return need.epochs * need.training / images_a_second * (need.pixels / measured_at) ** 2


def duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(seconds, 1):.0f} seconds"
