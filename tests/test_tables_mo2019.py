"""mo2019's tables: which of the two splits was scored stands below Table I."""

import numpy as np
import pandas as pd
import pytest

from data import labels
from evaluation import predictions
from evaluation.predictions import Predictions
from reproduce import mo2019
from reproduce.engine.options import Options
from reproduce.engine.rows import Combined, Data, Run
from reproduce.tables import mo2019 as tables


@pytest.fixture
def runs(tmp_path) -> list[Run]:
    """The baseline and the proposed loss with random probabilities; the latter has collapsed."""
    random = np.random.default_rng(0)
    targets = (random.random((60, 14)) < 0.3).astype(np.float32)
    made = []
    for name in (mo2019.BASELINE, mo2019.PROPOSED):
        spread = 0.3 if name == mo2019.BASELINE else 1e-6
        folder = tmp_path / "mo2019" / "chestxray14" / name.replace(" ", "-") / "seed-0"
        folder.mkdir(parents=True)
        predicted = Predictions(
            ids=np.arange(60).astype(str),
            patients=np.arange(60).astype(str),
            labels=np.array(labels.CHESTXRAY14),
            targets=targets,
            probabilities=0.5 + spread * random.random((1, 60, 14)),
            meta={"run": "digest"},
        )
        predictions.save(folder / "predictions.npz", predicted)
        made.append(Run(Combined(name, ()), 0, folder, {}, "digest"))
    return made


def write(runs, tmp_path, split, split_file=None) -> str:
    data = Data(pd.DataFrame(), None, {"dataset": "chestxray14"})
    options = Options(
        dataset="chestxray14", resamples=20, results_dir=tmp_path, split_file=split_file
    )
    tables.write(runs, data, options, mo2019.PROPOSED, mo2019.OURS, split)
    return (tmp_path / "mo2019" / "chestxray14" / "table.md").read_text()


def test_the_split_that_was_scored_stands_below_the_table(runs, tmp_path):
    assert "- All of ours: on the official test list, with 1/8" in write(runs, tmp_path, "official")
    text = write(runs, tmp_path, "chexnet")
    assert "- All of ours: on the public 7:1:2 split by patient, CheXNet's" in text
    assert "official" not in text
    assert "7:1:2" not in write(runs, tmp_path, "chexnet", split_file="split.csv.gz")


def test_a_collapsed_row_is_named_below_the_table(runs, tmp_path):
    (line,) = (
        each for each in write(runs, tmp_path, "official").split("\n") if "collapsed" in each
    )
    assert mo2019.PROPOSED in line
    assert mo2019.BASELINE not in line
