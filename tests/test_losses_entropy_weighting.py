import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from losses.entropy_weighting import EntropyWeighting, entropy_weighting, with_no_finding
from losses.weighted_bce import weighted_bce
from tests.gradients import values_and_gradients

CLASSES = 15
UNIFORM = np.zeros((1, CLASSES))
ONE_POSITIVE = np.eye(CLASSES)[:1]


def softmax(y):
    e = np.exp(y - y.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("classes", [14, 15])
def test_value_and_sign_of_each_reading_where_training_starts(classes):
    p, z, y = 1 / classes, np.eye(classes)[:1], np.zeros((1, classes))
    slopes = {}
    for reading in ("as_printed", "detached"):
        values, gradients = values_and_gradients(
            lambda x, reading=reading: entropy_weighting(z, x, reading), y
        )
        np.testing.assert_allclose(values, [-p * np.log(p)])
        slopes[reading] = gradients[0, 0]
    # d(-p log p)/dy = -(log p + 1) p (1 - p): positive below 1/e, so descent lowers a positive
    assert slopes["as_printed"] == pytest.approx(-(np.log(p) + 1) * p * (1 - p))
    assert slopes["as_printed"] > 0
    assert slopes["detached"] == pytest.approx(-p * (1 - p))
    assert slopes["detached"] < 0


def test_the_printed_loss_turns_at_one_over_e():
    for p, lowers in ((0.36, True), (0.375, False)):
        y = np.log(np.array([[p, 1 - p]]))
        _, gradients = values_and_gradients(
            lambda x: entropy_weighting(np.array([[1.0, 0.0]]), x), y
        )
        assert (gradients[0, 0] > 0) == lowers


@pytest.mark.parametrize(("reading", "ends"), [("as_printed", (0, 0.01)), ("detached", (0.9, 1))])
def test_descent_from_uniform_ends_where_the_gradient_says(reading, ends):
    y = UNIFORM
    for _ in range(60):
        _, gradients = values_and_gradients(
            lambda x: entropy_weighting(ONE_POSITIVE, x, reading), y
        )
        y = y - 10 * gradients
    assert ends[0] <= softmax(y)[0, 0] <= ends[1]


def test_the_repaired_loss_lets_the_most_frequent_class_take_all():
    """Without evidence from images, p_i grows by p_i (f_i - Σ f_j p_j), so rare classes vanish."""
    frequencies = np.array([0.3, 0.6, 0.1])
    z, y = np.eye(3), np.zeros((1, 3))
    for _ in range(40):
        _, gradients = values_and_gradients(
            lambda x: entropy_weighting(z, ops.repeat(x, 3, axis=0), "detached") * frequencies, y
        )
        p = softmax(y)
        np.testing.assert_allclose(-gradients, p * (frequencies - p @ frequencies), atol=1e-12)
        y = y - 10 * gradients
    assert softmax(y)[0, 1] > 0.97
    assert softmax(y)[0, 2] < 0.01  # its share of the images is 0.1


def test_the_confusion_reading_weights_every_class_by_its_entropy():
    y, z = np.array([[1.0, -1.0, 0.0]]), np.array([[1.0, 0.0, 0.0]])
    p = softmax(y)
    entropy, sigma = -p * np.log(p), 1 / (1 + np.exp(-y))
    values, gradients = values_and_gradients(
        lambda x: entropy_weighting(z, x, "confusion", np.full(3, 2.0), np.full(3, 0.5)), y
    )
    factor = np.where(z == 1, 2.0, 0.5)
    expected = np.sum(entropy * factor * -np.log(np.where(z == 1, sigma, 1 - sigma)))
    np.testing.assert_allclose(values, [expected])
    np.testing.assert_allclose(gradients, entropy * factor * (sigma - z))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["as_printed", "detached", "confusion"]))
