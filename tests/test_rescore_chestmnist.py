"""Predictions in MedMNIST's form are scored against an .npz, as MedMNIST scores them."""

import numpy as np
import pandas as pd
import pytest

from data import labels
from evaluation import metrics
from tests import mnist
from tests.rescore_command import rescore

# medmnist.evaluator.getAUC (github.com/MedMNIST/MedMNIST) of the arrays of `arrays`
OF_THEIR_EVALUATOR = 0.7106724222890436


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Return (500, 14) labels and rounded scores, many of them tied."""
    rng = np.random.default_rng(2025)
    truth = (rng.random((500, 14)) < 0.2).astype(int)
    scores = rng.random((500, 14)) * 0.8 + truth * rng.random((500, 14)) * 0.4
    return truth, scores.round(2)


def test_the_mean_auc_is_that_of_medmnists_evaluator():
    truth, scores = arrays()
    ours = metrics.macro_mean(metrics.auroc(truth, scores))
    assert ours == pytest.approx(OF_THEIR_EVALUATOR, abs=1e-15)


@pytest.mark.parametrize("shuffled", [False, True])
def test_predictions_without_a_header(tmp_path, capsys, shuffled):
    truth, scores = arrays()
    listed = mnist.listed().groupby("chexnet").head(500)
    path = mnist.write(tmp_path / "chestmnist.npz", listed, mnist.blank)
    mnist.change(path, test_labels=truth.astype(np.uint8))
    table = pd.DataFrame(scores)
    table = table.sample(frac=1, random_state=0) if shuffled else table
    predictions = tmp_path / "chestmnist_test_[AUC]0.711_[ACC]0.8@model.csv"
    table.to_csv(predictions, header=False)
    results = tmp_path / "out"
    command = ["--predictions", predictions, "--truth", path, "--results-dir", results]
    assert rescore(*command, "--resamples", 20) == 0
    assert "patients unknown (1,500 rows instead of" in capsys.readouterr().err
    (values,) = results.rglob("table.csv")
    mean = pd.read_csv(values).query("group == 'mean' and metric == 'AUC'")["value"]
    assert mean.item() == pytest.approx(OF_THEIR_EVALUATOR, abs=1e-6)


def test_other_numbers_of_columns_are_no_predictions_of_chestmnist(tmp_path, capsys):
    path = mnist.write(tmp_path / "chestmnist.npz", mnist.listed().head(0), mnist.blank)
    (tmp_path / "p.csv").write_text("0,0.1,0.2\n1,0.3,0.4\n")
    assert rescore("--predictions", tmp_path / "p.csv", "--truth", path) == 2
    assert labels.CHESTXRAY14[0] not in capsys.readouterr().out
