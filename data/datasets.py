"""One record per dataset: everything that the suite must know about it, in one place.

To add a dataset, write its reader (`read` in a module like data/plco.py) and its phantom layout (a
function like those in data/phantom/layouts.py), then add one record to DATASETS. A phantom is a
synthetic chest radiograph. Readers and layouts are imported when they are first used, so importing
this module is cheap.
"""

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data import label_tree, labels
from data.label_tree import Tree

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


@dataclass(frozen=True)
class Dataset:
    """A released dataset: its reader, labels, size and prevalences, and its phantom layout."""

    name: str  # in flags, folders and files
    title: str  # in tables and pages
    reader: str  # module:function of the reader
    layout: str  # module:function that writes the phantoms' label files
    labels: tuple[str, ...]  # the released findings, in the order of every array
    tree: Tree | None  # over `labels`; None where the labels were released flat
    closed: bool  # True if every released positive label has positive ancestors
    hierarchy: str  # the key in label_tree.HIERARCHIES for Chen's method and for the phantoms
    complete: Mapping[str, int] = field(hash=False)  # images per released split, as published
    images: int  # of all splits
    training: int  # images of the split that models train on
    prevalence: tuple[float, ...]  # share of positives per label of `hierarchy`
    uncertain: tuple[float, ...] = ()  # share of -1 per label of `labels`; () without any
    phantom_folder: str = ""  # subfolder of the phantoms that is given to the reader
    pack: str = ""  # module:function that puts the drawn phantoms into one file
    download: str = ""  # module:function that gets it without registration, for --download
    sizes: tuple[int, ...] = ()  # pixels of the released files; () where images are of full size

    @property
    def read(self) -> "Callable[..., pd.DataFrame]":
        """Return the reader: read(folder, allow_missing=False, **its own options) -> frame."""
        reader: Callable[..., pd.DataFrame] = pkgutil.resolve_name(self.reader)
        return reader

    @property
    def get(self) -> "Callable[..., Path]":
        """Return the function that downloads it: get(folder, pixels, base_url, keep_archives)."""
        get: Callable[..., Path] = pkgutil.resolve_name(self.download)
        return get

    @property
    def write_layout(self) -> Callable[..., list]:
        """Return the function that writes the phantoms' label files and returns their `Shot`s."""
        layout: Callable[..., list] = pkgutil.resolve_name(self.layout)
        return layout

    @property
    def hierarchy_labels(self) -> tuple[str, ...]:
        return label_tree.HIERARCHIES[self.hierarchy][0]

    @property
    def hierarchy_tree(self) -> Tree:
        return label_tree.HIERARCHIES[self.hierarchy][1]

    @property
    def complete_images(self) -> int:
        """Return the number of images in the splits whose size is published."""
        return sum(self.complete.values())


UNCERTAIN_BUT_TRUE = 0.6  # assumed share of uncertain labels whose finding is present

_CHESTXRAY14_POSITIVES = (
    *(11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227),
    *(11207, 32325, 19949, 45251, 51759),  # of the inner labels, which are ours
)  # among 112,120 images

_CHESTXRAY14 = Dataset(
    name="chestxray14",
    title="ChestX-ray14",
    reader="data.chestxray14:read",
    layout="data.phantom.layouts:chestxray14",
    labels=labels.CHESTXRAY14,
    tree=None,
    closed=True,
    hierarchy="chestxray14",
    complete={"train_val": 86_524, "test": 25_596},
    images=112_120,
    training=86_524,
    prevalence=tuple(count / 112_120 for count in _CHESTXRAY14_POSITIVES),
    download="data.chestxray14:download",
)

DATASETS: dict[str, Dataset] = {
    record.name: record
    for record in (
        _CHESTXRAY14,
        dataclasses.replace(  # the same images and labels in another form
            _CHESTXRAY14,
            name="chestmnist",
            title="ChestMNIST",
            reader="data.chestmnist:read",
            layout="data.phantom.layouts:chestmnist",
            complete={"train": 78_468, "val": 11_219, "test": 22_433},
            training=78_468,
            pack="data.phantom.layouts:pack_chestmnist",
            download="data.chestmnist:download",
            sizes=(28, 64, 128, 224),
        ),
        Dataset(
            name="chexpert",
            title="CheXpert",
            reader="data.chexpert:read",
            layout="data.phantom.layouts:chexpert",
            labels=labels.CHEXPERT,
            tree=label_tree.CHEXPERT,
            closed=False,
            hierarchy="chexpert-abnormal",
            complete={"train": 223_414, "valid": 234, "test": 668},
            images=224_316,
            training=223_414,
            # of the training labels, with part of the uncertain ones counted as positive
            prevalence=(
                *(0.20, 0.143, 0.60, 0.045, 0.268, 0.14, 0.077, 0.24, 0.095, 0.417, 0.023, 0.042),
                *(0.522, 0.89),
            ),
            uncertain=(
                *(0, 0.056, 0.036, 0.025, 0.007, 0.058, 0.124, 0.084, 0.151, 0.014, 0.052, 0.012),
                *(0.003, 0.005),
            ),
            phantom_folder="CheXpert-v1.0-small",
        ),
        Dataset(
            name="plco",
            title="PLCO",
            reader="data.plco:read",
            layout="data.phantom.layouts:plco",
            labels=labels.PLCO,
            tree=label_tree.PLCO,
            closed=True,
            hierarchy="plco",
            complete={"val": 8_538, "test": 18_178},  # the size of the train list is not public
            images=89_053,  # estimated: val and test are 30 %
            training=62_337,
            prevalence=(  # of the lists that Chen et al. 2019 released
                *(0.120, 0.011, 0.0004, 0.0043, 0.116, 0.0038, 0.009, 0.0012, 0.017, 0.085),
                *(0.037, 0.043, 0.040, 0.030, 0.245, 0.018, 0.041, 0.156, 0.413),
            ),
        ),
    )
}

CHESTXRAY14_FORMS = ("chestxray14", "chestmnist")  # the same images and labels, in two forms
