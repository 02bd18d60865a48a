import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation import bootstrap, delong, metrics


def slow_delong(target, scores):
    """Return AUCs and covariance matrix of the models in `scores` (models, n) in O(n²)."""
    positive, negative = scores[:, target == 1], scores[:, target == 0]
    kernel = (positive[:, :, None] > negative[:, None]) + 0.5 * (
        positive[:, :, None] == negative[:, None]
    )
    by_positive, by_negative = kernel.mean(axis=2), kernel.mean(axis=1)
    covariance = np.cov(by_positive) / positive.shape[1] + np.cov(by_negative) / negative.shape[1]
    return kernel.mean(axis=(1, 2)), covariance


def random_case(images, levels, seed):
    generator = np.random.default_rng(seed)
    target = (generator.random(images) < 0.4).astype(float)
    target[:4] = 0, 0, 1, 1
    scores = generator.normal(target, 1, (2, images))
    scores[1] += scores[0]
    return target, np.round(scores * levels) / levels if levels else scores


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.sampled_from([None, 1, 4]), st.integers(0, 1000))
def test_equals_the_printed_form(images, levels, seed):
    target, scores = random_case(images, levels, seed)
    auc, covariance = slow_delong(target, scores)
    fast = delong.compare(target[:, None], scores[0][:, None], scores[1][:, None])
    assert fast.first == pytest.approx(auc[:1], abs=1e-12)
    assert fast.second == pytest.approx(auc[1:], abs=1e-12)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert fast.variance == pytest.approx([variance], abs=1e-12)
    if variance > 1e-9:
        assert fast.z == pytest.approx([(auc[1] - auc[0]) / np.sqrt(variance)], rel=1e-6)
    single, low, high = delong.interval(target[:, None], scores[0][:, None])
    assert single == pytest.approx(auc[:1])
    assert high - low <= 2 * 1.959964 * np.sqrt(covariance[0, 0]) + 1e-9


def test_hand_worked():
    # Positives .9 and .4, negatives .5 and .1: shares 1 and .5, and .5 and 1: variance .125 twice.
    targets, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.4], [0.5], [0.1]])
    auc, low, high = delong.interval(targets.astype(float), scores)
    assert auc == pytest.approx([0.75])
    assert low == pytest.approx([0.75 - 1.959964 * np.sqrt(0.125)])
    assert high == [1]  # clipped


def test_images_of_a_patient_by_hand():
    """The case above, where one patient has the positive .9 and the negative .5.

    Its sums are (1 - .75) / 2 and (.5 - .75) / 2, so the covariance is 3 / 2 * .125 * -.125.
    """
    targets, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.4], [0.5], [0.1]])
    _, low, _ = delong.interval(targets.astype(float), scores, ["a", "b", "a", "c"])
    assert low == pytest.approx([0.75 - 1.959964 * np.sqrt(0.125 - 2 * 1.5 * 0.125**2)])
    # both positives are of one patient: a second patient with it is needed
    _, low, _ = delong.interval(targets.astype(float), scores, ["a", "a", "b", "c"])
    assert np.isnan(low)


def test_one_image_per_patient_is_delongs():
    target, scores = random_case(200, 5, 1)
    arrays = target[:, None], scores[0][:, None], scores[1][:, None]
    own = delong.compare(*arrays, [f"patient {number}" for number in range(200)])
    assert own.variance == pytest.approx(delong.compare(*arrays).variance, rel=1e-12)


def test_clustered_variance_is_that_of_the_bootstrap_over_patients():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(500), 4)
    target = (rng.normal(size=500)[patient] + rng.normal(size=2000) > 1.2).astype(float)[:, None]
    noise = rng.normal(size=(2, 500))[:, patient] + rng.normal(size=(2, 2000))
    one, two = (0.8 * target + each[:, None] for each in noise)
    draws = [bootstrap.scores(target, score, patient, 2000).auc[:, 0] for score in (one, two)]
    clustered = np.sqrt(delong.compare(target, one, two, patient).variance[0])
    assert clustered == pytest.approx(np.std(draws[1] - draws[0]), rel=0.06)
    assert clustered > 1.1 * np.sqrt(delong.compare(target, one, two).variance[0])


