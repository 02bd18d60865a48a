"""ge2018's tables: the share of normal images that its three AUCs imply."""

import numpy as np
import pandas as pd
import pytest

from data import labels
from evaluation import metrics
from evaluation.predictions import Predictions
from evaluation.probabilities import sigmoid
from reproduce.tables import ge2018 as tables
from reproduce.tables.scoring import Scored


def test_the_implied_share_of_normal_images_is_the_counted_one():
    generator = np.random.default_rng(0)
    targets = (generator.random((4000, 14)) < 0.06).astype(np.float32)
    probabilities = sigmoid(generator.normal(targets, 1))
    of_one_row = Predictions(None, None, None, targets, probabilities[None], {})
    names = list(labels.CHESTXRAY14)
    values = {}
    for group in metrics.ge(metrics.shares(targets, names)):
        view = group.arrays(targets, probabilities, names)
        values[group.name] = float(group.value(metrics.score(*view), names, "AUC"))
    table = pd.DataFrame({"group": values.keys(), "metric": "AUC", "value": values.values()})
    shares = tables.normal_shares({"R18": Scored(table, None, [of_one_row])})
    assert shares.loc["R18", "published"] == pytest.approx(0.583, abs=5e-4)  # from Table 1
    normal = (targets == 0).all(axis=1).sum()
    assert shares.loc["R18", "counted"] == pytest.approx(normal / 4000 / 0.94, abs=0.01)
    assert shares.loc["R18", "ours"] == pytest.approx(shares.loc["R18", "counted"], abs=0.02)
