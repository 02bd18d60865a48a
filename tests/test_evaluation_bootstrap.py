import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import EvaluationError, bootstrap, metrics
from evaluation.metrics import Group

NAMES = ("a", "b", "c")


def random_case(images=200, levels=None, seed=0, rare=False):
    generator = np.random.default_rng(seed)
    targets = (generator.random((images, 3)) < 0.3).astype(np.float32)
    probabilities = (generator.random((images, 3)) + 0.4 * targets) / 1.4
    if levels:
        probabilities = np.round(probabilities * levels) / levels
    targets[generator.random(targets.shape) < 0.1] = np.nan
    if rare:
        targets[:, 1] = np.arange(images) == 5
    return targets, probabilities, generator.integers(0, max(images // 4, 2), images)


@settings(max_examples=15, deadline=None)
@given(st.integers(8, 80), st.sampled_from([None, 2, 10]), st.integers(0, 1000))
def test_equals_scoring_every_resample_anew(images, levels, seed):
    targets, probabilities, patients = random_case(images, levels, seed)
    patients[:2] = 0, 1  # at least two
    fast = bootstrap.scores(targets, probabilities, patients, resamples=20, seed=seed, block=7)

    def by_label(scores):
        return np.stack([*scores.values.values(), scores.positives, scores.negatives], axis=-2)

    def slow(rows):
        return by_label(metrics.score(targets[rows], probabilities[rows]))

    expected = bootstrap.each(slow, patients, resamples=20, seed=seed)  # (20, 4, labels)
    np.testing.assert_allclose(by_label(fast), expected, atol=1e-12)
    images = bootstrap.each(len, patients, resamples=20, seed=seed)
    np.testing.assert_array_equal(fast.images, images)


def test_patients_are_drawn_whole():
    patients = np.repeat(["a", "b", "c"], [1, 2, 3])

    def counts(rows):
        return np.bincount(rows, minlength=6)

    for drawn in bootstrap.each(counts, patients, resamples=50):
        assert drawn[1] == drawn[2]
        assert drawn[3] == drawn[4] == drawn[5]
        assert drawn[0] + drawn[1] + drawn[3] == 3  # as many patients as there are


def test_draws_depend_on_the_seed_and_not_on_the_block_or_the_order_of_images():
    targets, probabilities, patients = random_case()
    one = bootstrap.scores(targets, probabilities, patients, 40, seed=1).auc
    np.testing.assert_array_equal(
        one, bootstrap.scores(targets, probabilities, patients, 40, seed=1, block=3).auc
    )
    shuffled = np.random.default_rng(0).permutation(len(targets))
    arrays = (array[shuffled] for array in (targets, probabilities, patients))
    np.testing.assert_allclose(one, bootstrap.scores(*arrays, 40, seed=1).auc, atol=1e-12)
    assert not np.array_equal(one, bootstrap.scores(targets, probabilities, patients, 40).auc)


def test_every_published_group_has_an_interval_around_its_value():
    targets, probabilities, patients = random_case(600)
    targets = np.nan_to_num(targets)
    shares = metrics.shares(targets, NAMES)
    groups = (*metrics.ge(shares), *metrics.ASADI, *metrics.chen(("a", "b"), ("c",), root="c"))
    table = bootstrap.table(targets, probabilities, NAMES, patients, groups, resamples=200)
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()
    by_name = table.drop_duplicates(["group", "metric"]).set_index(["group", "metric"])["value"]
    scores = metrics.score(targets, probabilities)
    assert by_name["mean", "AUC"] == pytest.approx(scores.auc.mean())
    assert by_name["mean", "AP"] == pytest.approx(scores.ap.mean())
    assert by_name["W", "AUC"] == pytest.approx((scores.auc * scores.positives).sum() / 600)
    assert by_name["W normalised", "AUC"] == pytest.approx(by_name["weighted mean", "AUC"])
    diseased = metrics.auroc(metrics.diseased_negatives(targets), probabilities)
    assert by_name["D", "AUC"] == pytest.approx(diseased.mean())
    rows = targets[:, 2] == 1
    leaf = metrics.auroc(targets[rows, :2], probabilities[rows, :2]).mean()
    assert by_name["leaf given c", "AUC"] == pytest.approx(leaf)
    counts = table[table["group"] == "leaf given c"].iloc[0]
    assert counts["images"] == rows.sum()
    assert counts["positives"] == targets[rows, :2].sum()


def test_interval_covers_the_truth_about_as_often_as_it_says():
    covered = []
    for seed in range(120):
        generator = np.random.default_rng(seed)
        targets = (generator.random((150, 1)) < 0.4).astype(float)
        scores = generator.normal(targets, 1)
        low, high = bootstrap.interval(bootstrap.scores(targets, scores, None, 200).auc)
        covered.append(low < 0.7602 < high)  # Phi(1 / sqrt 2)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_a_label_of_one_patient_has_no_interval_and_leaves_some_resamples_of_the_mean():
    targets, probabilities, patients = random_case(rare=True)
    table = bootstrap.table(targets, probabilities, NAMES, patients, resamples=300)
    table = table[table["metric"] == "AUC"].set_index("group")
    assert table.loc["b", "note"] == f"{bootstrap.NO_INTERVAL} (1 patients)"
    assert table.loc["b", ["low", "high"]].isna().all()
    count, *words = table.loc["mean", "note"].split()
    assert int(count) == pytest.approx(300 * np.exp(-1), rel=0.25)  # one patient has the positive
    assert " ".join(words) == "of 300 resamples lack a label, and average the others"
    assert np.isfinite(table.loc["mean", ["low", "high"]].astype(float)).all()


def test_wilsons_interval_of_seven_in_ten():
    draws = np.random.default_rng(0).binomial(10, 0.7, 4000) / 10
    followed = bootstrap.follow(draws, 0.7, bootstrap.wilson(10))
    assert bootstrap.interval(followed) == pytest.approx((0.3968, 0.8922), abs=0.002)
    order = np.argsort(draws, kind="stable")
    assert (np.diff(followed[order]) >= 0).all()  # the order of the draws stays


def test_newcombes_interval_solves_its_equation_and_reaches_one():
    """With 5 and 5 cases, Hanley and McNeil's variance at .5 is .5 * .5 * (1 + 2 * 4 / 3) / 25."""
    variance = bootstrap.newcombe(5, 5)
    assert variance(np.array(0.5)) == pytest.approx(0.25 * (1 + 4 / 3 + 4 / 3) / 25)
    draws = np.random.default_rng(0).random(10_001)
    low, high = bootstrap.interval(bootstrap.few_cases(draws, 0.8, "AUC", (5, 5)))
    for end in (low, high):
        assert abs(end - 0.8) == pytest.approx(1.96 * np.sqrt(variance(np.array(end))), rel=0.01)
    _, high = bootstrap.interval(bootstrap.few_cases(draws, 1.0, "AUC", (5, 500)))
    assert high == pytest.approx(1)


def test_few_cases_widen_and_too_few_have_no_interval():
    draws = np.random.default_rng(0).normal(0.5, 0.05, 5000)
    for metric in ("AUC", "AP"):
        few = bootstrap.few_cases(draws, 0.5, metric, (10, 900))
        assert np.ptp(bootstrap.interval(few)) > 1.15 * np.ptp(bootstrap.interval(draws))
        assert np.isnan(bootstrap.few_cases(draws, 0.5, metric, (2, 900))).all()
        np.testing.assert_array_equal(
            bootstrap.few_cases(draws, 0.5, metric, (bootstrap.FEW, 900)), draws
        )
    gap = bootstrap.stretch_few(draws - 0.5, 16)  # 1 + 1 / 4 times as wide
    assert np.ptp(bootstrap.interval(gap)) == pytest.approx(
        1.25 * np.ptp(bootstrap.interval(draws)), rel=0.05
    )


def test_cases_are_patients_and_not_images():
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, np.nan], [1, np.nan]])
    counts = bootstrap.patients_of(targets, ["a", "a", "a", "b", "c"])
    assert counts.tolist() == [[2, 2], [1, 1]]


