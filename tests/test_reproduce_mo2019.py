"""mo2019: what each row learns and reads, and the script run whole on phantoms."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data import chestxray14, labels
from evaluation import published
from reproduce import mo2019
from reproduce.engine.rows import describe, plain
from tests.conftest import REPOSITORY


@pytest.fixture
def frame() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    findings = (generator.random((40, 14)) < 0.1).astype(np.float32)
    findings[:14] = np.maximum(findings[:14], np.eye(14))
    frame = pd.DataFrame(findings, columns=list(labels.CHESTXRAY14))
    frame[labels.NO_FINDING] = 1 - findings.max(axis=1)
    return frame.assign(split=["train"] * 20 + ["val"] * 10 + ["test"] * 10)


def rows(**changes):
    config = replace(mo2019.Config(), **changes)
    return {row.name: row for row in mo2019.rows(config, "chestxray14")}


def test_rows_are_the_published_ones_and_our_readings():
    printed = published.load("mo2019")
    own = printed[(printed["table"] == "Table I") & ~printed["note"].str.startswith("quoted")]
    names = rows()
    assert set(own["row"]) < set(names)
    assert [row.note for row in names.values()].count("") == 3
    assert names[mo2019.PLAIN].note == "ours: eq. (1) without factors"
    assert names["DenseNet121 proposed loss after CE"].start_from == mo2019.BASELINE


def test_fifteen_outputs_teach_and_fourteen_are_scored(frame):
    for classes in (14, 15):
        for row in rows(classes=classes).values():
            targets = row.task.targets(frame)
            assert targets.learnt.shape == (40, row.task.width) == (40, classes)
            assert targets.truth.shape == (40, 14)
            assert row.readout.probabilities(np.zeros((3, classes))).shape == (3, 14)
    no_finding = rows()[mo2019.PROPOSED].task.targets(frame).learnt[:, 14]
    np.testing.assert_array_equal(no_finding, frame[labels.NO_FINDING])


def test_softmax_readings_compete_and_the_others_do_not():
    logits = np.array([[1000.0, *[0.0] * 14], [0.0] * 15])
    for name, row in rows().items():
        read = row.readout.probabilities(logits)
        competes = name.startswith("DenseNet121 proposed") and "+ CE" not in name
        expected = 1 / 15 if competes else 0.5
        np.testing.assert_allclose(read[1], expected)
        assert read[0, 0] == pytest.approx(1)
        assert read[0, 1] == pytest.approx(0 if competes else 0.5)


def test_losses_are_the_readings_and_weigh_by_the_training_images_alone(frame):
    in_train = (frame["split"] == "train").to_numpy()
    by_name = {
        name: row.loss(row.task.targets(frame).learnt[in_train])
        for name, row in rows(entropy_weight=0.5).items()
    }
    readings = {name: getattr(loss, "reading", None) for name, loss in by_name.items()}
    assert readings[mo2019.BASELINE] is None
    assert readings[mo2019.PROPOSED] == "as_printed"
    assert readings[mo2019.OURS] == "detached"
    assert by_name["DenseNet121 proposed loss + CE"].scale == 0.5
    train = frame.loc[frame["split"] == "train", list(labels.CHESTXRAY14)].to_numpy()
    np.testing.assert_allclose(by_name[mo2019.BASELINE].positive[:14], 1 - train.mean(axis=0))
    np.testing.assert_allclose(by_name[mo2019.BASELINE].negative[:14], train.mean(axis=0))
    printed, repaired = by_name[mo2019.PROPOSED], by_name[mo2019.OURS]
    target, start = np.eye(15, dtype=np.float32)[:1], np.zeros((1, 15), np.float32)
    assert float(printed(target, start)) == pytest.approx(float(repaired(target, start)))


def test_plain_cross_entropy_is_eq_1_without_factors():
    """Two classes of 15 at logits 0: both terms are log 2 whatever the share of positives."""
    train = np.zeros((10, 15), np.float32)
    train[0, 0] = 1
    row = rows()[mo2019.PLAIN]
    target, start = train[:1], np.zeros((1, 15), np.float32)
    assert float(row.loss(train)(target, start)) == pytest.approx(15 * np.log(2))
    # with the factors .9 and .1 of a class with one positive of ten, and 1 and 0 of the others
    weighted = rows()[mo2019.BASELINE].loss(train)
    assert float(weighted(target, start)) == pytest.approx(0.9 * np.log(2), rel=1e-4)
    assert row.readout == rows()[mo2019.BASELINE].readout


def test_every_network_gets_the_same_mean_and_deviation():
    """§IV-B: one mean and deviation. DenseNet's own are ImageNet's, so its runs stay the same."""
    for normalise in ("imagenet", "network"):
        built = {name: row.network.build for name, row in rows(normalise=normalise).items()}
        changed = {name for name, build in built.items() if build is not plain}
        others = {"VGGNet-16 weighted CE", "ResNet-50 weighted CE"}
        assert changed == (others if normalise == "imagenet" else set())
    assert mo2019.Config().normalise == "imagenet"
    build = mo2019.normalised("vgg16", "imagenet")
    assert build.keywords == {"normalise": "imagenet"}


def test_the_rate_stays_or_falls_at_every_plateau_as_in_chexnet():
    """Tenfold after an epoch without a loss lower by 1e-4, and never below 1e-7."""
    history = [{"val_loss": loss} for loss in (0.5, 0.4, 0.40005, 0.3, 0.3, 0.3, 0.3, 0.3)]
    rate = rows()[mo2019.BASELINE].fit.learning_rate
    assert {rate(epoch, history[:epoch]) for epoch in range(9)} == {1e-3}
    rate = rows(schedule="plateau")[mo2019.BASELINE].fit.learning_rate
    np.testing.assert_allclose(
        [rate(epoch, history[:epoch]) for epoch in range(9)],
        [1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-7],
    )
    fits = {str(describe(row.fit)) for row in rows(schedule="plateau").values()}
    assert len(fits) == 1  # every loss and network alike


@pytest.mark.parametrize(("split", "test"), [("official", 170), ("chexnet", None)])
def test_both_readings_of_7_1_2(shared_data, split, test):
    released = chestxray14.read(shared_data / "chestxray14-64px")
    made, reason = mo2019.split(released, replace(mo2019.Config(), split=split))
    assert reason == ""  # either may be the paper's: the table names which it was
    assert made.groupby("patient_id")["split"].nunique().max() == 1
    assert set(made["split"]) == {"train", "val", "test"}
    if test:
        assert (made["split"] == "test").sum() == test
        np.testing.assert_array_equal(made["split"] == "test", released["split"] == "test")


@pytest.mark.parametrize("wrong", [["--classes", "13"], ["--factors", "negative"]])
def test_senseless_settings_are_refused(monkeypatch, capsys, wrong):
    monkeypatch.setattr("sys.argv", ["mo2019", *wrong])
    with pytest.raises(SystemExit) as end:
        mo2019.main()
    assert end.value.code == 2
    assert f"{wrong[0]}: invalid choice" in capsys.readouterr().err


def test_the_script_runs_on_phantoms(tmp_path):
    wanted = f"{mo2019.BASELINE},{mo2019.PROPOSED},{mo2019.OURS}"
    command = [
        *(sys.executable, "-m", "reproduce.mo2019", "--rows", wanted, "--phantoms", "200"),
        *("--epochs", "1", "--size", "32", "--resamples", "20", "--device", "cpu"),
        *("--cache-dir", tmp_path / "cache", "--results-dir", tmp_path / "results"),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "drawn phantoms, not comparable" in done.stdout
    assert "Table I, DenseNet121 proposed loss: ours is reading A" in done.stdout
    assert "All of ours: on the official test list, with 1/8 of the other" in done.stdout
    assert "with our repair in its place" in done.stdout
    folder = tmp_path / "results" / "mo2019" / "chestxray14-phantoms"
    table = pd.read_csv(folder / "table.csv")
    of_us = table[table["ours"].notna()]
    assert set(of_us["row"]) == {mo2019.BASELINE, mo2019.PROPOSED, mo2019.OURS}
    quoted = table[table["row"] == "Wang et al. [5]"]
    assert set(quoted["verdict"]) == {"quoted"}
    claims, repaired = (pd.read_csv(folder / f"{name}.csv") for name in ("claims", "claims-ours"))
    assert set(repaired["left_row"]) == {mo2019.PROPOSED}
    both = claims.merge(repaired, on=["claim", "left_row", "right_row", "column"])
    compared = both[both["claim"] == "proposed-beats-baseline"]
    assert len(compared) == 1
    assert compared["margin_x"].item() != compared["margin_y"].item()
    figure = (folder / "figure-1.svg").read_text()
    assert figure.count("mean AUC") == 3
