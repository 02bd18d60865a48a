import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.masking import masked_bce
from losses.multilabel_softmax import FineGrained, multilabel_softmax
from tests.gradients import values_and_gradients


def by_the_equation(z, y, form):
    """Compute eq. (2) of one image with a loop over its positive labels."""
    exp, negatives = np.exp(y), np.exp(y[z == 0]).sum()
    s = np.array([exp[label] / (exp[label] + negatives) for label in np.flatnonzero(z == 1)])
    if not len(s):
        return 0.0
    return np.mean(s if form == "as_printed" else -np.log(s))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["corrected", "as_printed"]))
def test_equals_the_equation(seed, form):
    generator = np.random.default_rng(seed)
    y = generator.normal(0, 3, (6, 5))
    z = generator.choice([0.0, 1.0, np.nan], (6, 5))
    values, gradients = values_and_gradients(lambda x: multilabel_softmax(z, x, form), y)
    np.testing.assert_allclose(
        values, [by_the_equation(*image, form) for image in zip(z, y, strict=True)], rtol=1e-9
    )
    # only differences of logits count, so a gradient sums to zero over an image
    np.testing.assert_allclose(gradients.sum(axis=1), 0, atol=1e-12)
    assert np.all(gradients[np.isnan(z)] == 0)


def test_hand_worked_gradient():
    # s = 1/4 with three negatives: dE/dx_positive = -(1 - s), dE/dx_negative = s
    z, y = np.array([[1.0, 0.0, 0.0, 0.0]]), np.zeros((1, 4))
    values, gradients = values_and_gradients(lambda x: multilabel_softmax(z, x), y)
    np.testing.assert_allclose(values, [np.log(4)])
    np.testing.assert_allclose(gradients, [[-0.75, 0.25, 0.25, 0.25]])


def test_one_half_is_negative():
    """A target is positive above one half; one half is negative."""
    y = np.array([[0.3, -0.2, 0.7]])
    soft, hard = (
        values_and_gradients(lambda x, z=z: multilabel_softmax(np.array([z]), x), y)
        for z in ([1.0, 0.5, 0.0], [0.51, 0.0, 0.0])
    )
    np.testing.assert_array_equal(soft[0], hard[0])
    np.testing.assert_array_equal(soft[1], hard[1])
    assert soft[0] > 0


def test_eq_5_defaults_are_the_papers():
    loss = FineGrained()
    assert (loss.alpha, loss.beta, loss.form, loss.labels) == (0.2, 0.6, "corrected", "sum")


def test_the_printed_form_pushes_positives_down():
    z, y = np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[0.5, -1.0, 0.2, 0.0]])
    _, corrected = values_and_gradients(lambda x: multilabel_softmax(z, x), y)
    _, printed = values_and_gradients(lambda x: multilabel_softmax(z, x, "as_printed"), y)
    assert np.all(corrected[0, :2] < 0)
    assert np.all(printed[0, :2] > 0)  # minimising it lowers the logits of what is present


def test_images_without_a_positive_or_without_a_negative():
    z = np.array([[0.0, 0.0], [1.0, 1.0], [np.nan, np.nan], [np.nan, 1.0]])
    y = np.array([[3.0, -2.0]] * 4)
    values, gradients = values_and_gradients(lambda x: multilabel_softmax(z, x), y)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(gradients, 0)
    values, gradients = values_and_gradients(lambda x: multilabel_softmax(z, x, "as_printed"), y)
    np.testing.assert_array_equal(values, [0, 1, 0, 1])
    np.testing.assert_array_equal(gradients, 0)


def test_a_wrong_answer_of_any_size_keeps_its_gradient():
    z, y = np.array([[1.0, 0.0]], np.float32), np.array([[-100.0, 100.0]], np.float32)
    values, gradients = values_and_gradients(lambda x: multilabel_softmax(z, x), y)
    np.testing.assert_allclose(values, [200])
    np.testing.assert_allclose(gradients, [[-1, 1]])


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match="form must be one of corrected, as_printed"):
        multilabel_softmax(np.zeros((1, 2)), np.zeros((1, 2)), "printed")


@pytest.mark.parametrize("labels", ["sum", "mean"])
def test_eq_5_weighs_three_losses_on_three_parts(labels):
    generator = np.random.default_rng(4)
    y = generator.normal(size=(6, 12)).astype(np.float32)
    z = generator.choice([0, 1, np.nan], (6, 4)).astype(np.float32)
    loss = FineGrained(0.2, 0.6, labels=labels, reduction=None)
    values, gradients = values_and_gradients(lambda x: loss(z, x), y)
    ce, ce_slope = values_and_gradients(lambda x: masked_bce(z, x, labels), y[:, :4])
    msml, msml_slope = values_and_gradients(lambda x: multilabel_softmax(z, x), y[:, 4:8])
    fce, fce_slope = values_and_gradients(lambda x: masked_bce(z, x, labels), y[:, 8:])
    np.testing.assert_allclose(values, 0.2 * (ce + msml) + 0.6 * fce, rtol=1e-5)
    slopes = np.concatenate([0.2 * ce_slope, 0.2 * msml_slope, 0.6 * fce_slope], axis=1)
    np.testing.assert_allclose(gradients, slopes, atol=1e-6)
    again = FineGrained.from_config(loss.get_config())
    np.testing.assert_array_equal(values, values_and_gradients(lambda x: again(z, x), y)[0])
