"""Show released predictions beside our rows, only on the same real test images."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from data import labels
from evaluation import metrics
from evaluation.predictions import Predictions
from reproduce.engine.rows import PHANTOMS, Data
from reproduce.tables import authors, released_rows, scoring
from reproduce.tables.scoring import Scored

REAL = Data(pd.DataFrame(), None, {"dataset": "chestxray14"})


def groups(names):
    return metrics.MEAN


@pytest.fixture(scope="module")
def truth(shared_data) -> Predictions:
    """Return 500 images of the CheXNet test list with their labels."""
    label_file = shared_data / "chestxray14-labels" / "Data_Entry_2017_v2020.csv.gz"
    found = authors.read("zech2018", shared_data / "released", label_file).predictions
    rows = np.random.default_rng(0).permutation(len(found.ids))[:500]
    ids = np.array([f"images_003/images/{found.ids[row]}" for row in rows])
    probabilities = np.random.default_rng(1).random((1, 500, 14))
    return Predictions(
        ids, found.patients[rows], found.labels, found.targets[rows], probabilities, {}
    )


def scored(ours: Predictions) -> dict[str, Scored]:
    return {"R18": released_rows._score(ours, groups, 20)}


def add(ours: Predictions, folder, data=REAL):
    options = SimpleNamespace(released=folder, resamples=20)
    return released_rows.add(scored(ours), data, options, groups)


def test_zechs_row_is_his_probabilities_against_our_labels(truth, shared_data):
    _, released = add(truth, shared_data / "released")
    table = released[released_rows.ZECH].table
    predicted = pd.read_csv(
        authors.find("zech2018", shared_data / "released", "preds.csv")[0], index_col=0
    )
    names = [name.rpartition("/")[2] for name in truth.ids]
    probabilities = predicted.loc[names, [f"prob_{name}" for name in labels.CHESTXRAY14]]
    expected = metrics.auroc(truth.targets, probabilities.to_numpy())
    found = table[table["metric"] == "AUC"].set_index("group")["value"][list(labels.CHESTXRAY14)]
    assert found.to_numpy() == pytest.approx(expected, nan_ok=True)
    assert table["note"].str.contains("not trained here").all()


def test_it_stands_in_the_tables_and_in_no_claim(truth, shared_data, tmp_path):
    ours, released = add(truth, shared_data / "released")
    scoring.write("ge2018", tmp_path, ours, REAL, released=released)
    side = pd.read_csv(tmp_path / "table.csv")
    theirs = side[side["row"] == released_rows.ZECH]
    assert set(theirs["verdict"]) == {"released"}
    assert theirs["runs"].isna().all()
    assert released_rows.ZECH not in (tmp_path / "claims.csv").read_text()
    assert f"| {released_rows.ZECH} | not ours |" in (tmp_path / "table.md").read_text()
    values = pd.read_csv(tmp_path / "values.csv")
    assert {*values["row"]} == {"R18", released_rows.ZECH}


def test_phantoms_and_other_test_images_stand_alone(truth, shared_data):
    folder = shared_data / "released"
    assert add(truth, folder, dataclasses.replace(REAL, not_comparable=PHANTOMS))[1] == {}
    training = np.array(["1", *truth.patients[1:]])  # patient 1 is in the CheXNet training list
    ours, released = add(truth._replace(patients=training), folder)
    assert released == {}
    assert not ours["R18"].table["note"].str.contains("rescore").any()


def test_where_the_file_is_missing_the_note_says_how_to_get_it(truth, tmp_path):
    ours, released = add(truth, tmp_path)
    assert released == {}
    assert ours["R18"].table["note"].str.contains("rescore zech2018 --released").all()
