"""The real network of every paper can be built, and a trained network is freed before the next."""

import dataclasses
import functools
import gc
import importlib
import json
import weakref

import keras
import numpy as np
import pytest

from losses.hierarchical import HLUP
from models import fast
from reproduce import ge2018
from reproduce.engine import backend, networks
from reproduce.engine.rows import Row, describe
from tests.papers import PAPERS

BYTES_OF_A_NETWORK = 4 * 1024 * 8192
BACKBONES = {
    *("densenet121", "densenet169", "densenet201", "resnet18", "resnet50", "vgg16"),
    *("xception", "inceptionresnetv2", "nasnetlarge"),
    *("vgg16_hidden", "resnet18_cifar", "resnet50_cifar"),
}


def distinct_rows() -> list[Row]:
    """Return one row per network that differs in backbone, head, outputs or pooling."""
    distinct: dict[str, Row] = {}
    for paper, dataset in PAPERS.items():
        script = importlib.import_module(f"reproduce.{paper}")
        for row in script.rows(script.Config(), dataset):
            if isinstance(row, Row):
                network = dataclasses.replace(row.network, size=0)
                key = json.dumps([row.task.width, describe(network)])
                distinct.setdefault(key, row)
    return list(distinct.values())


def is_bilinear(row: Row) -> bool:
    return getattr(row.network.build, "func", None) is ge2018.bilinear


def to_build(row: Row) -> Row:
    """Return a row without initial weights and with a narrow bilinear layer.

    A bilinear layer of 134 million weights is built in the same way as one with fewer.
    """
    network = dataclasses.replace(row.network, weights="none")
    if is_bilinear(row):
        build = functools.partial(network.build, projection=2)
        network = dataclasses.replace(network, build=build)
    return dataclasses.replace(row, network=network)


@pytest.mark.slow
def test_every_real_network_is_built_and_freed():
    rows = distinct_rows()
    assert {row.network.backbone for row in rows} == BACKBONES
    assert any(map(is_bilinear, rows))
    for row in rows:
        model = networks.build(to_build(row), fast_layers=True)
        assert model.output.dtype == "float32"
        outputs = row.task.width  # mo2019 has 15 for 14 labels: No Finding as well
        heads = (outputs, 3 * outputs) if is_bilinear(row) else (outputs,)  # two streams: 3 heads
        assert model.output.shape[1] in heads
        size = row.network.size
        assert model.input.shape[1:] == (size, size, 1)
        reference = weakref.ref(model)
        del model
        backend.clear_networks()
        assert reference() is None


def train_a_network(loss) -> list[weakref.ref]:
    """Train a wide layer for one step; return references to the objects that must be freed."""
    inputs = keras.Input((1024,))
    hidden = keras.layers.Dense(8192)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    model.compile(fast.Adam(1e-4), loss, jit_compile=False)
    fast.build_optimizer(model)
    model.fit(np.zeros((2, 1024)), np.zeros((2, 3)), batch_size=2, verbose=0)
    model.predict_on_batch(np.zeros((2, 1024)))
    return [weakref.ref(model), weakref.ref(model.optimizer)]


def graphs() -> int:
    """Return the number of traced steps in memory; each keeps its network's variables."""
    gc.collect()
    return sum(type(each).__name__ == "FuncGraph" for each in gc.get_objects())


def resident() -> int:
    """Return the bytes of memory that this process uses."""
    with open("/proc/self/statm") as counts:
        return int(counts.read().split()[1]) * 4096


@pytest.mark.parametrize("loss", ["mse", HLUP(np.tril(np.ones((3, 3))))], ids=["mse", "hlup"])
def test_a_trained_network_is_freed_before_the_next(loss):
    """Otherwise 100 MB would stay per network: the weights and both of Adam's moments."""
    backend.clear_networks()
    before = graphs()
    references = train_a_network(loss)
    backend.clear_networks()
    memory = resident()  # after the first network, which TensorFlow itself needs memory for
    for _ in range(4):
        references += train_a_network(loss)
        backend.clear_networks()
    assert graphs() <= before
    assert [reference() for reference in references] == [None] * len(references)
    assert resident() - memory < 3 * BYTES_OF_A_NETWORK  # not 4 networks of 3 arrays each


def test_a_network_can_be_trained_after_networks_were_cleared():
    backend.clear_networks()
    train_a_network(HLUP(np.eye(3)))
    backend.clear_networks()
    train_a_network(HLUP(np.eye(3)))
