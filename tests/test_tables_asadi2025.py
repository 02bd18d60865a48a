"""asadi2025's tables: equal epochs of two runs, and the authors' predictions as a row."""

import pandas as pd
import pytest

from reproduce.engine.options import Options
from reproduce.engine.rows import Data
from reproduce.tables import asadi2025 as tables
from reproduce.tables import scoring


def test_same_until_counts_epochs_with_equal_rates():
    one = pd.DataFrame({"learning_rate": [1, 1, 0.9, 0.9]})
    other = pd.DataFrame({"learning_rate": [1, 1, 1]})
    assert tables._same_until(one, other) == 2
    assert tables._same_until(one, one) == 4


def test_the_authors_predictions_are_scored_as_a_row(shared_data, tmp_path):
    folder = shared_data / "released"
    options = Options(results_dir=tmp_path, dataset="chexpert", released=folder)
    real = Data(pd.DataFrame(), None, {"dataset": "chexpert"})
    authors = tables.authors(real, options)
    scored = scoring.score(authors, tables.groups, resamples=20)
    table = scored["HBCE (authors' predictions)"].table.set_index(["group", "metric"])["value"]
    assert table["mean", "AUC"] == pytest.approx(0.8823, abs=5e-5)
    assert table["weighted mean", "AUC"] == pytest.approx(0.9047, abs=5e-5)
