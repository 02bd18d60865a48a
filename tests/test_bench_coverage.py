"""Test the simulation of coverage: its truths and its correlations."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from bench import coverage


def test_labels_and_scores_have_the_true_values():
    rng = np.random.default_rng(0)
    drawn = [coverage.draw(rng, 400, 0.85) for _ in range(200)]
    label, first, second, _ = (np.concatenate(each) for each in zip(*drawn, strict=True))
    assert label.mean() == pytest.approx(400 / coverage.IMAGES, abs=0.005)
    assert roc_auc_score(label, first) == pytest.approx(0.85, abs=0.003)
    assert roc_auc_score(label, second) == pytest.approx(0.85 - coverage.GAIN, abs=0.003)
    assert average_precision_score(label, first) == pytest.approx(
        coverage.true_ap(400, 0.85), abs=0.01
    )


def test_images_of_a_patient_are_correlated():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(20_000), 2)
    pairs = coverage.normal(rng, patient, 0.4).reshape(-1, 2)
    assert np.corrcoef(pairs.T)[0, 1] == pytest.approx(0.4, abs=0.02)


def test_several_seeds_cover_and_patients_alone_do_not():
    lines = coverage.of_seeds(60).splitlines()
    ratio, seeds, alone, printed = (cell.strip() for cell in lines[-3].split("|")[1:-1])
    assert (ratio, seeds) == ("4", "2")
    assert int(alone) < 60
    assert int(printed) > 85
