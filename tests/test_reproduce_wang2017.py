"""wang2017: one factor for all labels, counted over the training images, and a random split."""

import dataclasses

import numpy as np
import pandas as pd

from data import labels
from evaluation import published
from reproduce import wang2017


def rows(**settings) -> list:
    config = dataclasses.replace(wang2017.Config(), **settings)
    return wang2017.rows(config, "chestxray14")


def test_one_factor_for_all_labels_by_hand():
    """Two of 4 x 14 training labels are positive: 54/56 for positives, 2/56 for negatives."""
    train = pd.DataFrame(0.0, index=range(4), columns=list(labels.CHESTXRAY14))
    train.loc[[0, 1], "Effusion"] = 1.0
    weighted, plain = rows()
    learnt = weighted.task.targets(train).learnt
    loss = weighted.loss(learnt)
    np.testing.assert_allclose(np.ravel(loss.positive), 54 / 56)
    np.testing.assert_allclose(np.ravel(loss.negative), 2 / 56)
    assert type(plain.loss(learnt)).__name__ == "MaskedBCE"
    assert weighted.fit == plain.fit


def test_the_published_row_is_ours_and_settings_reach_the_rows():
    assert rows()[0].name in set(published.load("wang2017")["row"])
    for row in rows(epochs=3, learning_rate=1e-3, backbone="tiny"):
        assert row.network.backbone == "tiny"
        assert (row.fit.epochs, row.fit.learning_rate(2, [])) == (3, 1e-3)
