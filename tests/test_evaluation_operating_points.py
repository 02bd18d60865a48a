import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_score

from evaluation import EvaluationError, operating_points
from evaluation.operating_points import Rule, choose, measures, outcomes, parse

TARGET = np.array([[1], [1], [0], [1], [0], [0], [0], [1.0]])
SCORE = np.array([[0.9], [0.8], [0.7], [0.6], [0.5], [0.4], [0.3], [0.2]])


def test_thresholds_by_hand():
    # sensitivity and specificity from the top: .25/1, .5/1, .5/.75, .75/.75, .75/.5, .75/.25, .75/0
    assert choose(TARGET, SCORE, Rule("youden")) == [0.8]  # .5 + 1 = .75 + .75: the higher one
    assert choose(TARGET, SCORE, Rule("specificity", 0.75)) == [0.6]
    assert choose(TARGET, SCORE, Rule("specificity", 1)) == [0.8]
    assert choose(TARGET, SCORE, Rule("sensitivity", 0.75)) == [0.6]
    assert choose(TARGET, SCORE, Rule("sensitivity", 0.9)) == [0.2]


def test_nothing_is_called_present_where_no_threshold_is_specific_enough():
    target, score = np.array([[0], [1.0]]), np.array([[0.9], [0.1]])
    assert choose(target, score, Rule("specificity", 1)) == [np.inf]
    made = measures(outcomes(target, score, np.array([np.inf])).sum(axis=0))
    assert (made["sensitivity"], made["specificity"]) == (0, 1)
    assert np.isnan(made["PPV"]).all()


def test_one_class_has_no_threshold_and_is_counted_nowhere():
    target, score = np.array([[1], [1.0]]), np.array([[0.9], [0.1]])
    chosen = choose(target, score, Rule("youden"))
    assert np.isnan(chosen).all()
    assert outcomes(target, score, chosen).sum() == 0


def test_measures_are_scikit_learns():
    generator = np.random.default_rng(1)
    target = (generator.random((300, 1)) < 0.3).astype(float)
    score = generator.random((300, 1))
    table = operating_points.table(target, score, ["Mass"], np.array([0.4]), resamples=50)
    values = table.set_index("metric")
    called = score[:, 0] >= 0.4
    rejected, false, missed, true = confusion_matrix(target[:, 0], called).ravel()
    assert values.loc["PPV", "value"] == pytest.approx(precision_score(target[:, 0], called))
    assert values.loc["F1", "value"] == pytest.approx(f1_score(target[:, 0], called))
    assert values.loc["sensitivity", "value"] == pytest.approx(true / (true + missed))
    assert values.loc["specificity", "value"] == pytest.approx(rejected / (rejected + false))
    assert values.loc["NPV", "value"] == pytest.approx(rejected / (rejected + missed))
    assert list(values.loc["F1", ["TP", "FP", "FN", "TN"]]) == [true, false, missed, rejected]
    assert ((values["low"] <= values["value"]) & (values["value"] <= values["high"])).all()


def test_unknown_targets_are_left_out():
    target = np.array([[1], [0], [np.nan]])
    counts = outcomes(target, np.array([[0.9], [0.1], [0.9]]), np.array([0.5])).sum(axis=0)
    assert counts.tolist() == [[1, 0, 0, 1]]


@pytest.mark.parametrize("text", ["", "youden=1", "sensitivity", "specificity=2", "F1=0.5"])
def test_rules_that_are_unknown_are_refused(text):
    with pytest.raises(EvaluationError, match=r"write youden, sensitivity=0\.9"):
        parse(text)
    assert parse("sensitivity=0.95") == Rule("sensitivity", 0.95)


def test_the_seed_is_0_unless_another_is_given():
    numbers = np.random.default_rng(2)
    targets, scores = (numbers.random((50, 2)) < 0.4).astype(float), numbers.random((50, 2))
    given = targets, scores, ["a", "b"], np.array([0.5, 0.4])
    plain, zero, one = (
        operating_points.table(*given, resamples=30, **seed)
        for seed in ({}, {"seed": 0}, {"seed": 1})
    )
    pd.testing.assert_frame_equal(plain, zero)
    assert not plain.equals(one)
