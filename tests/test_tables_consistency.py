"""Test how a row's violations of its hierarchy are counted, on probabilities worked by hand."""

import numpy as np
import pytest

from data import label_tree, labels
from evaluation.predictions import Predictions
from reproduce.tables import consistency
from tests.scored import scores_of

NAMES = labels.CHEXPERT
PARENT, CHILD = NAMES.index("Lung Opacity"), NAMES.index("Edema")


def row_of(pairs: list[tuple[float, float]]):
    """Return a row that predicts (Lung Opacity, Edema), and the same for all other labels."""
    probabilities = np.full((1, len(pairs), len(NAMES)), 0.1)
    probabilities[0][:, [PARENT, CHILD]] = pairs
    for label in (NAMES.index(name) for name in ("Lung Lesion", "Consolidation", "Atelectasis")):
        probabilities[0][:, label] = 0.0
    probabilities[0][:, NAMES.index("Pneumonia")] = 0.0
    ids = np.arange(len(pairs)).astype(str)
    targets = np.zeros((len(pairs), len(NAMES)))
    predicted = Predictions(ids, ids, np.array(NAMES), targets, probabilities, {})
    return scores_of(0.5, [("mean", "AUC")])._replace(predictions=[predicted])


def test_violations_are_per_100_images():
    """Of four images two have Edema above Lung Opacity, by .2 and .4; one contradicts at .5."""
    flat = row_of([(0.4, 0.6), (0.1, 0.5), (0.6, 0.6), (0.9, 0.1)])
    of_product = row_of([(0.4, 0.3), (0.1, 0.1), (0.6, 0.5), (0.9, 0.1)])
    found = consistency.violations({"flat": flat, "product": of_product})
    pairs = int(label_tree.parent_matrix(label_tree.CHEXPERT).sum())
    assert len(found) == 2 * pairs
    table = consistency.summary(found)
    assert table.loc["flat"].tolist() == ["25.0", "50.0", ".300", ".400"]
    assert table.loc["product"].tolist() == ["0.0", "0.0", "n/a", ".000"]


def test_a_row_of_other_labels_is_left_out(tmp_path):
    row = row_of([(0.4, 0.6)])
    (predicted,) = row.predictions
    part = predicted._replace(labels=predicted.labels[:3])
    consistency.write(tmp_path, {"part": row._replace(predictions=[part])})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["consistency.md", "consistency.csv", "violations.csv"])
def test_the_table_is_written(tmp_path, capsys, name):
    consistency.write(tmp_path, {"flat": row_of([(0.4, 0.6)])})
    assert (tmp_path / name).stat().st_size > 50
    assert "per 100 images" in capsys.readouterr().out
