"""Training the last layer on features that are computed once equals training it on images."""

import dataclasses

import keras
import numpy as np
import pytest

from data.augment import AS_STORED
from models import inference
from reproduce.engine import features, networks
from tests.test_engine_train_row import data, make_row, options, train_in  # noqa: F401

PROBING = {"head_only": True, "augment": AS_STORED, "weight_decay": 0.01}


def test_it_equals_training_the_last_layer_on_images(tmp_path, data, options):  # noqa: F811
    on_images = train_in(tmp_path / "images", data, options, **PROBING)
    on_features = train_in(tmp_path / "features", data, options, features_once=True, **PROBING)
    np.testing.assert_allclose(
        on_features.probabilities, on_images.probabilities, rtol=1e-4, atol=1e-5
    )
    assert on_images.probabilities.std() > 1e-3


def test_features_are_computed_once_and_again_where_damaged(
    tmp_path,
    data,  # noqa: F811
    options,  # noqa: F811
    monkeypatch,
):
    own = dataclasses.replace(options, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(features, "PART", 40)
    first = train_in(tmp_path / "a", data, own, features_once=True, **PROBING)
    parts = sorted((own.cache_dir / "features").rglob("*.npy"))
    assert [path.name for path in parts] == ["0000000.npy", "0000040.npy", "0000080.npy"]
    written = [path.stat().st_mtime_ns for path in parts]
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    again = train_in(tmp_path / "b", data, own, features_once=True, **PROBING)
    np.testing.assert_array_equal(again.probabilities, first.probabilities)
    changed = [
        before != path.stat().st_mtime_ns for before, path in zip(written, parts, strict=True)
    ]
    assert changed == [False, True, False]


def test_an_interrupted_run_resumes_to_the_same_predictions(tmp_path, data, options):  # noqa: F811
    probing = PROBING | {"features_once": True}
    undisturbed = train_in(tmp_path / "a", data, options, **probing)

    def stop(epoch, history):
        if epoch == 2:
            raise KeyboardInterrupt
        return 1e-3 / (1 + epoch)

    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "b", data, options, learning_rate=stop, **probing)
    resumed = train_in(tmp_path / "b", data, options, **probing)
    np.testing.assert_array_equal(resumed.probabilities, undisturbed.probabilities)


def test_what_the_head_learns_the_network_has_learnt(options):  # noqa: F811
    row = make_row(make_row.__globals__["FLAT"], head_only=True)
    model = networks.build(row, True)
    networks.compile_for(model, row.fit, None, keras.losses.MeanSquaredError(), options)
    trunk, head = features.split(model)
    images = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 1)).astype("float32")
    before = [array.copy() for array in trunk.get_weights()]
    head.fit(trunk.predict(images, verbose=0), np.ones((8, 19)), epochs=2, verbose=0)
    for array, now in zip(before, trunk.get_weights(), strict=True):
        np.testing.assert_array_equal(array, now)
    of_head = inference.logits(head, [trunk.predict(images, verbose=0)], 8)
    np.testing.assert_allclose(inference.logits(model, [images], 8), of_head, atol=1e-5)
