"""Test that the fused layers give Keras' numbers, and are used where possible."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models import classifier, fast

STOCK = keras.layers.BatchNormalization
BCE = keras.losses.BinaryCrossentropy(from_logits=True)


def normalise(layer_class, x, *, trainable=True, training=True, mask=None, **options):
    """Return output, gradients of a weighted sum, and moving statistics of one call."""
    layer = layer_class(**options)
    layer.build(x.shape)
    draw = np.random.default_rng(1)
    layer.set_weights([draw.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    layer.trainable = trainable
    x = tf.convert_to_tensor(x)
    upstream = tf.constant(draw.normal(size=x.shape), layer.compute_dtype)
    parameters = [weight.value for weight in (layer.gamma, layer.beta) if weight is not None]
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=training, mask=mask)
        loss = tf.reduce_sum(tf.cast(outputs * upstream, "float64"))
    gradients = tape.gradient(loss, [x, *parameters])
    statistics = [layer.moving_mean.numpy(), layer.moving_variance.numpy()]
    return outputs.numpy(), [gradient.numpy() for gradient in gradients], statistics


def images(*shape, mean=0.5, deviation=2.0):
    return np.random.default_rng(0).normal(mean, deviation, shape).astype("float32")


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, n) for n in (5, 7, 7, 9)]),
    mean=st.floats(-20, 20),
    deviation=st.floats(0.1, 20),
    center=st.booleans(),
    scale=st.booleans(),
    momentum=st.floats(0, 1),
    epsilon=st.sampled_from([1e-6, 1e-5, 1.001e-5, 1e-3]),
)
def test_training_equals_stock(shape, mean, deviation, **options):
    x = images(*shape, mean=mean, deviation=deviation)
    stock, fused = normalise(STOCK, x, **options), normalise(fast.BatchNormalization, x, **options)
    exact = normalise(STOCK, x.astype("float64"), dtype="float64", **options)

    def error(result, part):
        wanted, got = (np.concatenate([np.ravel(a) for a in r[part]]) for r in (exact, result))
        return np.abs(got - wanted).max() / max(1, np.abs(wanted).max())

    for part in range(3):  # outputs, gradients, moving statistics
        # one rounding apart: of few values, drawn at random, one may err by 2.1 times as much
        assert error(fused, part) <= max(1e-6, 3 * error(stock, part))


def test_moving_statistics_of_one_value_a_channel():
    """n = 1 has no unbiased variance; the average must move towards 0, not to NaN."""
    layer = fast.BatchNormalization(momentum=0.75)
    layer(np.full((1, 1, 1, 2), 4.0, "float32"), training=True)
    np.testing.assert_array_equal(layer.moving_mean, [1, 1])
    np.testing.assert_array_equal(layer.moving_variance, [0.75, 0.75])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_equals_stock(precision):
    x = images(8, 6, 6, 5)
    (y, gradients, statistics), (y_fused, gradients_fused, statistics_fused) = (
        normalise(kind, x, dtype=precision) for kind in (STOCK, fast.BatchNormalization)
    )
    assert y_fused.dtype == y.dtype == keras.dtype_policies.get(precision).compute_dtype
    digits = 2**-8 if "bfloat16" in precision else 2**-11
    np.testing.assert_allclose(y_fused.astype(float), y.astype(float), rtol=digits, atol=digits)
    for ours, stock in zip(statistics_fused, statistics, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-6)
    for ours, stock in zip(gradients_fused, gradients, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=4 * digits, atol=4 * digits)


@pytest.mark.parametrize(
    ("shape", "call", "options"),
    [
        ((4, 6, 6, 3), {}, {"renorm": True}),
        ((4, 3, 6, 6), {}, {"axis": 1}),
        ((4, 6), {}, {}),
        ((4, 6, 6, 3), {"mask": np.eye(6, dtype=bool)[None].repeat(4, 0)}, {}),
        ((4, 6, 6, 3), {"training": False}, {}),
        ((4, 6, 6, 3), {"trainable": False}, {}),
    ],
    ids=["renorm", "channels-first", "2-D", "mask", "inference", "frozen"],
)
def test_everything_else_is_kerass_own_to_the_bit(shape, call, options):
    x = images(*shape)
    stock, fused = (
        normalise(kind, x, **call, **options) for kind in (STOCK, fast.BatchNormalization)
    )
    for part in range(3):
        for ours, keras_own in zip(fused[part], stock[part], strict=True):
            np.testing.assert_array_equal(ours, keras_own)


def train(optimizer, steps=6, amplitude=1.0, dtype="float32"):
    """Return variables with optimizer state, and operations, of steps with random gradients."""
    draw = np.random.default_rng(2)
    variables = [keras.Variable(draw.normal(size=s), dtype=dtype) for s in ((3, 4), (5,), ())]
    optimizer.build(variables)

    @tf.function
    def step(*gradients):
        optimizer.apply(list(gradients), variables)

    for _ in range(steps):
        step(*[tf.constant(amplitude * draw.normal(size=v.shape), dtype) for v in variables])
    graph = step.get_concrete_function(*[tf.TensorSpec(v.shape, dtype) for v in variables]).graph
    values = [v.numpy() for v in (*variables, *optimizer.variables)]
    names = [operation.type for operation in graph.get_operations()]
    return values, names


def largest_difference(ones, others) -> float:
    return max(np.abs(a - b).max() for a, b in zip(ones, others, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)},
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"weight_decay": 0.1},
        {"clipnorm": 0.5},
        {"global_clipnorm": 0.5},
        {"clipvalue": 0.2},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
        {"loss_scale_factor": 64.0},
        {"gradient_accumulation_steps": 2},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_adam_equals_stock(options):
    options = {"learning_rate": 0.1, **options}
    values, names = train(fast.Adam(**options))
    stock, stock_names = train(keras.optimizers.Adam(**options))
    if "gradient_accumulation_steps" not in options:  # there the update lies inside a branch
        assert names.count("ResourceApplyAdam") == 3
    assert "ResourceApplyAdam" not in stock_names
    # Stock rounds 1 - beta_2 in one place and not in the other, which is 7e-6 of every step.
    assert largest_difference(values, stock) < 1e-5


def test_adam_is_nearer_to_its_equation_than_stock():
    """Compare with Kingma and Ba's update in float64 on the gradients that `train` draws."""
    draw = np.random.default_rng(2)
    shapes = ((3, 4), (5,), ())
    variables = [draw.normal(size=shape) for shape in shapes]
    first, second = ([np.zeros(shape) for shape in shapes] for _ in range(2))
    for step in range(1, 7):
        for i, gradient in enumerate([draw.normal(size=shape) for shape in shapes]):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            rate = 0.1 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            variables[i] = variables[i] - rate * first[i] / (np.sqrt(second[i]) + 1e-7)
    values, _ = train(fast.Adam(0.1))
    stock, _ = train(keras.optimizers.Adam(0.1))
    ours, keras_own = (largest_difference(result[:3], variables) for result in (values, stock))
    assert ours < 1e-6 < keras_own


