import gzip
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from data import labels, splits
from evaluation import EvaluationError, metrics


def random_case(images=300, count=5, levels=None, seed=0):
    """Return targets with NaN, and scores; `levels` limits their number of values, for ties."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((images, count)) < 0.3).astype(np.float32)
    probabilities = (generator.random((images, count)) + 0.3 * targets) / 1.3
    if levels:
        probabilities = np.round(probabilities * levels) / levels
    targets[generator.random(targets.shape) < 0.1] = np.nan
    return targets, probabilities.astype(np.float32)


def test_hand_worked():
    targets = np.array([[0], [0], [1], [1]], float)
    scores = metrics.score(targets, np.array([[0.1], [0.4], [0.35], [0.8]]))
    assert scores.auc == pytest.approx([0.75])  # 3 of 4 pairs are in order
    assert scores.ap == pytest.approx([(2 / 3 + 1) / 2])  # .35 has one negative above it
    assert (scores.positives, scores.negatives, scores.images) == (2, 2, 4)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 60),
    st.sampled_from([None, 1, 3, 20]),
    st.integers(0, 10_000),
)
def test_agrees_with_scikit_learn(images, levels, seed):
    targets, probabilities = random_case(images, 4, levels, seed)
    scores = metrics.score(targets, probabilities)
    for label, (target, column) in enumerate(zip(targets.T, probabilities.T, strict=True)):
        known = ~np.isnan(target)
        if len(np.unique(target[known])) < 2:
            assert np.isnan(scores.auc[label])
            assert np.isnan(scores.ap[label])
            continue
        auc = roc_auc_score(target[known], column[known])
        ap = average_precision_score(target[known], column[known])
        assert scores.auc[label] == pytest.approx(auc, abs=1e-12)
        assert scores.ap[label] == pytest.approx(ap, abs=1e-12)


def test_one_class_is_nan_left_out_of_means_and_counted():
    targets, probabilities = random_case()
    targets[:, 2] = 0
    scores = metrics.score(targets, probabilities)
    assert np.isnan(scores.auc[2])
    assert np.isnan(metrics.average_precision(targets, probabilities)[2])
    assert scores.positives[2] == 0
    assert metrics.macro_mean(scores.auc) == pytest.approx(np.nanmean(scores.auc))
    assert np.isnan(metrics.macro_mean(np.full(3, np.nan)))
    names = [*"abcde"]
    w = metrics.ge(metrics.shares(targets, names))[1]
    assert np.isnan(w.value(scores, names, "AUC"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_probabilities_that_cannot_be_ranked(bad):
    targets, probabilities = random_case()
    probabilities[7, 3] = bad
    with pytest.raises(EvaluationError, match="row 7, column 3"):
        metrics.score(targets, probabilities)


def test_arrays_that_do_not_fit():
    targets, probabilities = random_case()
    with pytest.raises(EvaluationError, match="average ensemble members"):
        metrics.score(targets, probabilities[None])
    with pytest.raises(EvaluationError, match="0, 1 or NaN"):
        metrics.score(np.where(targets == 1, -1, targets), probabilities)


def test_weighted_and_macro_means():
    auc, positives = np.array([0.9, 0.6, np.nan]), np.array([30, 10, 0])
    assert metrics.macro_mean(auc) == pytest.approx(0.75)
    assert metrics.weighted_mean(auc, positives) == pytest.approx(0.825)


def auc_only(values):
    return metrics.Scores({"AUC": np.array(values)}, np.array([7, 1]), np.array([1, 7]), 8)


def test_w_auc_by_hand():
    # 2 and 4 positives among 10 images of the dataset; the counts of the scored images do not count
    dataset = np.zeros((10, 2))
    dataset[:2, 0] = dataset[:4, 1] = 1
    shares = metrics.shares(dataset, ["a", "b"])
    assert shares == {"a": 0.2, "b": 0.4}
    _, w, normalised, *_ = metrics.ge(shares)
    scored = auc_only([0.5, 1.0])
    assert w.value(scored, ["a", "b"], "AUC") == pytest.approx(0.2 * 0.5 + 0.4 * 1)
    assert w.value(scored, ["b", "a"], "AUC") == pytest.approx(0.4 * 0.5 + 0.2 * 1)
    assert normalised.value(scored, ["a", "b"], "AUC") == pytest.approx(0.5 / 0.6)


@pytest.fixture(scope="module")
def released_labels(shared_data):
    """ChestX-ray14's label file, with lists of its official split."""
    folder = shared_data / "chestxray14-labels"
    table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv.gz")
    findings = table["Finding Labels"].str.get_dummies("|")[list(labels.CHESTXRAY14)]
    official = (folder / "test_list.txt.gz", folder / "chexnet-split/test.txt.gz")
    listed = [gzip.decompress(path.read_bytes()).decode().split() for path in official]
    frame = findings.assign(patient_id=table["Patient ID"].astype(str))
    return frame, *(table["Image Index"].isin(names).to_numpy() for names in listed)