def test_a_label_with_one_class_is_left_out_of_the_mean_and_named():
    targets, probabilities, patients = random_case()
    targets[:, 0] = 0
    table = bootstrap.table(targets, probabilities, NAMES, patients, resamples=20)
    table = table[table["metric"] == "AUC"].set_index("group")
    assert table.loc["a", ["value", "low", "high"]].isna().all()
    assert table.loc["mean", "value"] == pytest.approx(table.loc[["b", "c"], "value"].mean())
    assert table.loc["mean", "note"] == "one class only: a"


def test_paired_differences():
    targets, probabilities, patients = random_case(400)
    better = probabilities + 0.02 * np.nan_to_num(targets)
    table = bootstrap.compare(targets, probabilities, better, NAMES, patients, resamples=300)
    assert (table["difference"] > 0).all()
    assert (table["low"] > 0).all()  # unpaired intervals overlap widely:
    alone = bootstrap.table(targets, better, NAMES, patients, resamples=300)
    assert (alone["low"] < table["first"]).all()
    same = bootstrap.compare(targets, probabilities, probabilities, NAMES, patients, resamples=20)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None)


def test_without_resamples_there_is_no_interval():
    targets, probabilities, patients = random_case()
    table = bootstrap.table(targets, probabilities, NAMES, patients, resamples=0)
    assert table["value"].notna().all()
    assert table[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("patients", "message"),
    [(np.zeros(200), "at least two, but there is 1"), (np.zeros(5), "5 patient ids .* 200 images")],
)
def test_patients_that_cannot_be_resampled(patients, message):
    targets, probabilities, _ = random_case()
    with pytest.raises(EvaluationError, match=message):
        bootstrap.scores(targets, probabilities, patients)


