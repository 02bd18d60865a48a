"""wang2017: one factor for all labels, counted over the training images, and a random split."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from data import labels
from evaluation import published
from reproduce import wang2017
from reproduce.engine.rows import Data


@pytest.fixture
def data() -> Data:
    frame = pd.DataFrame(0.0, index=range(6), columns=list(labels.CHESTXRAY14))
    frame.loc[[0, 1, 5], "Effusion"] = 1.0  # two of the four training images, and a test image
    frame["split"] = ["train"] * 4 + ["val", "test"]
    return Data(frame, None, {"dataset": "chestxray14"})


def test_one_factor_for_all_labels_by_hand(data):
    """Two of 4 x 14 training labels are positive: 54/56 for positives, 2/56 for negatives."""
    weighted, plain = wang2017.rows(wang2017.Config(), data)
    loss = weighted.loss()
    np.testing.assert_allclose(np.ravel(loss.positive), 54 / 56)
    np.testing.assert_allclose(np.ravel(loss.negative), 2 / 56)
    assert type(plain.loss()).__name__ == "MaskedBCE"
    assert weighted.fit is plain.fit


def test_the_published_row_is_ours_and_settings_reach_the_rows(data):
    printed = published.load("wang2017")
    assert wang2017.rows(wang2017.Config(), data)[0].name in set(printed["row"])
    config = dataclasses.replace(wang2017.Config(), epochs=3, learning_rate=1e-3, backbone="tiny")
    for row in wang2017.rows(config, data):
        assert row.network == {"backbone": "tiny"}
        assert (row.fit.epochs, row.fit.learning_rate(2, [])) == (3, 1e-3)