def test_weights_of_w_auc_are_those_of_the_dataset_and_not_of_a_test_set(released_labels):
    """Ge: "w_c with respect to its proportions across the dataset"."""
    frame, official, chexnet = released_labels
    random = (splits.by_patient(frame, seed=0)["split"] == "test").to_numpy()
    findings = frame[list(labels.CHESTXRAY14)].to_numpy()
    sums = [
        sum(metrics.shares(findings[of], labels.CHESTXRAY14).values())
        for of in (slice(None), random, chexnet, official)
    ]
    np.testing.assert_allclose(sums, [0.7240, 0.7494, 0.7376, 1.0629], atol=5e-5)
    w = metrics.ge(metrics.shares(findings, labels.CHESTXRAY14))[1]
    perfect = metrics.Scores({"AUC": np.ones(14)}, np.ones(14), np.ones(14), 9)
    assert w.value(perfect, labels.CHESTXRAY14, "AUC") == pytest.approx(0.7240, abs=5e-5)


def test_diseased_and_normal_negatives_by_hand():
    targets = np.array([[1, 0], [0, 1], [0, 0], [0, np.nan]], float)
    nan = np.nan
    np.testing.assert_array_equal(
        metrics.diseased_negatives(targets), [[1, 0], [0, 1], [nan, nan], [nan, nan]]
    )
    np.testing.assert_array_equal(
        metrics.normal_negatives(targets), [[1, nan], [nan, 1], [0, 0], [nan, nan]]
    )


def test_auc_is_the_mixture_that_reveals_the_split():
    generator = np.random.default_rng(3)
    targets = (generator.random((4000, 6)) < 0.12).astype(float)
    probabilities = generator.random(targets.shape) + targets * generator.random(targets.shape)
    auc, diseased, normal = (
        metrics.auroc(restricted, probabilities)
        for restricted in (
            targets,
            metrics.diseased_negatives(targets),
            metrics.normal_negatives(targets),
        )
    )
    share = metrics.actual_normal_share(targets)
    np.testing.assert_allclose(auc, (1 - share) * diseased + share * normal, atol=1e-12)
    np.testing.assert_allclose(metrics.normal_share(auc, diseased, normal), share, atol=1e-6)
    assert np.isnan(metrics.normal_share(0.8, 0.8, 0.8))


def test_chens_groups_and_both_readings_of_the_condition():
    names = ("leaf a", "leaf b", "Abnormal")
    generator = np.random.default_rng(0)
    abnormal = generator.random(400) < 0.6
    targets = np.stack([abnormal & (generator.random(400) < 0.5) for _ in range(2)] + [abnormal], 1)
    targets = targets.astype(float)
    given_abnormal = (generator.random((400, 2)) + targets[:, :2]) / 2
    root = (generator.random((400, 1)) + targets[:, 2:]) / 2
    probabilities = np.hstack([given_abnormal * root, root])  # unconditional, by the chain rule
    groups = metrics.chen(names[:2], names[2:])
    values = [
        group.value(metrics.score(*group.arrays(targets, probabilities, names)), names, "AUC")
        for group in groups
    ]
    plain = [roc_auc_score(targets[:, i], probabilities[:, i]) for i in range(3)]
    rows = abnormal
    unconditional = [roc_auc_score(targets[rows, i], probabilities[rows, i]) for i in range(2)]
    conditional = [roc_auc_score(targets[rows, i], given_abnormal[rows, i]) for i in range(2)]
    expected = [np.mean(plain[:2]), plain[2], np.mean(unconditional), np.mean(conditional)]
    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert abs(values[2] - values[3]) > 0.01  # the two readings differ


