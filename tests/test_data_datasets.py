"""The dataset records agree with the readers, the trees and the published sizes."""

import pytest

from data import chestmnist, chestxray14, chexpert, label_tree, plco
from data.datasets import DATASETS
from data.phantom import labels as phantom_labels
from data.phantom import layouts

MODULES = {
    "chestxray14": chestxray14,
    "chestmnist": chestmnist,
    "chexpert": chexpert,
    "plco": plco,
}


def test_every_reader_module_has_a_record():
    assert DATASETS.keys() == MODULES.keys()
    assert all(name == record.name for name, record in DATASETS.items())


@pytest.mark.parametrize("name", DATASETS)
def test_a_record_is_consistent(name):
    record = DATASETS[name]
    assert record.read is MODULES[name].read
    assert record.write_layout is getattr(layouts, name)
    assert record.complete == MODULES[name].COMPLETE
    assert record.tree is None or len(record.tree) == len(record.labels)
    names, tree = label_tree.HIERARCHIES[record.hierarchy]
    assert (record.hierarchy_labels, record.hierarchy_tree) == (names, tree)
    assert len(record.prevalence) == len(names)
    assert len(record.uncertain) in (0, len(record.labels))
    assert set(record.labels) - {"No Finding"} <= set(names)
    hash(record)


@pytest.mark.parametrize(
    ("name", "images", "training"),
    [
        ("chestxray14", 112_120, 86_524),
        ("chestmnist", 112_120, 78_468),
        ("chexpert", 223_414 + 234 + 668, 223_414),
        ("plco", round((8_538 + 18_178) / 0.3), round((8_538 + 18_178) / 0.3 * 0.7)),
    ],
)
def test_sizes_are_the_published_ones(name, images, training):
    record = DATASETS[name]
    assert (record.images, record.training) == (images, training)
    assert record.complete_images == images - training * (name == "plco")


def test_released_shares_are_those_of_the_label_files():
    shares = phantom_labels.released_shares("chestxray14")
    assert shares["Hernia"] == pytest.approx(227 / 112_120)
    assert len(shares) == 14
    shares = phantom_labels.released_shares("chexpert")
    assert shares["Edema"] == pytest.approx(0.268 - 0.6 * 0.058)
    assert not {"No Finding", "Lung Opacity", "Consolidation"} & set(shares)
    assert set(phantom_labels.released_shares("plco")) == set(DATASETS["plco"].labels)