def test_groups_and_labels_must_fit():
    targets, probabilities, _ = random_case()
    with pytest.raises(EvaluationError, match="2 label names"):
        bootstrap.table(targets, probabilities, ("a", "b"))
    with pytest.raises(EvaluationError, match="needs"):
        bootstrap.table(targets, probabilities, NAMES, groups=(Group("leaf", ("z",)),), resamples=0)


def test_a_thousand_resamples_unless_another_number_is_given():
    functions = (bootstrap.scores, bootstrap.each, bootstrap.table, bootstrap.measure)
    for function in (*functions, bootstrap.compare):
        assert inspect.signature(function).parameters["resamples"].default == 1000
        assert inspect.signature(function).parameters["seed"].default == 0


def test_totals_are_the_sums_over_the_images_that_are_drawn():
    values = np.random.default_rng(0).random((30, 4, 2))
    patients = np.arange(30) // 3
    drawn = bootstrap.totals(values, patients, resamples=25, seed=3)
    expected = bootstrap.each(lambda rows: values[rows].sum(axis=0), patients, 25, seed=3)
    assert drawn.shape == (25, 4, 2)
    np.testing.assert_allclose(drawn, expected)
    np.testing.assert_allclose(bootstrap.totals(values[:, 0, 0], patients, 25, 3), drawn[:, 0, 0])


@pytest.mark.parametrize("resamples", [1, 7, 8, 15])
def test_there_are_as_many_resamples_as_asked_for_whatever_the_block(resamples):
    targets, probabilities, patients = random_case(40)
    for block in (1, 7, 64):
        drawn = bootstrap.scores(targets, probabilities, patients, resamples, block=block)
        assert len(drawn.auc) == len(drawn.images) == resamples
        assert (drawn.images > 0).all()


def test_simultaneous_intervals_hold_all_true_values_together():
    """Of 14 equal networks, some pointwise interval misses 0 in about half of the trials."""
    rng = np.random.default_rng(0)
    joint, alone = [], []
    for _ in range(300):
        values = rng.normal(size=14)
        draws = values[:, None] + rng.normal(size=(14, 400))
        low, high = bootstrap.simultaneous(values, draws)
        joint.append(((low <= 0) & (high >= 0)).all())
        ends = np.array([bootstrap.interval(each) for each in draws])
        alone.append(((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).all())
    assert np.mean(joint) == pytest.approx(0.95, abs=0.035)
    assert np.mean(alone) == pytest.approx(0.95**14, abs=0.08)


def test_simultaneous_intervals_of_one_and_of_equal_differences_are_no_wider():
    draws = np.random.default_rng(0).normal(size=(1, 5000))
    low, high = bootstrap.simultaneous(np.zeros(1), draws)
    assert (low[0], high[0]) == bootstrap.interval(draws[0])
    low, high = bootstrap.simultaneous(np.zeros(5), np.repeat(draws, 5, axis=0))
    np.testing.assert_allclose(high, 1.96, rtol=0.04)
    low, high = bootstrap.simultaneous(np.ones(2), np.ones((2, 10)))  # no variance
    assert (low == 1).all()
    assert (high == 1).all()
