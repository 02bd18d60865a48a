"""Asadi 2025: the 21 targets, the released schedule, what a zero gradient means, one whole run."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from data import labels
from data.augment import Augment
from evaluation import claims, predictions
from models import inference
from reproduce import RunError, asadi2025
from reproduce.asadi2025 import MC, PAPER, Config
from reproduce.engine import schedules
from reproduce.engine.rows import describe
from reproduce.tables import asadi2025 as tables
from tests.nih import nih_frame

ROOT = Path(__file__).parents[1]


def frame_of(released: dict[str, list[float]], split: str = "train") -> pd.DataFrame:
    """Images with these labels, all others 0."""
    count = len(next(iter(released.values())))
    table = pd.DataFrame(0.0, index=range(count), columns=list(labels.CHEXPERT)).assign(**released)
    return table.assign(split=split, image_path=[f"{split}/{n}" for n in range(count)])


def rows_of(**settings) -> dict:
    return {row.name: row for row in asadi2025.rows(Config(**settings), "chexpert")}


@pytest.mark.parametrize("seed", range(5))
def test_rate_and_end_are_keras_callbacks(seed):
    """ReduceLROnPlateau(factor .9, patience 1) and EarlyStopping(patience 10), as released."""
    random = np.random.default_rng(seed)
    losses = 1 / np.arange(1, 60) ** 0.3 + random.normal(0, 0.02, 59)
    losses[20:23] = losses[19] - np.array([5e-5, 6e-5, 2e-4])  # improvements that do not count
    model = SimpleNamespace(optimizer=keras.optimizers.Adam(1e-4), stop_training=False)
    plateau = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.9, patience=1, min_lr=1e-8)
    ending = keras.callbacks.EarlyStopping("val_loss", patience=10)
    for callback in (plateau, ending):
        callback.set_model(model)
        callback.on_train_begin()
    row, history = rows_of()["BCE"], []
    for epoch, loss in enumerate(losses):
        rate = row.fit.learning_rate(epoch, history)
        assert rate == pytest.approx(float(model.optimizer.learning_rate), rel=1e-5)
        assert row.fit.stop(history) == model.stop_training
        if model.stop_training:
            break
        history.append({"val_loss": loss})
        for callback in (plateau, ending):
            callback.on_epoch_end(epoch, {"val_loss": loss, "loss": loss})
    assert sum(schedules.stale(history)) > 3


def test_penalties_are_computed_from_the_training_labels():
    train = frame_of({"Consolidation": [0, 0, 0, 1], "Pneumonia": [1, 0, 0, 1]})
    rows = rows_of()

    def penalty(name: str) -> tuple[float, int]:
        """Return the weight of Consolidation > Pneumonia, and the number of penalised pairs."""
        row = rows[name]
        weights = np.asarray(row.loss(row.task.targets(train).learnt).weights)
        pair = labels.ASADI.index("Pneumonia"), labels.ASADI.index("Consolidation")
        return weights[pair], int((weights > 0).sum())

    assert penalty(PAPER)[0] == pytest.approx(0.5 * (1 - 1 / 3), abs=1e-5)
    assert penalty(f"{PAPER} 1.0")[0] == pytest.approx(2 / 3, abs=1e-5)
    assert penalty("HBCE fixed 0.1") == (0.1, 20)


def test_claims_and_tables_find_their_rows():
    rows = rows_of()
    printed = claims.load_claims("asadi2025")
    assert {*printed["left_row"], *printed["right_row"]} <= rows.keys()
    assert list(rows["BCE on 14 labels"].task.labels) == list(labels.ASADI[:14])


def test_augmentation_is_that_of_the_released_loader():
    """Flips both ways, brightness ±.1 and contrast .9 to 1.1; no rotation, zoom or shift."""
    for row in (row for row in rows_of().values() if row.fit.epochs):
        assert row.fit.augment == Augment(flip=True, upside_down=True, brightness=0.1, contrast=0.1)


# On ChestX-ray14: its 14 labels and the five above them


def test_targets_on_chestxray14_by_hand():
    frame = nih_frame([("Nodule",), (), ("Edema", "Effusion")], ["test"] * 3)
    rows = {row.name: row for row in asadi2025.rows(Config(), "chestxray14")}
    row = rows["BCE"]
    truth = row.task.targets(frame).truth
    assert list(row.task.labels) == list(labels.CHESTXRAY14_HIERARCHY)
    found = [
        {name for name, on in zip(row.task.labels, image, strict=True) if on} for image in truth
    ]
    assert found == [
        {"Nodule", "Nodules and Masses", "Abnormal"},
        set(),
        {"Edema", "Effusion", "Opacity", "Pleural Abnormality", "Pulmonary", "Abnormal"},
    ]
    of_14 = rows["BCE on 14 labels"].task.targets(frame)
    np.testing.assert_array_equal(of_14.learnt, truth[:, :14])


def test_data_driven_penalties_on_chestxray14_are_fixed_ones():
    """A high-level label is the OR of those below it, so P(child | no parent) is 0."""
    frame = nih_frame([("Nodule",), (), ("Edema",), ("Hernia",)], ["train"] * 4)
    rows = {row.name: row for row in asadi2025.rows(Config(), "chestxray14")}
    weights = [
        np.asarray(rows[name].loss(rows[name].task.targets(frame).learnt).weights)
        for name in (PAPER, "HBCE fixed 0.5")
    ]
    assert (weights[1] > 0).sum() == 18  # all labels but Abnormal have a parent
    np.testing.assert_allclose(*weights, atol=1e-5)


def test_splits_of_chestxray14_are_named_and_never_comparable():
    frame = nih_frame([()] * 40, ["train_val"] * 32 + ["test"] * 8)
    official, reason = asadi2025.split(frame, Config())
    assert official["split"].value_counts().to_dict() == {"train": 28, "val": 4, "test": 8}
    assert reason == "chestxray14 (official split), not CheXpert"
    chexnet, reason = asadi2025.split(frame, Config(split="chexnet"))
    assert set(chexnet["split"]) == {"train", "val", "test"}
    assert reason == "chestxray14 (chexnet split), not CheXpert"


# Monte-Carlo passes: BatchNorm as it was trained, or by each image alone as in the release


@pytest.fixture(scope="module")
def small_network():
    """Image -> BatchNormalization -> mean over pixels -> Dropout -> one linear output."""
    image = keras.Input((2, 2, 1))
    x = keras.layers.BatchNormalization(epsilon=0.0)(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    x = keras.layers.Dropout(0.5)(x)
    model = keras.Model(image, keras.layers.Dense(1, use_bias=False)(x))
    # gamma, beta, moving mean, moving variance, weight of the output
    model.set_weights([np.array([v], np.float32) for v in (2, 0, 3, 4)] + [np.ones((1, 1))])
    return model


IMAGES = np.array([[0, 0, 4, 4], [2, 2, 2, 6]], np.float32).reshape(2, 2, 2, 1)


def passes_of(model, images, by_image, count=64) -> np.ndarray:
    return inference.DropoutPasses(count, by_image)(model, lambda: [images], 2)[..., 0]


def test_passes_normalise_by_the_trained_statistics_by_hand(small_network):
    # 2 (x - 3) / 2 is -3, -3, 1, 1 and -1, -1, -1, 3; ReLU and mean: .5 and .75; dropout: x2 or 0
    found = passes_of(small_network, IMAGES, by_image=False)
    assert {*found[:, 0].round(4)} == {0.0, 1.0}
    assert {*found[:, 1].round(4)} == {0.0, 1.5}


def test_passes_as_released_normalise_each_image_by_itself_by_hand(small_network):
    # means 2 and 3, variances 4 and 3: 2 (x - 2) / 2 is -2, -2, 2, 2: ReLU and mean 1;
    # 2 (x - 3) / sqrt 3 is negative but for 6 / sqrt 3: mean 1.5 / sqrt 3
    found = passes_of(small_network, IMAGES, by_image=True)
    assert {*found[:, 0].round(4)} == {0.0, 2.0}
    np.testing.assert_allclose(np.unique(found[:, 1].round(4)), [0, 3 / 3**0.5], atol=1e-4)


def test_passes_as_released_learn_nothing_and_see_no_other_image(small_network):
    before = [weight.copy() for weight in small_network.get_weights()]
    together = passes_of(small_network, IMAGES, by_image=True, count=8)
    for weight, after in zip(before, small_network.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, after)
    again = passes_of(small_network, IMAGES, by_image=True, count=8)
    np.testing.assert_array_equal(together, again)  # no moving average has moved
    alone = np.stack(
        [passes_of(small_network, image[None], by_image=True, count=8)[:, 0] for image in IMAGES], 1
    )
    np.testing.assert_array_equal(together, alone)
    turned = passes_of(small_network, IMAGES[::-1], by_image=True, count=8)
    np.testing.assert_array_equal(together, turned[:, ::-1])


def test_the_setting_touches_the_row_with_passes_alone():
    before, after = rows_of(), rows_of(mc_batchnorm=True)
    changed = {name for name, row in before.items() if describe(row) != describe(after[name])}
    assert changed == {MC}
    assert Config().mc_batchnorm is False


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("asadi2025")
    command = [sys.executable, "-m", "reproduce.asadi2025", "--phantoms", "160", "--epochs", "2"]
    command += ["--size", "32", "--passes", "3", "--batch-size", "64", "--resamples", "20"]
    command += ["--rows", "BCE", MC, "--results-dir", folder / "results", "--cache-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "results" / "asadi2025" / "chexpert-phantoms", done.stdout


def test_a_whole_run_writes_tables_and_figures(results):
    folder, printed = results
    for name in ("table.md", "rows.csv", "effect.csv", "violations.csv", "uncertainty.csv"):
        assert (folder / name).stat().st_size > 100
    assert (folder / "figure-3.png").read_bytes().startswith(b"\x89PNG")
    assert "drawn phantoms" in (folder / "figure-2.svg").read_text()
    assert "not comparable" in printed
    (run,) = folder.glob("HBCE-data-driven/seed-0-*")
    recorded = json.loads((run / "config.json").read_text())
    assert recorded["settings"]["loss"]["form"] == "as_released"
    weights = np.array(json.loads((run / "loss.json").read_text())["weights"])
    assert weights[labels.ASADI.index("Opacity"), labels.ASADI.index("Abnormal")] > 0.4


def test_the_released_penalty_trains_what_bce_trains(results):
    """Its gradient is zero: with equal rates, the weights of every epoch are the same bits."""
    folder, _ = results
    penalised, plain = (
        pd.read_csv(next((folder / row).glob("seed-0-*/history.csv")))
        for row in ("HBCE-data-driven", "BCE")
    )
    assert (penalised["val_loss"] > plain["val_loss"]).any()  # the value has the penalty in it
    effect = pd.read_csv(folder / "effect.csv").set_index("row")
    if effect["same until"][PAPER] == effect["epoch kept"][PAPER] == effect["BCE kept"][PAPER]:
        assert effect["largest |Δp|"][PAPER] == 0
    assert effect["Δ mean AUC"][PAPER] == pytest.approx(0, abs=0.2)


def test_dropout_passes_differ_and_their_mean_is_scored(results):
    folder, _ = results
    dropped, plain = (
        predictions.load(next((folder / row).glob("seed-0-*/predictions.npz")))
        for row in ("HBCE-data-driven-MC-dropout", "HBCE-data-driven")
    )
    assert dropped.probabilities.shape[0] == 3
    assert dropped.probabilities.std(axis=0).max() > 1e-4
    table = tables.of_passes(dropped, plain).set_index("label")
    assert table.loc["mean", "mean spread"] == pytest.approx(
        dropped.probabilities.std(axis=0).mean(), rel=1e-4
    )
    assert table["ECE"].between(0, 1).all()


def test_the_authors_predictions_stand_beside_no_phantoms(tmp_path):
    command = [sys.executable, "-m", "reproduce.asadi2025", "--phantoms", "60", "--size", "32"]
    command += ["--released", tmp_path, "--cache-dir", tmp_path, "--results-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--released is compared on real radiographs only" in done.stderr
    assert "epoch" not in done.stdout


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--dataset", "chestxray14", "--uncertain", "zeros"), "--uncertain is for --dataset chex"),
        (("--split", "chexnet"), "--split is for --dataset chestxray14 or chestmnist al"),
    ],
)
def test_settings_of_another_dataset_are_refused(given, sentence, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["asadi2025", *given])
    with pytest.raises(RunError, match=sentence):
        asadi2025.main()


def test_a_whole_run_on_chestxray14(tmp_path):
    command = [sys.executable, "-m", "reproduce.asadi2025", "--dataset", "chestxray14"]
    command += ["--phantoms", "200", "--epochs", "1", "--size", "32", "--passes", "2"]
    command += ["--resamples", "20", "--backbone", "tiny", "--rows", "BCE", MC]
    command += ["--results-dir", tmp_path / "results", "--cache-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "results" / "asadi2025" / "chestxray14-phantoms"
    boxes = pd.read_csv(folder / "boxes.csv")
    assert {*boxes["row"]} == {"BCE", PAPER}
    assert {*boxes["finding"]} - {"all"} <= {*labels.CHESTXRAY14}
    assert (folder / "figure-3.png").read_bytes().startswith(b"\x89PNG")
    judged = pd.read_csv(folder / "claims.csv")
    assert judged["our_note"].str.startswith("judged by this dataset's own labels").all()
    assert "not run" not in {*judged["ours"]}
    assert "mean of the 14 ChestX-ray14 labels" in (folder / "values.csv").read_text()