def test_a_group_of_given_images_by_hand():
    """Of four images the first three: one positive above one of two negatives."""
    targets = np.array([[1.0], [0], [0], [0]])
    probabilities = np.array([[0.5], [0.4], [0.6], [0.1]])
    group = metrics.Group("some", images=np.array([True, True, True, False]))
    view = group.arrays(targets, probabilities, ["a"])
    assert group.value(metrics.score(*view), ["a"], "AUC") == 0.5
    assert group.view != metrics.Group("all").view
    with pytest.raises(EvaluationError, match="among 4 images was given for 3"):
        group.arrays(targets[:3], probabilities[:3], ["a"])


def test_conditioning_on_an_impossible_label_gives_zero():
    np.testing.assert_array_equal(
        metrics.conditioned(np.array([[0.2, 0.4], [0.0, 0.0]]), 1), [[0.5, 1], [0, 0]]
    )


def test_a_group_names_the_labels_that_are_missing():
    with pytest.raises(EvaluationError, match=r"'leaf' needs \['c'\]"):
        metrics.Group("leaf", ("a", "c")).columns(("a", "b"))


def test_roc_curve_passes_once_through_tied_scores():
    false, true = metrics.roc_curve(
        np.array([1, 0, 1, 0, np.nan]), np.array([0.9, 0.5, 0.5, 0.1, 0.7])
    )
    assert false.tolist() == [0, 0, 1, 2]
    assert true.tolist() == [0, 1, 2, 2]


def reader(false_alarms, hits, negatives=4, positives=4):
    """Return decisions on negative, then positive images, with this many alarms and hits."""
    return np.concatenate(
        [np.arange(negatives) < false_alarms, np.arange(positives) < hits]
    ).astype(float)[:, None]


@pytest.mark.parametrize(
    ("false_alarms", "hits", "below"),
    [
        (1, 1, 1),  # under the curve
        (0, 2, 0),  # a point of the curve: equalled, not beaten
        (1, 2, 1),  # right of it on the flat part: as many hits with fewer false alarms
        (0, 1, 1),  # straight below it: more hits with as many false alarms
        (1, 3, 0),  # above the flat part
        (3, 3, 0),  # on the slope between two points, which ties make: neither beats it
        (3, 2, 1),  # under the slope
        (4, 4, 0),  # the curve's end
        (0, 0, 1),  # calling nothing, where the model finds two without a false alarm
    ],
)
def test_readers_under_a_curve_with_flat_and_sloping_parts(false_alarms, hits, below):
    targets = np.repeat([0.0, 1.0], 4)[:, None]
    scores = np.array([0.6, 0.6, 0.4, 0.4, 0.9, 0.8, 0.4, 0.4])[:, None]
    # the curve: (0, 1), (0, 2), (2, 2), then in one step to (4, 4)
    decisions = reader(false_alarms, hits)[None]
    assert metrics.under_curve(targets, scores, decisions) == [[below]]
    strictly = 0 if (false_alarms, hits) == (1, 2) else below  # the only point on the flat part
    assert metrics.under_curve(targets, scores, decisions, flat=False) == [[strictly]]


def test_readers_without_a_curve_are_nan():
    targets = np.zeros((8, 1))
    assert np.isnan(metrics.under_curve(targets, reader(1, 1), reader(1, 1)[None])).all()


def test_operating_points():
    targets = np.repeat([0.0, 1.0], 4)[:, None]
    false, true = metrics.operating_points(targets, reader(1, 3))
    assert (false, true) == ([0.25], [0.75])


