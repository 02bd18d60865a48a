"""Test passes: dropout is repeatable and independent of other images; augmented draws."""

import keras
import numpy as np
import pytest

from evaluation import probabilities
from models import ModelError, classifier, inference


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return classifier.build("tiny", 3, 32, head="asadi2025", dropout=0.5)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 32, 32, 1)).astype(np.uint8)


def batches(images: np.ndarray, size: int = 4):
    return lambda **draw: (images[at : at + size] for at in range(0, len(images), size))


def test_passes_differ_and_repeat(model, images):
    outputs = inference.DropoutPasses(3)(model, batches(images), 4)
    assert outputs.shape == (3, 10, 3)
    assert (outputs.std(axis=0) > 0).all()
    np.testing.assert_array_equal(inference.DropoutPasses(3)(model, batches(images), 4), outputs)
    assert not np.array_equal(
        inference.DropoutPasses(3, seed=1)(model, batches(images), 4), outputs
    )


def test_an_image_gets_the_same_whatever_stands_beside_it(model, images):
    outputs = inference.DropoutPasses(2)(model, batches(images), 4)
    turned = inference.DropoutPasses(2)(model, batches(images[::-1]), 4)
    np.testing.assert_allclose(turned[:, ::-1], outputs, atol=1e-6)


def test_the_network_stays_as_it_was(model, images):
    weights, plain = model.get_weights(), inference.single_pass(model, batches(images), 4)
    inference.DropoutPasses(2)(model, batches(images), 4)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(inference.single_pass(model, batches(images), 4), plain)


def test_the_mean_of_many_passes_is_what_the_plain_network_says(model, images):
    """The layer after the dropout is linear, so dropout does not change the expectation."""
    many = inference.DropoutPasses(400)(model, batches(images[:2], 2), 2)
    plain = inference.single_pass(model, batches(images[:2], 2), 2)[0]
    error = many.std(axis=0) / 400**0.5
    assert (np.abs(many.mean(axis=0) - plain) < 4 * error).all()


def test_compiled_networks_drop_too_and_networks_without_dropout_say_so(model, images):
    model.compile("adam", "mse")
    assert inference.DropoutPasses(2)(model, batches(images[:4]), 4).shape == (2, 4, 3)
    with pytest.raises(ModelError, match="tiny has no Dropout layer"):
        inference.DropoutPasses(2)(classifier.build("tiny", 3, 32), batches(images), 4)


def test_softmax_and_sigmoid_by_hand():
    logits = np.log([[1, 2, 5], [3, 3, 2]])
    np.testing.assert_allclose(
        probabilities.softmax(logits), [[1 / 8, 1 / 4, 5 / 8], [3 / 8, 3 / 8, 1 / 4]]
    )
    np.testing.assert_allclose(probabilities.softmax(logits + 1000), probabilities.softmax(logits))
    np.testing.assert_allclose(probabilities.sigmoid(np.log([1, 3, 1 / 3])), [0.5, 0.75, 0.25])
    float32 = np.float32([20, 20.5])
    assert np.diff(probabilities.sigmoid(float32)) > 0
    assert probabilities.sigmoid(float32).dtype == np.float64


def test_the_last_batch_may_be_smaller(model, images):
    whole = inference.single_pass(model, batches(images, 10), 10)
    cut = inference.single_pass(model, batches(images, 4), 4)  # 4, 4 and 2
    assert cut.shape == (1, 10, 3)
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_augmented_passes_ask_for_a_draw_each(model, images):
    asked = []

    def draws(augment, draw):
        asked.append((augment, draw))
        return batches(images + np.uint8(draw))()

    outputs = inference.AugmentedPasses("flip", 3)(model, draws, 4)
    assert asked == [("flip", 0), ("flip", 1), ("flip", 2)]
    for draw in range(3):
        expected = inference.single_pass(model, batches(images + np.uint8(draw)), 4)[0]
        np.testing.assert_array_equal(outputs[draw], expected)


@pytest.fixture(scope="module")
def normalising() -> keras.Model:
    """Return a network whose output shows if BatchNormalization uses the batch statistics."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Reshape((2, 1))(inputs))
    return keras.Model(inputs, keras.layers.Dropout(0.5)(keras.layers.Flatten()(hidden)))


def test_by_image_each_is_normalised_by_itself_and_nothing_is_learnt(normalising):
    images = np.array([[0.0, 2.0], [10.0, 50.0], [-3.0, -1.0]], np.float32)
    before = [np.array(variable) for variable in normalising.variables]
    outputs = inference.DropoutPasses(40, by_image=True)(normalising, batches(images, 2), 2)
    assert outputs.shape == (40, 3, 2)
    kept = np.abs(outputs[outputs != 0])  # 1 and -1 after normalising, doubled by the dropout
    np.testing.assert_allclose(kept, 2, rtol=1e-2)
    for variable, value in zip(normalising.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    together = inference.DropoutPasses(40)(normalising, batches(images, 2), 2)
    assert np.abs(together).max() > 20  # by the statistics that were learnt: 0 and 1
