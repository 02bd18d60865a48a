"""Test the properties that all losses share."""

import keras
import numpy as np
import pytest
from keras import ops

from data import label_tree
from losses.entropy_weighting import EntropyWeighting
from losses.hierarchical import HLCP, HLUP
from losses.hierarchical_penalty import HierarchicalPenalty, fixed
from losses.masking import MaskedBCE
from losses.multilabel_softmax import MultilabelSoftmax
from losses.weighted_bce import WeightedBCE
from tests.gradients import values_and_gradients

TREE = ((), (0,), (0, 1), (1,))
PARENTS, ANCESTORS = label_tree.parent_matrix(TREE), label_tree.ancestor_matrix(TREE)
FACTORS = (np.array([3.0, 2.0, 1.0, 4.0]), np.array([0.5, 1.0, 1.5, 0.25]))
LOSSES = {
    "masked_bce": lambda **k: MaskedBCE(**k),
    "masked_bce mean": lambda **k: MaskedBCE("mean", **k),
    "weighted_bce": lambda **k: WeightedBCE(*FACTORS, **k),
    "hlcp": lambda **k: HLCP(PARENTS, **k),
    "hlup exact": lambda **k: HLUP(ANCESTORS, **k),
    "hlup powerset": lambda **k: HLUP(ANCESTORS, "powerset", **k),
    "hlup maximum": lambda **k: HLUP(ANCESTORS, "maximum", **k),
    "hlup naive": lambda **k: HLUP(ANCESTORS, "naive", **k),
    "hlup rescale": lambda **k: HLUP(ANCESTORS, "rescale", labels="mean", **k),
    "msml": lambda **k: MultilabelSoftmax(**k),
    "msml as_printed": lambda **k: MultilabelSoftmax("as_printed", **k),
    "entropy as_printed": lambda **k: EntropyWeighting(**k),
    "entropy detached": lambda **k: EntropyWeighting("detached", **k),
    "entropy combined": lambda **k: EntropyWeighting("detached", 0.5, FACTORS, **k),
    "entropy confusion": lambda **k: EntropyWeighting("confusion", 1.0, FACTORS, **k),
    "penalty as_released": lambda **k: HierarchicalPenalty(fixed(PARENTS), "as_released", **k),
    "penalty": lambda **k: HierarchicalPenalty(fixed(PARENTS), **k),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


def batch(images=16, spread=3.0, seed=0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, spread, (images, 4)).astype(np.float32)
    targets = generator.choice([0, 1, 1, np.nan], (images, 4)).astype(np.float32)
    targets[0] = [1, 0, 1, np.nan]
    return targets, logits


@every_loss
def test_extreme_logits_give_finite_values_and_gradients(make):
    signs = np.array(np.meshgrid(*[[-100.0, 0.0, 100.0]] * 4)).reshape(4, -1).T.astype(np.float32)
    generator = np.random.default_rng(0)
    targets = generator.choice([0, 1, np.nan], signs.shape).astype(np.float32)
    loss = make(reduction=None)
    values, gradients = values_and_gradients(lambda y: loss(targets, y), signs)
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(gradients))
    assert np.all(values >= -1e-5 * 400)  # only the paper's power set goes below 0, by rounding


@every_loss
def test_an_image_of_unknown_labels_gives_no_loss_and_no_gradient(make):
    targets, logits = batch()
    targets[3] = np.nan
    loss = make(reduction=None)
    values, gradients = values_and_gradients(lambda y: loss(targets, y), logits)
    assert values[3] == 0
    assert np.all(gradients[3] == 0)
    assert np.count_nonzero(values) > 4
    assert np.count_nonzero(gradients) > 12


@every_loss
def test_sample_weights_scale_images_and_the_batch_is_their_mean(make):
    targets, logits = batch()
    values = ops.convert_to_numpy(make(reduction=None)(targets, logits))
    weights = np.linspace(0, 2, len(values)).astype(np.float32)
    weighted = ops.convert_to_numpy(make()(targets, logits, sample_weight=weights))
    np.testing.assert_allclose(weighted, np.mean(values * weights), rtol=1e-5)


@every_loss
def test_config_survives_saving_the_model(make, tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    model.compile("sgd", make(name="kept"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.name == "kept"
    assert loaded.loss.get_config() == model.loss.get_config()
    targets, logits = batch()
    ours = ops.convert_to_numpy(model.loss(targets, logits))
    np.testing.assert_array_equal(ours, ops.convert_to_numpy(loaded.loss(targets, logits)))


@every_loss
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_logits_are_computed_in_float32(make, kind):
    targets, logits = batch(spread=30)
    half = ops.cast(logits, kind)
    value = make(reduction="sum")(ops.cast(targets, kind), half)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    wide = make(reduction="sum")(targets, ops.cast(half, "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(value), ops.convert_to_numpy(wide))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["masked_bce", "hlcp", "hlup exact", "msml", "penalty"])
def test_training_under_a_half_precision_policy_learns(name, policy):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(4, dtype=policy)(inputs))
    optimizer = keras.optimizers.SGD(0.1)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**12)
    model.compile(optimizer, LOSSES[name]())
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 6)).astype(np.float32)
    z = np.where(generator.random((64, 4)) < 0.2, np.nan, x[:, :4] > 0).astype(np.float32)
    losses = model.fit(x, z, epochs=4, batch_size=16, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0]


# a detached weight is no derivative
DERIVATIVES = [name for name in LOSSES if not name.startswith("entropy") or "printed" in name]


@pytest.mark.parametrize("name", DERIVATIVES)
def test_gradients_agree_with_finite_differences(name):
    targets, logits = batch(images=6, spread=1.5, seed=4)
    loss = LOSSES[name](reduction=None, dtype="float64")
    logits = logits.astype(np.float64)
    _, gradients = values_and_gradients(lambda y: loss(targets, y), logits)
    for label in range(4):
        step = np.eye(4)[label] * 1e-5
        up, down = (ops.convert_to_numpy(loss(targets, logits + s)) for s in (step, -step))
        np.testing.assert_allclose(gradients[:, label], (up - down) / 2e-5, atol=1e-8)
