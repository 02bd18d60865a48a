"""Check a dataset's folder: its layout, images, patients, labels, and a sample of its pixels."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from data import BadImage, DataError, images, label_tree
from data.datasets import DATASETS
from data.phantom.labels import released_shares
from reproduce.doctor.machine import Finding, ok, problem, warning

SAMPLE = 200  # images to decode
RARE = 20  # positive images; with fewer, a label's prevalence varies too much to judge
FAR = 1.25  # ratio of two prevalences from which a label is pointed out
DAMAGED_SHOWN = 10


def read(folder: Path, dataset: str) -> pd.DataFrame | Finding:
    """Return the frame of all images that exist, or the finding that the folder is refused."""
    try:
        return DATASETS[dataset].read(folder, allow_missing=True)
    except DataError as error:
        fix = "Arrange the folder as docs/data.md shows."
        return problem("layout", str(error), fix)


def findings(folder: Path, dataset: str, frame: pd.DataFrame, size: int) -> Iterator[Finding]:
    """Run every check of a dataset that its reader accepted."""
    yield layout(frame)
    yield missing(frame)
    yield ok("patients", f"{frame['patient_id'].nunique():,}, none in two released sets")
    yield closure(frame, dataset)
    yield from prevalence(frame, dataset)
    yield decoding(folder, frame, size)


def layout(frame: pd.DataFrame) -> Finding:
    """Say which images there are, and whether they are the whole released dataset."""
    counts = ", ".join(f"{count:,} {name}" for name, count in frame["split"].value_counts().items())
    text = f"{frame.attrs['dataset']}, {len(frame):,} images ({counts})"
    if frame.attrs["phantom"]:
        return warning(
            "layout",
            f"{text}, drawn phantoms",
            "Phantoms (synthetic radiographs) show that everything runs; for numbers to compare, "
            "give the real dataset.",
        )
    if frame.attrs["complete"]:
        return ok("layout", f"{text}, complete")
    return warning(
        "layout",
        f"{text}, a subset of the released dataset",
        "Results on a subset are marked as not comparable; get the other images to compare.",
    )


def missing(frame: pd.DataFrame) -> Finding:
    """Check that every image in the label file exists."""
    paths = frame.attrs["missing"]
    if not paths:
        return ok("images", "every listed image exists")
    text = f"{len(paths):,} listed images are missing, such as {', '.join(paths[:3])}"
    return problem("images", text, "Get the missing images, or train with --allow-missing.")


def closure(frame: pd.DataFrame, dataset: str) -> Finding:
    """Check that the parents of every positive label are positive."""
    names, tree = DATASETS[dataset].labels, DATASETS[dataset].tree
    if tree is None:
        return ok("hierarchy", "the labels were released without one")
    targets = frame[list(names)].to_numpy(np.float32)
    # a blank is negative under every policy; an uncertain label contradicts nothing
    targets = np.where(np.isnan(targets), 0, np.where(targets < 0, np.nan, targets))
    violations = label_tree.violations(targets, tree)
    share = violations.any(axis=1).mean()
    if not share:
        return ok("hierarchy", "closed: every positive label's ancestors are positive")
    worst = names[int(violations.sum(axis=0).argmax())]
    text = f"{share:.1%} of images have a positive label without its parent, most often {worst}"
    if not DATASETS[dataset].closed:
        return ok("hierarchy", f"{text}; this is how it was released, and every script closes it")
    fix = "Download the label lists again: the released ones are closed."
    return problem("hierarchy", text, fix)


def prevalence(frame: pd.DataFrame, dataset: str) -> Iterator[Finding]:
    """Compare each label's prevalence with that of the whole released dataset."""
    names = list(DATASETS[dataset].labels)
    released = pd.Series(released_shares(dataset), dtype=float).reindex(names)
    here = (frame[names] == 1).sum() / len(frame)
    ratio = np.exp(np.abs(np.log(here.clip(1e-9) / released)))
    far = list(released.index[(ratio > FAR) & (released * len(frame) > RARE)])
    text = "here (released): " + ", ".join(
        f"{name} {here[name]:.1%}"
        + ("" if np.isnan(released[name]) else f" ({released[name]:.1%})")
        for name in names
    )
    if far and frame.attrs["complete"] and not frame.attrs["phantom"]:
        fix = f"Look at {', '.join(far)}: far from the released share in a complete dataset."
        yield warning("prevalence", text, fix)
    else:
        yield ok("prevalence", text)
    test = frame[frame["split"] == "test"]
    empty = [name for name in names if not (test[name] == 1).any()]
    if len(test) and empty:
        yield warning(
            "test set",
            f"no positive image of {', '.join(empty)}",
            "The AUC of a label without a positive test image is undefined; means leave it out.",
        )


def decoding(folder: Path, frame: pd.DataFrame, size: int) -> Finding:
    """Decode a sample of the images as the cache will decode all of them."""
    paths = frame["image_path"].sample(min(SAMPLE, len(frame)), random_state=0).sort_index()

    def fault(path: str) -> str:
        """Return why an image cannot be used; empty if it can."""
        try:
            images.read_gray(folder / path, size)
        except BadImage as error:
            return f"{path} {error.reason}"
        return ""

    began = time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        faults = list(filter(None, pool.map(fault, paths)))
    rate = len(paths) / (time.perf_counter() - began)
    if not faults:
        whole = duration(len(frame) / rate)
        text = f"{len(paths)} sampled images are intact; {rate:.0f} per second, {whole} for all"
        return ok("decoding", text)
    shown = faults[:DAMAGED_SHOWN]
    if len(faults) > DAMAGED_SHOWN:
        shown.append(f"and {len(faults) - DAMAGED_SHOWN} more")
    return problem(
        "decoding",
        f"{len(faults)} of {len(paths)} cannot be used: {'; '.join(shown)}",
        "Get these images again, or train with --skip-corrupt; this was a sample, so others may "
        "be damaged too.",
    )


def duration(seconds: float) -> str:
    """Return a time in the largest unit of which there are at least two."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(seconds, 1):.0f} seconds"
