import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from evaluation import agreement


def test_kappa_by_hand():
    # 20 both, 5 first only, 10 second only, 15 neither: .7 observed, .5 by chance
    assert agreement.kappa(np.array([20, 5, 10, 15])) == pytest.approx(0.4)
    assert agreement.kappa(np.array([10, 0, 0, 10])) == 1
    assert np.isnan(agreement.kappa(np.array([0, 0, 0, 10])))


def test_kappa_is_scikit_learns_and_blank_readings_are_left_out():
    generator = np.random.default_rng(0)
    first = (generator.random((200, 2)) < 0.4).astype(float)
    second = np.where(generator.random((200, 2)) < 0.8, first, 1 - first)
    second[:20, 0] = np.nan
    table = agreement.table(first, second, ["Mass", "Nodule"], resamples=50).set_index("group")
    expected = cohen_kappa_score(first[20:, 0], second[20:, 0])
    assert table.loc["Mass", "kappa"] == pytest.approx(expected)
    assert table.loc["Nodule", "kappa"] == pytest.approx(
        cohen_kappa_score(first[:, 1], second[:, 1])
    )
    assert table[list(agreement.CELLS)].sum(axis=1).tolist() == [180, 200]
    assert (table["low"] <= table["kappa"]).all()
    assert (table["kappa"] <= table["high"]).all()
