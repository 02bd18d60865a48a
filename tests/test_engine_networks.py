"""Every paper's real networks are built once, and a trained network is freed before the next."""

import gc
import importlib
import weakref
from collections import Counter

import keras
import numpy as np
import pytest

from losses.hierarchical import HLUP
from models import fast
from reproduce.doctor.dataset import handful
from reproduce.engine import backend
from reproduce.engine.rows import Data, Row
from tests.papers import PAPERS

BYTES_OF_A_NETWORK = 4 * 1024 * 8192


def distinct_networks() -> dict[tuple, Row]:
    """One row for each network that differs by backbone, head, outputs or pooling."""
    networks = {}
    for paper, dataset in PAPERS.items():
        script = importlib.import_module(f"reproduce.{paper}")
        config = script.Config()
        for row in script.rows(config, Data(handful(dataset), None, {"dataset": dataset})):
            if isinstance(row, Row):
                cells = row.build.__closure__ if row.build else ()
                built_by = tuple(str(cell.cell_contents) for cell in cells)
                key = (row.task.targets.shape[1], str(sorted(row.network.items())), built_by)
                networks.setdefault(key, (row, config.size))
    return networks


@pytest.mark.slow
def test_every_real_network_is_built_and_freed():
    networks = distinct_networks()
    backbones = Counter(row.network["backbone"] for row, _ in networks.values())
    assert set(backbones) == {
        *("densenet121", "densenet169", "densenet201", "resnet18", "resnet50", "vgg16"),
        *("xception", "inceptionresnetv2", "nasnetlarge"),
    }
    from models import classifier

    freed = []
    for row, size in networks.values():
        # a bilinear layer of 134 million weights is as much a network with fewer
        narrow = {"projection": 2} if row.build else {}
        build = row.build or classifier.build
        settings = {"labels": row.task.targets.shape[1], "size": size, "weights": "none"}
        model = build(**settings | row.network) if not narrow else _narrow(row, settings)
        assert model.output.dtype == "float32"
        outputs = settings["labels"]  # mo2019 has 15 for 14 labels: No Finding besides
        # only a network that the script builds has several heads
        assert model.output.shape[1] in ((outputs, 3 * outputs) if row.build else (outputs,))
        assert model.input.shape[1:] == (size, size, 1)
        reference = weakref.ref(model)
        del model
        backend.clear_networks()
        freed.append(reference() is None)
    assert all(freed)


def _narrow(row: Row, settings: dict) -> keras.Model:
    from models import bilinear

    def build(**given):
        return original(**given | {"projection": 2})

    original, bilinear.build = bilinear.build, build
    try:
        return row.build(**settings | row.network)
    finally:
        bilinear.build = original


def train_a_network(loss) -> list[weakref.ref]:
    """Train a wide layer for a step, as fit.py does; references to what should go."""
    inputs = keras.Input((1024,))
    hidden = keras.layers.Dense(8192)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    model.compile(fast.Adam(1e-4), loss, jit_compile=False)
    fast.build_optimizer(model)
    model.fit(np.zeros((2, 1024)), np.zeros((2, 3)), batch_size=2, verbose=0)
    model.predict_on_batch(np.zeros((2, 1024)))
    return [weakref.ref(model), weakref.ref(model.optimizer)]


def graphs() -> int:
    """Traced steps that are held; each holds its network's variables."""
    gc.collect()
    return sum(type(each).__name__ == "FuncGraph" for each in gc.get_objects())


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as counts:
        return int(counts.read().split()[1]) * 4096


@pytest.mark.parametrize("loss", ["mse", HLUP(np.tril(np.ones((3, 3))))], ids=["mse", "hlup"])
def test_a_trained_network_is_freed_before_the_next(loss):
    """The weights and both of Adam's moments: without it, 100 MB stay with every network."""
    backend.clear_networks()
    before = graphs()
    references = train_a_network(loss)
    backend.clear_networks()
    memory = resident()  # after the first: what TensorFlow itself keeps is there by now
    for _ in range(4):
        references += train_a_network(loss)
        backend.clear_networks()
    assert graphs() <= before
    assert [reference() for reference in references] == [None] * len(references)
    assert resident() - memory < 3 * BYTES_OF_A_NETWORK  # not 4 networks of 3 arrays each


def test_a_network_can_be_trained_after_the_registry_was_emptied():
    backend.clear_networks()
    train_a_network(HLUP(np.eye(3)))
    backend.clear_networks()
    train_a_network(HLUP(np.eye(3)))
