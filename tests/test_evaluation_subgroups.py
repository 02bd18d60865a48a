import numpy as np
import pytest

from evaluation import EvaluationError, bootstrap, metrics, subgroups


def test_age_bands_sexes_and_views():
    ages = ["058Y", 411, "", 5, "19", "20.0", "nan", 80]
    bands = ["40-59", "unknown", "unknown", "0-19", "0-19", "20-39", "unknown", "80 and over"]
    assert subgroups.age_bands(ages).tolist() == bands
    sexes = subgroups.sexes(["M", "Female", "male", "Unknown", ""])
    assert sexes.tolist() == ["male", "female", "male", "unknown", "unknown"]
    assert subgroups.views(["AP", " PA ", ""]).tolist() == ["AP", "PA", "unknown"]


def test_attributes_are_parsed_once_each_and_unknown_ones_refused():
    assert subgroups.parse("sex, age,sex") == ("sex", "age")
    with pytest.raises(EvaluationError, match="--by 'height' is unknown; use sex, age, view"):
        subgroups.parse("sex,height")


def sample(images=400):
    generator = np.random.default_rng(0)
    targets = (generator.random((images, 2)) < 0.3).astype(float)
    scores = np.clip(0.3 * targets + 0.7 * generator.random((images, 2)), 0, 1)
    sex = np.where(generator.random(images) < 0.4, "female", "male")
    patients = np.arange(images) // 2
    return targets, scores, ["Mass", "Edema"], np.array([0.5, 0.4]), sex, patients


def test_rates_and_gaps_by_hand():
    targets = np.array([[1], [1], [0], [0], [1], [0], [0], [0.0]])
    scores = np.array([[0.9], [0.1], [0.8], [0.2], [0.7], [0.6], [0.1], [0.2]])
    sex = np.array(["female"] * 4 + ["male"] * 4)
    arguments = targets, scores, ["Mass"], np.array([0.5]), {"sex": sex}
    made = subgroups.compare(*arguments, resamples=20)
    values = made.values.set_index(["subgroup", "group", "metric"])["value"]
    assert values["female", "Mass", "FNR"] == 0.5
    assert values["female", "Mass", "FPR"] == 0.5
    assert values["male", "Mass", "FNR"] == 0
    assert values["male", "Mass", "FPR"] == pytest.approx(1 / 3)
    assert values["female", "Mass", "AUC"] == 0.5
    gap = made.gaps.set_index(["group", "metric"])["difference"]
    assert gap["Mass", "FPR"] == pytest.approx(1 / 3 - 1 / 2)
    # three cases say nothing: listed, not tested
    assert made.gaps.set_index(["group", "metric"]).loc["Mass", "p"].isna().all()


def test_each_group_is_scored_as_if_alone_and_gaps_are_paired():
    targets, scores, labels, thresholds, sex, patients = sample()
    arguments = targets, scores, labels, thresholds, {"sex": sex}, patients
    made = subgroups.compare(*arguments, resamples=200)
    women = sex == "female"
    values = made.values.set_index(["subgroup", "group", "metric"])
    expected = metrics.auroc(targets[women], scores[women])
    assert values.loc[("female", "Mass", "AUC"), "value"] == pytest.approx(expected[0])
    assert values.loc[("female", "mean", "AUC"), "value"] == pytest.approx(expected.mean())
    assert values.loc[("female", "Mass", "AUC"), "images"] == women.sum()
    draws = [
        bootstrap.scores(np.where(each[:, None], targets, np.nan), scores, patients, 200).auc
        for each in (women, ~women)
    ]
    gap = made.gaps.set_index(["group", "metric"]).loc[("Mass", "AUC")]
    counts = [bootstrap.patients_of(targets[each], patients[each])[0] for each in (women, ~women)]
    values_of = [metrics.auroc(targets[each], scores[each])[0] for each in (women, ~women)]
    few = [
        bootstrap.few_cases(each[:, 0], value, "AUC", tuple(cases))
        for each, value, cases in zip(draws, values_of, counts, strict=True)
    ]
    low, high = bootstrap.interval(bootstrap.stretch_few(few[1] - few[0], int(np.min(counts))))
    assert (gap["low"], gap["high"]) == (pytest.approx(low), pytest.approx(high))
    assert (made.gaps["p_holm"].dropna() >= made.gaps["p"].dropna()).all()
    tests = int(made.gaps["p"].notna().sum())
    assert tests == len(made.gaps)  # 400 images have enough cases of both labels
    assert made.gaps["p"].between(0, 1).all()
    assert subgroups.multiplicity(made.gaps).startswith(f"{tests} gaps were compared")


def test_a_group_of_another_length_is_refused():
    targets, scores, labels, thresholds, sex, _ = sample()
    with pytest.raises(EvaluationError, match="values of sex"):
        subgroups.compare(targets, scores, labels, thresholds, {"sex": sex[1:]})


def test_unknown_groups_are_listed_but_not_compared():
    targets, scores, labels, thresholds, sex, _ = sample()
    sex = np.where(np.arange(len(sex)) < 50, subgroups.UNKNOWN, sex)
    made = subgroups.compare(targets, scores, labels, thresholds, {"sex": sex}, resamples=20)
    assert subgroups.UNKNOWN in set(made.values["subgroup"])
    assert subgroups.UNKNOWN not in {*made.gaps["first"], *made.gaps["second"]}


def test_means_are_over_the_labels_that_all_groups_have():
    """Group b has one case of the third label, on which it is perfect: it must not count."""
    rng = np.random.default_rng(0)
    group = np.repeat(["a", "b"], 200)
    targets = (rng.random((400, 3)) < 0.3).astype(float)
    targets[200:, 2] = 0
    targets[399, 2] = 1
    scores = rng.random((400, 3))
    scores[399, 2] = 2.0
    names = ["one", "two", "three"]
    made = subgroups.compare(targets, scores, names, np.full(3, 0.5), {"sex": group}, resamples=20)
    assert made.left_out == {"sex": ["three"]}
    values = made.values.set_index(["subgroup", "group", "metric"])["value"]
    for name, inside in (("a", slice(200)), ("b", slice(200, None))):
        expected = metrics.auroc(targets[inside], scores[inside])
        assert values[name, "mean", "AUC"] == pytest.approx(expected[:2].mean())
    assert values["b", "three", "AUC"] == 1
    assert (
        made.values.query("subgroup == 'b' and group == 'three' and metric == 'AUC'")["low"]
        .isna()
        .all()
    )
    gap = made.gaps.set_index(["group", "metric"])["difference"]
    assert gap["mean", "AUC"] == pytest.approx(
        values["b", "mean", "AUC"] - values["a", "mean", "AUC"]
    )