def test_unknown_classes_are_as_if_absent(seed, reading):
    generator = np.random.default_rng(seed)
    y = generator.normal(0, 3, (1, 6))
    z = np.where(generator.random((1, 6)) < 0.4, np.nan, generator.integers(0, 2, (1, 6)))
    values, gradients = values_and_gradients(lambda x: entropy_weighting(z, x, reading), y)
    assert np.all(gradients[np.isnan(z)] == 0)
    kept = ~np.isnan(z[0])
    if kept.any():
        part = values_and_gradients(lambda x: entropy_weighting(z[:, kept], x, reading), y[:, kept])
        np.testing.assert_allclose(values, part[0])
        np.testing.assert_allclose(gradients[:, kept], part[1], atol=1e-15)
    else:
        assert values[0] == 0


def test_no_finding_is_the_last_class():
    z = np.array([[0, 0], [1, 0], [np.nan, 0], [np.nan, 1], [0.3, 0]], np.float32)
    expected = [[1], [0], [np.nan], [0], [0.7]]
    ours = ops.convert_to_numpy(with_no_finding(z))
    np.testing.assert_allclose(ours[:, :2], z)
    np.testing.assert_allclose(ours[:, 2:], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("known", "expected"), [(0.5, np.nan), (0.51, 0.49), (0.0, np.nan), (1.0, 0.0)]
)
def test_no_finding_beside_an_unknown_class_needs_a_positive_one(known, expected):
    """A class above one half is a finding; otherwise No Finding depends on the unknown class."""
    ours = ops.convert_to_numpy(with_no_finding(np.array([[known, np.nan]])))
    np.testing.assert_allclose(ours[0, -1], expected)


def test_fifteen_logits_for_fourteen_targets_teach_normal_images():
    z, y = np.zeros((1, 14), np.float32), np.zeros((1, CLASSES), np.float32)
    loss = EntropyWeighting("detached", reduction=None)
    _, gradients = values_and_gradients(lambda x: loss(z, x), y)
    assert gradients[0, -1] < 0  # No Finding rises
    _, without = values_and_gradients(lambda x: loss(z, x), y[:, :14])
    assert np.all(without == 0)  # with 14 classes a normal image teaches nothing


def test_the_combined_loss_adds_eq_1():
    generator = np.random.default_rng(2)
    y = generator.normal(size=(5, 4)).astype(np.float32)
    z = generator.integers(0, 2, (5, 4)).astype(np.float32)
    factors = (np.full(4, 3.0), np.full(4, 0.5))
    combined = EntropyWeighting("as_printed", scale=0.1, factors=factors, reduction=None)
    values, _ = values_and_gradients(lambda x: combined(z, x), y)
    one, _ = values_and_gradients(lambda x: weighted_bce(z, x, *factors), y)
    two, _ = values_and_gradients(lambda x: entropy_weighting(z, x), y)
    np.testing.assert_allclose(values, one + 0.1 * two, rtol=1e-5)
    off = EntropyWeighting("as_printed", scale=0.0, factors=factors, reduction=None)
    np.testing.assert_allclose(values_and_gradients(lambda x: off(z, x), y)[0], one, rtol=1e-6)


def test_the_factors_are_one_unless_given():
    generator = np.random.default_rng(3)
    y = generator.normal(size=(5, 4)).astype(np.float32)
    z = generator.integers(0, 2, (5, 4)).astype(np.float32)
    plain = EntropyWeighting("confusion", reduction=None)
    ones = ops.convert_to_numpy(entropy_weighting(z, y, "confusion", np.ones(4), np.ones(4)))
    np.testing.assert_allclose(ops.convert_to_numpy(plain(z, y)), ones, rtol=1e-6)
    np.testing.assert_allclose(entropy_weighting(z, y, "confusion"), ones, rtol=1e-6)


def test_an_unknown_reading_is_named():
    with pytest.raises(ValueError, match="reading must be one of as_printed, detached, confusion"):
        entropy_weighting(ONE_POSITIVE, UNIFORM, "printed")