def test_auc_is_the_exact_one_with_unknown_targets():
    target, scores = random_case(200, 5, 0)
    target[::7] = np.nan
    fast = delong.compare(target[:, None], scores[0][:, None], scores[1][:, None])
    assert fast.first == pytest.approx(metrics.auroc(target[:, None], scores[0][:, None]))


def test_identical_ranks_give_p_one():
    target, scores = random_case(50, None, 0)
    twice = scores[0][:, None]
    fast = delong.compare(target[:, None], twice, np.exp(twice))
    assert (fast.difference, fast.z, fast.p, fast.low, fast.high) == (0, 0, 1, 0, 0)


def test_zero_variance_with_a_difference_is_undefined():
    target = np.array([[0], [0], [1], [1]], float)
    fast = delong.compare(target, np.full((4, 1), 0.5), target)
    assert fast.difference == [0.5]
    assert fast.variance == [0]
    assert np.isnan([fast.z, fast.p, fast.low, fast.high]).all()


@pytest.mark.parametrize("target", [[0, 0, 0, 0], [0, 0, 0, 1], [np.nan, 0, 1, 1]])
def test_too_few_of_a_class(target):
    fast = delong.compare(np.array(target)[:, None], np.eye(4)[:, :1], np.eye(4)[:, 1:2])
    assert np.isnan(fast.p).all()


def test_agrees_with_the_bootstrap_on_independent_images():
    target, scores = random_case(2000, None, 1)
    arrays = target[:, None], scores[0][:, None], scores[1][:, None]
    fast = delong.compare(*arrays)
    resampled = bootstrap.compare(*arrays, ("a",), groups=(), resamples=1000).iloc[0]
    assert resampled["difference"] == pytest.approx(fast.difference[0])
    width = fast.high[0] - fast.low[0]
    assert resampled["high"] - resampled["low"] == pytest.approx(width, rel=0.1)


def test_p_is_uniform_where_models_are_equal():
    generator = np.random.default_rng(0)
    target = np.tile((np.arange(200) < 80).astype(float)[:, None], 400)  # 400 labels, all null
    scores = generator.normal(target, 1, (2, 200, 400))
    p = delong.compare(target, *scores).p
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p < 0.5) == pytest.approx(0.5, abs=0.08)


def test_adjusted_p_values_by_hand():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(delong.holm(p), [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(delong.benjamini_hochberg(p), [0.02, 0.04, np.nan, 0.04, 0.02])
    assert np.isnan(delong.holm(np.array([np.nan]))).all()
    assert delong.holm(np.array([0.6, 0.7])).tolist() == [1, 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusting_orders_the_corrections(p):
    p = np.array(p)
    plain, fdr, fwer = p, delong.benjamini_hochberg(p), delong.holm(p)
    np.testing.assert_allclose(fdr, stats.false_discovery_control(p), atol=1e-12)
    assert (plain <= fdr + 1e-12).all()
    assert (fdr <= fwer + 1e-12).all()
    assert (fwer <= np.minimum(p * len(p), 1) + 1e-12).all()  # never stricter than Bonferroni
    order = np.argsort(p)
    assert (np.diff(fwer[order]) >= 0).all()


def test_table_has_one_line_a_label():
    target, scores = random_case(80, None, 0)
    arrays = (np.stack([array, array], 1) for array in (target, *scores))
    table = delong.table(*arrays, ("a", "b"))
    assert table["label"].tolist() == ["a", "b"]
    assert table["p_holm"].tolist() == pytest.approx((2 * table["p"]).clip(upper=1).tolist())
    assert table["p_bh"].tolist() == pytest.approx(table["p"].tolist())