def test_adam_under_dynamic_loss_scaling():
    """float16 training wraps the optimizer; steps that overflow must not change the weights."""

    def scaled(kind):
        return keras.optimizers.LossScaleOptimizer(kind(0.1), initial_scale=2.0**15)

    values, _ = train(scaled(fast.Adam), amplitude=2.0**15)
    stock, _ = train(scaled(keras.optimizers.Adam), amplitude=2.0**15)
    assert largest_difference(values, stock) < 1e-5
    assert not np.array_equal(values[0], train(scaled(fast.Adam), steps=0)[0][0])
    held, _ = train(scaled(fast.Adam), steps=2, amplitude=np.inf)
    untouched, _ = train(scaled(fast.Adam), steps=0)
    for name in range(3):
        np.testing.assert_array_equal(held[name], untouched[name])


@pytest.mark.parametrize(
    ("options", "dtype"),
    [({"amsgrad": True}, "float32"), ({}, "float64"), ({}, "bfloat16")],
    ids=["amsgrad", "float64", "bfloat16"],
)
def test_what_adam_cannot_fuse_is_kerass_own_to_the_bit(options, dtype):
    values, names = train(fast.Adam(0.1, **options), dtype=dtype)
    stock, _ = train(keras.optimizers.Adam(0.1, **options), dtype=dtype)
    assert "ResourceApplyAdam" not in names
    assert largest_difference(values, stock) == 0


def test_sparse_gradients_are_kerass_own():
    table = keras.Variable(np.ones((4, 2), "float32"))
    other = keras.Variable(np.ones((4, 2), "float32"))
    rows = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([0, 2]), tf.constant([4, 2]))
    for kind, variable in ((fast.Adam, table), (keras.optimizers.Adam, other)):
        optimizer = kind(0.1)
        optimizer.build([variable])
        optimizer.apply([rows], [variable])
    np.testing.assert_allclose(table, other, rtol=1e-6)
    assert table.numpy()[0, 0] != 1