def test_released_predictions_give_the_published_number_of_readers(shared_data):
    """Pham §4.6: 2.6 of 3, from the authors' own predictions on the CheXpert test set."""
    folder = shared_data / "released" / "chexpert-test"
    read = {
        name: pd.read_csv(folder / f"{name}.csv")[[*labels.CHEXPERT_COMPETITION]].to_numpy(float)
        for name in (
            "groundtruth",
            "hieupham_predictions",
            "radiologists/bc4",
            "radiologists/bc6",
            "radiologists/bc8",
        )
    }
    targets, probabilities, *readers = read.values()
    below = metrics.under_curve(targets, probabilities, np.stack(readers))
    assert below.sum(axis=0).tolist() == [2, 3, 2, 3, 3]
    strictly = metrics.under_curve(targets, probabilities, np.stack(readers), flat=False)
    assert strictly.sum(axis=0).tolist() == [2, 3, 1, 3, 3]  # a mean of 2.4
    auc = metrics.auroc(targets, probabilities)
    np.testing.assert_allclose(auc, [0.8913, 0.9406, 0.8996, 0.9219, 0.9680], atol=5e-5)


def test_a_network_that_gives_every_image_the_same_has_collapsed():
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, 3))

    def probabilities(logits):
        return 1 / (1 + np.exp(-logits))

    assert not metrics.collapsed(probabilities(logits))
    assert metrics.collapsed(np.full((200, 3), 0.2))
    assert metrics.collapsed(np.zeros((200, 3)))
    assert metrics.collapsed(np.ones((200, 3)))
    assert metrics.collapsed(probabilities(logits * 1e-6 - 3))
    one_label_left = logits * [0, 0, 1]
    assert not metrics.collapsed(probabilities(one_label_left))
    assert not metrics.collapsed(probabilities(logits - 20))  # rare, but told apart
    assert not metrics.collapsed(1 - probabilities(logits - 20))
    outlier = np.full((200, 3), 0.2)
    outlier[7] = 0.9
    assert metrics.collapsed(outlier)
    assert not metrics.collapsed(np.full((1, 3), 0.2))  # one image tells nothing
    assert metrics.collapsed(np.full((2, 3), 0.2))
    members = np.stack([np.full((200, 3), 0.2), probabilities(logits)])
    assert not metrics.collapsed(members)
    assert metrics.collapsed(members[[0, 0]])


@pytest.mark.parametrize(("width", "expected"), [(0.0099, True), (0.0101, False)])
def test_collapse_begins_at_one_hundredth_of_the_logit(width, expected):
    """The quantiles of 101 evenly spaced logits are the second and the last but one."""
    logits = np.linspace(-0.5, 0.5, 101) * width * 100 / 98
    assert metrics.collapsed(1 / (1 + np.exp(-logits))[:, None]) == expected


def below_by_segments(false, true, false_alarms, hits):
    """Compute `under_curve` of one reader from the curve's segments in exact fractions."""
    heights = [t for f, t in zip(false, true, strict=True) if f == false_alarms]
    for k in range(len(false) - 1):
        width = int(false[k + 1] - false[k])
        if width and false[k] <= false_alarms <= false[k + 1]:
            share = Fraction(int(false_alarms - false[k]), width)
            heights.append(true[k] + share * int(true[k + 1] - true[k]))
    beaten = any(t >= hits and f < false_alarms for f, t in zip(false, true, strict=True))
    return beaten or hits < max(heights)


def test_readers_under_random_curves_by_their_segments():
    """Ties make sloping segments of every width, and random readers cover all of them."""
    random = np.random.default_rng(5)
    for _ in range(60):
        target = (random.random(14) < 0.5).astype(float)
        target[:2] = 0, 1
        score = random.integers(0, 5, 14).astype(float)
        false, true = metrics.roc_curve(target, score)
        for _ in range(12):
            decisions = (random.random(14) < random.random()).astype(float)
            alarms, hits = (int(decisions[target == value].sum()) for value in (0, 1))
            result = metrics.under_curve(target[:, None], score[:, None], decisions[None, :, None])
            assert result.item() == below_by_segments(false, true, alarms, hits)


def test_the_share_of_normal_images_among_negatives_by_hand():
    """Only image 3 has no finding; labels a and b have three negatives, label c has one."""
    targets = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0.0]])
    np.testing.assert_allclose(metrics.actual_normal_share(targets), [1 / 3, 1 / 3, 1])
    assert np.isnan(metrics.actual_normal_share(np.ones((3, 1)))).all()
