"""Training one row: resumed bit for bit, stopped at a loss that is none, read in other ways."""

import argparse
import math

import numpy as np
import pytest
from reproduce.run import Clock, Row, Run

import losses
from data import labels, plco, splits
from data.augment import Augment
from evaluation import metrics, predict
from reproduce import RunError, run, training

BATCH = 16


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return argparse.Namespace(
        cache_dir=tmp_path_factory.mktemp("cache"), skip_corrupt=False, fast=True, jit=None
    )


@pytest.fixture(scope="module")
def data(options) -> run.Data:
    folder = drawing.write(
        "plco", options.cache_dir / "plco", 90, 64, seed=1, prevalence_floor=0.1, progress=False
    )
    frame = plco.read(folder)
    frame.attrs["folder"] = str(folder)
    return run.decode(options, splits.as_released(frame), frame.attrs, 36)


@pytest.fixture
def config():
    return argparse.Namespace(
        backbone="tiny", size=32, weights="none", precision="float32", batch_size=BATCH
    )


def row(data, **changes) -> Row:
    targets = data.frame[list(labels.PLCO)].to_numpy(np.float32)
    settings = {
        "name": "BR-all",
        "labels": labels.PLCO,
        "targets": targets,
        "truth": targets,
        "loss": lambda: losses.masking.MaskedBCE(),
        "select": lambda truth, p, loss: metrics.macro_mean(metrics.auroc(truth, p)),
        "epochs": 3,
        "learning_rate": lambda epoch, history: 1e-3 / (1 + epoch),
        "augment": Augment(random_crop=True, flip=True),
    }
    return Row(**settings | changes)


def train(folder, data, config, options, weights=None, **changes) -> predict.Predictions:
    folder.mkdir(exist_ok=True)
    clock = Clock(3)
    training.train(Run(row(data, **changes), 0, folder, {}), weights, data, config, options, clock)
    return predict.load(folder / "predictions.npz")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data, options):
    config = argparse.Namespace(
        backbone="tiny", size=32, weights="none", precision="float32", batch_size=BATCH
    )
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, train(folder, data, config, options)


def test_every_test_image_is_predicted_in_order(undisturbed, data):
    folder, found = undisturbed
    tested = data.frame[data.frame["split"] == "test"]
    assert len(tested) % BATCH  # else the last batch proves nothing
    assert found.ids.tolist() == tested["image_path"].tolist()
    np.testing.assert_array_equal(found.targets, tested[list(labels.PLCO)].to_numpy())
    assert found.probabilities.shape == (1, len(tested), 19)
    assert not (folder / "state.npz").exists()
    assert (folder / "history.csv").read_text().count("\n") == 4


@pytest.mark.parametrize("finished", [1, 2])
def test_a_stopped_run_ends_with_the_same_predictions(
    tmp_path, undisturbed, data, config, options, finished
):
    def stop(epoch, history):
        if epoch == finished:
            raise KeyboardInterrupt  # Ctrl-C between two epochs: state is written, nothing else
        return 1e-3 / (1 + epoch)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, data, config, options, learning_rate=stop)
    assert (tmp_path / "state.npz").exists()
    resumed = train(tmp_path, data, config, options)
    np.testing.assert_array_equal(resumed.probabilities, undisturbed[1].probabilities)


def test_a_loss_that_is_none_stops_and_names_the_images(tmp_path, data, config, options):
    def rate(epoch, history):
        return 1e-3 if epoch == 0 else math.inf

    with pytest.raises(RunError, match="the loss became nan in epoch 2"):
        train(tmp_path, data, config, options, learning_rate=rate)
    names = (tmp_path / "bad-batch.txt").read_text().split()
    trained = data.frame[data.frame["split"] == "train"]["image_path"]
    assert len(names) == BATCH
    assert set(names) <= set(trained)
    assert (tmp_path / "best.weights.h5").exists()  # of the epoch before


def test_the_best_epoch_is_kept_not_the_last(tmp_path, data, config, options):
    def first_is_best(truth, probabilities, loss):
        calls.append(probabilities)
        return -len(calls)

    calls = []
    found = train(tmp_path, data, config, options, select=first_is_best, epochs=2)
    again = train(tmp_path / "one", data, config, options, epochs=1)
    np.testing.assert_array_equal(found.probabilities, again.probabilities)


def test_the_same_weights_read_in_several_draws(undisturbed, tmp_path, data, config, options):
    folder, once = undisturbed
    weights = folder / "best.weights.h5"
    same = train(tmp_path / "same", data, config, options, weights, epochs=0)
    np.testing.assert_array_equal(same.probabilities, once.probabilities)
    passes = predict.drawn(Augment(flip=True, degrees=7, scale=0.02), 3)
    drawn = train(tmp_path / "drawn", data, config, options, weights, epochs=0, passes=passes)
    assert drawn.probabilities.shape == (3, *once.probabilities.shape[1:])
    assert not np.array_equal(drawn.probabilities[0], drawn.probabilities[1])


def test_training_ends_early_where_the_row_says_so(tmp_path, data, config, options):
    train(tmp_path, data, config, options, stop=lambda history: len(history) == 1)
    assert (tmp_path / "history.csv").read_text().count("\n") == 2


def test_a_gpu_that_is_not_there_is_one_sentence():
    if training.set_up("auto") != "cpu":
        pytest.skip("this machine has a GPU")
    with pytest.raises(RunError, match=r"--device gpu, but \w+ sees no GPU"):
        training.set_up("gpu")