def fitted(is_fast: bool, steps=3, **options) -> tuple[keras.Model, list[float]]:
    keras.utils.set_random_seed(3)
    model = classifier.build("tiny", 4, 32, fast=is_fast, **options)
    adam = (fast.Adam if is_fast else keras.optimizers.Adam)(1e-3)
    model.compile(adam, BCE)
    if is_fast:
        fast.build_optimizer(model)
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (8 * steps, 32, 32, 1)).astype("uint8")
    y = draw.uniform(size=(8 * steps, 4)).astype("float32")
    losses = []
    watch = keras.callbacks.LambdaCallback(on_batch_end=lambda _, logs: losses.append(logs["loss"]))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[watch])
    return model, losses


@pytest.fixture(scope="module")
def fast_run() -> tuple[keras.Model, list[float]]:
    return fitted(True)


def test_a_network_trains_as_stock_and_shares_its_files(fast_run, tmp_path):
    (ours, losses), (stock, stock_losses) = fast_run, fitted(False)
    assert losses[0] == pytest.approx(stock_losses[0], abs=1e-6)
    assert losses == pytest.approx(stock_losses, rel=1e-4)
    assert [w.path for w in ours.weights] == [w.path for w in stock.weights]

    def state(model):
        x = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 1)).astype("uint8")
        variables = [v.numpy() for v in (*model.weights, *model.optimizer.variables)]
        return [*variables, model.predict(x, verbose=0)]

    before = state(ours), state(stock)
    assert largest_difference(*before) > 0  # rounding: or swapping them would prove nothing
    ours.save_weights(tmp_path / "fast.weights.h5")
    stock.save_weights(tmp_path / "stock.weights.h5")
    ours.load_weights(tmp_path / "stock.weights.h5")
    stock.load_weights(tmp_path / "fast.weights.h5")
    for got, wanted in zip((stock, ours), before, strict=True):
        assert largest_difference(state(got), wanted) == 0
    ours.load_weights(tmp_path / "fast.weights.h5")


def test_the_fused_operations_are_used(fast_run):
    def operations(model):
        traced = tf.function(lambda x: model(x, training=True))
        graph = traced.get_concrete_function(tf.zeros((2, 32, 32, 1))).graph
        return [operation.type for operation in graph.get_operations()]

    assert operations(fast_run[0]).count("FusedBatchNormV3") == 12
    assert "FusedBatchNormV3" not in operations(classifier.build("tiny", 4, 32, fast=False))
    resnet = classifier.build("resnet18", 4, 32)  # its epsilon is 1e-5, torchvision's
    assert operations(resnet).count("FusedBatchNormV3") == 20


def test_training_is_repeatable_to_the_bit(fast_run):
    assert largest_difference(fast_run[0].get_weights(), fitted(True)[0].get_weights()) == 0


def test_the_step_is_traced_once():
    traces = []

    def loss(targets, logits):
        traces.append(1)
        return BCE(targets, logits)

    for early, times in ((True, 1), (False, 2)):
        traces.clear()
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(fast.Adam(), loss)
        if early:
            fast.build_optimizer(model)
        model.fit(np.zeros((4, 3)), np.zeros((4, 2)), batch_size=4, verbose=0)
        assert len(traces) == times


SEVERAL_DEVICES = """
import keras, numpy as np, tensorflow as tf
from models import fast
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
x = np.random.default_rng(0).normal(size=(16, 4, 4, 3)).astype("float32")
y = np.random.default_rng(1).uniform(size=(16, 2)).astype("float32")
weights = []
for is_fast in (True, False):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        keras.utils.set_random_seed(0)
        layers = keras.layers
        model = keras.Sequential([layers.BatchNormalization(), layers.Flatten(), layers.Dense(2)])
        model.build((None, 4, 4, 3))
        if is_fast:
            fast.use_fast_layers(model)
        model.compile((fast.Adam if is_fast else keras.optimizers.Adam)(1e-2), "mse")
        fast.build_optimizer(model)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    weights.append(model.get_weights())
worst = max(np.abs(a - b).max() for a, b in zip(*weights))
assert worst < 1e-6, worst
"""


def test_several_devices_of_one_host():
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL_DEVICES], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
