import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from evaluation import EvaluationError, uncertainty


def calibrated(images=20_000, seed=0):
    generator = np.random.default_rng(seed)
    probabilities = generator.random((images, 2))
    return (generator.random(probabilities.shape) < probabilities).astype(float), probabilities


def test_brier():
    targets, probabilities = calibrated(500)
    expected = [brier_score_loss(targets[:, i], probabilities[:, i]) for i in range(2)]
    np.testing.assert_allclose(uncertainty.brier(targets, probabilities), expected)
    targets[::2] = np.nan
    expected = [brier_score_loss(targets[1::2, i], probabilities[1::2, i]) for i in range(2)]
    np.testing.assert_allclose(uncertainty.brier(targets, probabilities), expected)
    assert np.isnan(uncertainty.brier(np.full((3, 1), np.nan), np.zeros((3, 1)))).all()


def test_calibration_error_by_hand():
    # Two bins: (.2, .4) with 1 of 2 positive: |.5 - .3| = .2; (.6, 1) with 2 of 2: |1 - .8| = .2.
    targets, probabilities = np.array([[0], [1], [1], [1]]), np.array([[0.2], [0.4], [0.6], [1.0]])
    error = uncertainty.calibration_error(targets.astype(float), probabilities, bins=2)
    assert error == pytest.approx([0.2])


def test_spread_and_entropy():
    members = np.array([[[0.2, 0.5]], [[0.4, 0.5]]])
    np.testing.assert_allclose(uncertainty.spread(members), [[0.1, 0]])
    entropy = uncertainty.entropy(np.array([0, 0.5, 1, 0.25]))
    np.testing.assert_allclose(entropy, [0, 1, 0, 0.811278], atol=1e-6)


def test_errors_and_their_detection():
    targets = np.array([[1, 0], [0, np.nan], [1, 1], [0, 0]], float)
    probabilities = np.array([[0.9, 0.6], [0.6, 0.1], [0.4, 0.9], [0.5, 0.2]])
    wrong = uncertainty.errors(targets, probabilities)
    np.testing.assert_array_equal(wrong, [[0, 1], [1, np.nan], [1, 0], [0, 0]])
    spread = np.array([[0.1, 0.3], [0.3, 0.0], [0.05, 0.1], [0.2, 0.4]])
    expected = roc_auc_score(wrong[:, 0], spread[:, 0])
    areas = uncertainty.error_detection(targets, probabilities, spread)
    np.testing.assert_allclose(areas, [expected, 0.5])


def test_risk_coverage_by_hand():
    wrong, uncertain = np.array([0, 1, 0, 1, np.nan]), np.array([0.1, 0.4, 0.2, 0.2, 0.0])
    coverage, risk = uncertainty.risk_coverage(wrong, uncertain)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 0.25, 1 / 3, 0.5])  # the tied pair counts half each
    area = uncertainty.risk_coverage_area(wrong[:, None], uncertain[:, None])
    assert area == pytest.approx([np.mean(risk)])


def test_one_known_image_is_covered_wholly():
    coverage, risk = uncertainty.risk_coverage(np.array([np.nan, 1]), np.array([0.3, 0.2]))
    assert (coverage.tolist(), risk.tolist()) == ([1], [1])


def test_risk_coverage_area_ranks_useful_uncertainty_first():
    targets, probabilities = calibrated(2000)
    wrong = uncertainty.errors(targets, probabilities)
    oracle, entropy, constant = (
        uncertainty.risk_coverage_area(wrong, by)
        for by in (wrong, uncertainty.entropy(probabilities), np.zeros_like(wrong))
    )
    assert (oracle < entropy).all()
    assert (entropy < constant).all()
    np.testing.assert_allclose(constant, wrong.mean(axis=0))  # no ranking: the error rate
    assert np.isnan(uncertainty.risk_coverage_area(np.full((3, 1), np.nan), np.zeros((3, 1)))).all()


def test_logits_are_refused():
    with pytest.raises(EvaluationError, match="apply the sigmoid"):
        uncertainty.brier(np.zeros((2, 1)), np.array([[0.2], [3.0]]))


def test_reliability_is_scikit_learns_calibration_curve():
    targets, probabilities = calibrated(2000)
    observed, predicted, images = uncertainty.reliability(targets[:, 0], probabilities[:, 0])
    expected = calibration_curve(targets[:, 0], probabilities[:, 0], n_bins=10)
    np.testing.assert_allclose((observed, predicted), expected)
    assert images.sum() == 2000
    targets[:500, 0] = np.nan
    assert uncertainty.reliability(targets[:, 0], probabilities[:, 0])[2].sum() == 1500


def test_temperature_undoes_overconfidence_and_keeps_the_ranking():
    targets, probabilities = calibrated()
    assert uncertainty.temperature(targets, probabilities) == pytest.approx(1, abs=0.03)
    sharp = uncertainty.cooled(probabilities, 0.5)  # logits twice as large
    assert uncertainty.temperature(targets, sharp) == pytest.approx(2, abs=0.06)
    before, after = (
        uncertainty.calibration_error(targets, each).max()
        for each in (sharp, uncertainty.cooled(sharp, uncertainty.temperature(targets, sharp)))
    )
    assert after < 0.02 < 0.09 < before
    assert (np.argsort(sharp[:, 0]) == np.argsort(probabilities[:, 0])).all()
    with pytest.raises(EvaluationError, match="at least one image"):
        uncertainty.temperature(np.full((3, 1), np.nan), np.full((3, 1), 0.5))
