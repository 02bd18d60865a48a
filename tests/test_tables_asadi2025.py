"""asadi2025's tables: equal epochs of two runs, and the authors' predictions as a row."""

import pandas as pd
import pytest

from data import labels
from reproduce import RunError
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


def test_the_authors_predictions_stand_beside_no_other_dataset(tmp_path):
    options = Options(results_dir=tmp_path, dataset="chestxray14", released=tmp_path)
    real = Data(pd.DataFrame(), None, {"dataset": "chestxray14"})
    with pytest.raises(RunError, match="do not belong beside chestxray14: leave --released out"):
        tables.authors(real, options)


@pytest.mark.parametrize(
    ("needed", "low", "high", "verdict"),
    [
        (3, [0.01, 0.02, -0.01], [0.1, 0.1, 0.1], "within noise"),
        (2, [0.01, 0.02, -0.01], [0.1, 0.1, -0.005], "holds"),
        (3, [0.01, 0.02, -0.01], [0.1, 0.1, -0.005], "does not hold"),
        (3, [0.01, 0.02, float("nan")], [0.1, 0.1, float("nan")], "within noise"),
    ],
)
def test_gains_are_judged_by_their_intervals(needed, low, high, verdict):
    gaps = pd.DataFrame({"low": low, "high": high}, index=["Opacity", "Mass", "Hernia"])
    judged = tables.judge_gains(gaps, needed)
    assert judged["ours"] == verdict
    assert judged["margin"] == "2 of 3 rise in the whole interval"
    named = "Opacity, Mass, Hernia" if needed == 3 else "the 3 findings"
    assert judged["our_note"] == f"judged by this dataset's own labels: {named}"


def test_groups_name_the_dataset_of_the_labels():
    names = [group.name for group in tables.groups(labels.CHESTXRAY14_HIERARCHY)]
    assert names == [
        "mean",
        "weighted mean",
        "mean of the 14 ChestX-ray14 labels",
        "weighted mean of the 14 ChestX-ray14 labels",
    ]
    assert [group.name for group in tables.groups(labels.ASADI[:14])] == [
        "mean of the 14 CheXpert labels",
        "weighted mean of the 14 CheXpert labels",
    ]
