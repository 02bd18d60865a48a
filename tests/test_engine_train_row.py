"""Training one row: resumed bit for bit, stopped on a NaN loss, read out in other ways."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from data import labels, plco, splits
from data.augment import Augment
from data.phantom import drawing
from evaluation import predictions
from evaluation.predictions import Predictions
from models import inference
from reproduce import RunError
from reproduce.engine import backend, dataset, runs, train
from reproduce.engine.options import Options
from reproduce.engine.rows import (
    Data,
    Fit,
    Network,
    Readout,
    Row,
    Run,
    Targets,
    Task,
    bce,
    lowest_loss,
)
from reproduce.engine.time_left import TimeLeft

BATCH, FLAT = 16, Readout()


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> Options:
    return Options(cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def data(options) -> Data:
    folder = drawing.write(
        "plco", options.cache_dir / "plco", 90, 64, seed=1, prevalence_floor=0.1, progress=False
    )
    frame = plco.read(folder)
    attrs = frame.attrs | {"folder": str(folder)}
    return dataset.decode(options, splits.as_released(frame), attrs, "", 36, None)


def released(frame: pd.DataFrame) -> Targets:
    targets = frame[list(labels.PLCO)].to_numpy(np.float32)
    return Targets(targets, targets)


def falling_rate(epoch, history):
    return 1e-3 / (1 + epoch)


def make_row(readout: Readout, **changes) -> Row:
    fit = Fit(3, falling_rate, BATCH, augment=Augment(random_crop=True, flip=True))
    fit = dataclasses.replace(fit, **changes)
    return Row(
        "BR-all", Task(labels.PLCO, released), bce, fit, Network("tiny", 32, "none"), readout
    )


def train_in(folder, data, options, weights=None, readout=FLAT, **changes) -> Predictions:
    """Train the row with these changes in a folder; return its predictions."""
    folder.mkdir(exist_ok=True)
    run = Run(make_row(readout, **changes), 0, folder, {}, digest="of-the-settings")
    runs.begin(run, data, "cpu", script={})
    train.train_row(run, weights, data, options, TimeLeft(3))
    return predictions.load(folder / "predictions.npz")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data, options):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, train_in(folder, data, options)


def test_every_test_image_is_predicted_in_order(undisturbed, data):
    folder, predicted = undisturbed
    tested = data.frame[data.frame["split"] == "test"]
    assert len(tested) % BATCH  # else the last batch proves nothing
    assert predicted.ids.tolist() == tested["image_path"].tolist()
    np.testing.assert_array_equal(predicted.targets, tested[list(labels.PLCO)].to_numpy())
    assert predicted.probabilities.shape == (1, len(tested), 19)
    assert not (folder / "state.npz").exists()
    assert (folder / "history.csv").read_text().count("\n") == 4


@pytest.mark.parametrize("finished", [1, 2])
def test_a_stopped_run_ends_with_the_same_predictions(
    tmp_path, undisturbed, data, options, finished
):
    def stop(epoch, history):
        if epoch == finished:
            raise KeyboardInterrupt  # Ctrl-C between two epochs: state is written, nothing else
        return 1e-3 / (1 + epoch)

    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path, data, options, learning_rate=stop)
    assert (tmp_path / "state.npz").exists()
    resumed = train_in(tmp_path, data, options)
    np.testing.assert_array_equal(resumed.probabilities, undisturbed[1].probabilities)


def all_unknown(frame: pd.DataFrame) -> Targets:
    targets = released(frame)
    return targets._replace(learnt=np.full_like(targets.learnt, np.nan))


def unknown_in_validation(frame: pd.DataFrame) -> Targets:
    targets = released(frame)
    known = (frame["split"] != "val").to_numpy()[:, None]
    return targets._replace(learnt=np.where(known, targets.learnt, np.float32(np.nan)))


def test_a_row_without_any_known_label_fails_alone(tmp_path, data, options):
    row = dataclasses.replace(make_row(FLAT), task=Task(labels.PLCO, all_unknown))
    with pytest.raises(runs.RowFailed, match="no training image has a known label"):
        train.train_row(Run(row, 0, tmp_path, {}), None, data, options, TimeLeft(3))


def test_a_nan_loss_stops_training_and_names_the_images(tmp_path, data, options):
    def rate(epoch, history):
        return 1e-3 if epoch == 0 else math.inf

    with pytest.raises(RunError, match=r"NaN in epoch 2.* lower --learning-rate"):
        train_in(tmp_path, data, options, learning_rate=rate)
    names = (tmp_path / "bad-batch.txt").read_text().split()
    trained = data.frame[data.frame["split"] == "train"]["image_path"]
    assert len(names) == BATCH
    assert set(names) <= set(trained)
    assert (tmp_path / "epoch-1.weights.h5").exists()  # of the epoch before


@pytest.mark.parametrize("several_steps", [2, 4])
def test_several_steps_an_execution_give_the_same_bytes(
    tmp_path, undisturbed, data, options, several_steps
):
    folder, one_by_one = undisturbed
    steps = (data.frame["split"] == "train").sum() // BATCH
    assert steps % several_steps  # so that the last execution has fewer
    options = dataclasses.replace(options, steps_per_execution=several_steps)
    several = train_in(tmp_path, data, options)
    np.testing.assert_array_equal(several.probabilities, one_by_one.probabilities)
    epochs = [
        pd.read_csv(each / "history.csv").drop(columns="seconds") for each in (folder, tmp_path)
    ]
    pd.testing.assert_frame_equal(*epochs, check_exact=True)


def test_a_nan_among_several_steps_names_the_images_of_all(tmp_path, data, options):
    options = dataclasses.replace(options, steps_per_execution=2)
    with pytest.raises(RunError, match="NaN in epoch 1"):
        train_in(tmp_path, data, options, learning_rate=lambda epoch, history: math.inf)
    # the first step's loss is that of the first weights, and the second's is NaN
    assert len((tmp_path / "bad-batch.txt").read_text().split()) == 2 * BATCH


def test_the_best_epoch_is_kept_not_the_last(tmp_path, data, options):
    def first_is_best(truth, probabilities, loss):
        calls.append(probabilities)
        return -len(calls)

    calls = []
    two_epochs = train_in(tmp_path, data, options, select=first_is_best, epochs=2)
    one_epoch = train_in(tmp_path / "one", data, options, epochs=1)
    np.testing.assert_array_equal(two_epochs.probabilities, one_epoch.probabilities)


def test_the_last_epoch_is_kept_where_no_validation_label_is_known(tmp_path, data, options):
    """The loss of unknown labels is 0 in every epoch, which would keep the first."""

    def last_is_best(truth, probabilities, loss):
        calls.append(loss)
        return len(calls)

    calls: list[float] = []
    last = train_in(tmp_path, data, options, select=last_is_best, epochs=2)
    folder = tmp_path / "unknown"
    folder.mkdir()
    row = make_row(FLAT, select=lowest_loss, epochs=2)
    row = dataclasses.replace(row, task=Task(labels.PLCO, unknown_in_validation))
    run = Run(row, 0, folder, {}, digest="of-the-settings")
    runs.begin(run, data, "cpu", script={})
    train.train_row(run, None, data, options, TimeLeft(2))
    kept = predictions.load(folder / "predictions.npz")
    np.testing.assert_array_equal(kept.probabilities, last.probabilities)


def test_the_same_weights_read_in_several_draws(undisturbed, tmp_path, data, options):
    folder, once = undisturbed
    weights = folder / "best.weights.h5"
    same = train_in(tmp_path / "same", data, options, weights, epochs=0)
    np.testing.assert_array_equal(same.probabilities, once.probabilities)
    passes = inference.AugmentedPasses(Augment(flip=True, degrees=7, scale=0.02), 3)
    readout = Readout(passes=passes)
    drawn = train_in(tmp_path / "drawn", data, options, weights, epochs=0, readout=readout)
    assert drawn.probabilities.shape == (3, *once.probabilities.shape[1:])
    assert not np.array_equal(drawn.probabilities[0], drawn.probabilities[1])


def test_training_ends_early_where_the_row_says_so(tmp_path, data, options):
    train_in(tmp_path, data, options, stop=lambda history: len(history) == 1)
    assert (tmp_path / "history.csv").read_text().count("\n") == 2


def test_a_gpu_that_is_not_there_is_one_sentence():
    if backend.start("auto") != "cpu":
        pytest.skip("this machine has a GPU")
    with pytest.raises(RunError, match=r"--device gpu, but \w+ sees no GPU"):
        backend.start("gpu")


def test_a_row_that_collapsed_says_so_in_its_line(tmp_path, data, options, capsys):
    def alike(logits):
        return np.full(logits.shape, 0.3)

    train_in(tmp_path, data, options, epochs=1, readout=Readout(alike))
    line = "collapsed: (nearly) the same probabilities for every image of test"
    assert f"BR-all, seed 0: {line}" in capsys.readouterr().out
    assert line in (tmp_path / "log.txt").read_text()
