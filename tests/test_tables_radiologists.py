"""Test the AUC of radiologists, and how many of them lie below a curve."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from data.labels import CHEXPERT_COMPETITION as FIVE
from evaluation import predictions
from evaluation.metrics import Group
from evaluation.predictions import Predictions
from reproduce.engine.rows import Combined, Run
from reproduce.tables import pham2019, radiologists, scoring

TARGETS = np.array([[1, 1], [1, 0], [1, 0], [1, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]])
CALLS = np.array([[1, 1], [1, 0], [1, 0], [0, 0], [1, 1], [1, 1], [0, 1], [0, 0], [0, 0], [0, 0]])


def found(targets=TARGETS) -> Predictions:
    ids = np.arange(len(targets)).astype(str)
    scores = np.linspace(0.9, 0.1, 2 * len(targets)).reshape(len(targets), 2)
    return Predictions(ids, ids, np.array(["Edema", "Mass"]), targets * 1.0, scores[None], {})


def test_the_auc_of_a_radiologist_is_the_area_of_two_segments():
    """Edema: 3 of 4 seen, 2 of 6 false alarms: (1 + 3/4 - 1/3) / 2. Mass: (1 + 1 - 3/9) / 2."""
    table = radiologists.auc_of_each(found(), {"bc4": CALLS * 1.0}, resamples=50, seed=0)
    values = table.set_index(["group", "metric"])["value"]
    edema, mass = (1 + 3 / 4 - 1 / 3) / 2, (2 - 1 / 3) / 2
    assert values["Edema", "AUC of bc4"] == pytest.approx(edema)
    assert values["Mass", "AUC of bc4"] == pytest.approx(mass)
    assert values["mean", "AUC of bc4"] == pytest.approx((edema + mass) / 2)
    for label, name in enumerate(("Edema", "Mass")):  # of a score with two values, all the same
        area = roc_auc_score(TARGETS[:, label], CALLS[:, label])
        assert values[name, "AUC of bc4"] == pytest.approx(area)
    assert (table["low"] <= table["value"]).all()
    assert (table["high"] >= table["value"]).all()


def test_each_radiologist_has_a_column_of_their_own():
    readers = {"bc4": CALLS * 1.0, "bc6": TARGETS * 1.0, "bc8": 1.0 - TARGETS}
    table = radiologists.auc_of_each(found(), readers, resamples=20, seed=0)
    assert table["metric"].unique().tolist() == ["AUC of bc4", "AUC of bc6", "AUC of bc8"]
    means = table[table["group"] == "mean"]["value"].to_numpy()
    np.testing.assert_allclose(means[1:], [1, 0])


def test_a_label_with_one_class_has_no_area_and_is_left_out_of_the_mean():
    targets = TARGETS * 1.0
    targets[:, 1] = 0
    table = radiologists.auc_of_each(found(targets), {"bc4": CALLS * 1.0}, 20, 0)
    values = table.set_index("group")["value"]
    assert np.isnan(values["Mass"])
    assert values["mean"] == values["Edema"]


def test_below_the_curve_counts_radiologists_per_label_and_on_average():
    good = found()._replace(probabilities=(TARGETS + np.linspace(0, 0.1, 10)[:, None])[None] / 2)
    readers = {"bc4": CALLS * 1.0, "bc6": TARGETS * 1.0}
    table = radiologists.below_curve(good, readers, resamples=20, seed=0)
    assert table["value"].tolist() == [1, 1, 1]  # the curve only equals the perfect reader
    assert table["group"].tolist() == ["Edema", "Mass", "mean"]
    # of Mass, bc4 sees the one case with false alarms: on the flat top of a perfect curve
    assert table["note"].tolist() == ["", "", f".50 {radiologists.WITHOUT_FLAT}"]


def test_the_public_test_set_has_a_column_for_each_radiologist(tmp_path):
    random = np.random.default_rng(0)
    targets = (random.random((40, 5)) < 0.4).astype(float)
    studies = np.array([f"patient{k}/study1" for k in range(40)])
    model = Predictions(studies, studies, np.array(FIVE), targets, random.random((1, 40, 5)), {})
    run = Run(Combined("ensemble", ()), 0, tmp_path / "ensemble" / "seed-0", {})
    predictions.save(run.folder / "predictions-public.npz", model)
    scored = scoring.score([run], lambda names: [Group("mean", FIVE)], 20, "predictions-public")
    readers = {
        name: pd.DataFrame(random.integers(0, 2, (40, 5)), studies, list(FIVE))
        for name in ("bc4", "bc6", "bc8")
    }
    table = pham2019.beside_radiologists(tmp_path, scored, "ensemble", readers, 20, False)
    page = (tmp_path / "public.md").read_text()
    heading = "|  | AUC | radiologists below the curve | AUC of bc4 | AUC of bc6 | AUC of bc8 |"
    assert heading in page
    assert radiologists.AUC_NOTE in page
    assert f"Mean radiologists below the curve: {table['note'].iloc[11]}." in page
    assert table["note"].iloc[11].endswith(radiologists.WITHOUT_FLAT)
    saved = pd.read_csv(tmp_path / "public-radiologists.csv").set_index(["group", "metric"])
    assert len(saved) == 4 * 6
    area = roc_auc_score(targets[:, 0], readers["bc6"].to_numpy()[:, 0])
    assert saved["value"][FIVE[0], "AUC of bc6"] == pytest.approx(area)
    assert f"| {FIVE[0]} |" in page
    assert len(table) == 5 * 6
    alone = pham2019.beside_radiologists(tmp_path, scored, "ensemble", {}, 20, False)
    assert {*alone["metric"]} == {"AUC"}
    assert radiologists.AUC_NOTE not in (tmp_path / "public.md").read_text()
