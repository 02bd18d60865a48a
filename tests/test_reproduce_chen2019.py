"""chen2019: what its rows learn from and what is scored, and the script from end to end."""

import gzip
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import label_tree, labels, plco
from evaluation import probabilities
from reproduce import chen2019
from reproduce.engine.rows import Row, describe
from tests.flags import with_changes

REPOSITORY = Path(__file__).parent.parent
CONFIG = chen2019.Config()
KEYS = ["group", "metric"]


def plco_frame(rows: list[dict[str, float]], deleted: tuple[str, ...] = ()) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(labels.PLCO), dtype=np.float32).fillna(0)
    values = label_tree.close(frame.to_numpy(), label_tree.PLCO)
    frame = pd.DataFrame(values, columns=list(labels.PLCO))
    preserved = {mark: np.float32(label not in deleted) for label, mark in zip(
        labels.PLCO, plco.PRESERVE, strict=True
    )}  # fmt: skip
    return frame.assign(**preserved)


def rows(config: chen2019.Config = CONFIG) -> dict:
    return {row.name: row for row in chen2019.rows(config, "plco")}


def loss(row: Row, frame: pd.DataFrame, logits: np.ndarray) -> float:
    learnt = row.task.targets(frame).learnt
    return float(row.loss(learnt)(learnt, logits))


def column(name: str) -> int:
    return labels.PLCO.index(name)


def test_the_tables_rows_and_what_they_start_from():
    made = rows()
    second_stage = {name for name, row in made.items() if row.start_from == "HLCP"}
    assert second_stage == {
        "HLUP-finetune", "HLUP-finetune (naive)", "HLUP-finetune (rescale)", "HLCP, same budget"
    }  # fmt: skip
    assert len(made["BR-leaf"].task.labels) == 14
    frame = plco_frame([{"Nodule": 1}])
    assert made["BR-leaf"].task.targets(frame).learnt.shape == (1, 14)
    assert made["HLUP-finetune"].fit.epochs == CONFIG.finetune_epochs
    assert made["HLUP"].fit.learning_rate(0, []) == CONFIG.learning_rate


def test_on_one_level_the_tree_teaches_what_flat_training_does():
    frame = plco_frame([{"Nodule": 1}, {}, {"Opacity": 1}])
    for levels, same in ((1, True), (2, False), (4, False)):
        made = rows(replace(CONFIG, levels=levels))
        logits = np.random.default_rng(0).normal(size=(3, 19))
        flat, along = (loss(made[name], frame, logits) for name in ("BR-all", "HLCP"))
        assert (flat == pytest.approx(along)) == same
        read = made["HLUP"].readout.probabilities(logits)
        assert np.allclose(read, probabilities.sigmoid(logits)) == same


def rates(made: dict, row) -> list[float]:
    """The learning rate of every epoch that led to a row's weights."""
    before = rates(made, made[row.start_from]) if row.start_from else []
    return before + [row.fit.learning_rate(epoch, []) for epoch in range(row.fit.epochs)]


def test_every_one_stage_row_has_a_twin_with_the_epochs_and_rates_of_two_stages():
    made = rows()
    two_stages = rates(made, made["HLUP-finetune"])
    assert two_stages == [1e-4] * 10 + [1e-5] * 5
    one_stage = [name for name, row in made.items() if not row.start_from]
    assert len(one_stage) == 6
    for name in one_stage:
        twin = made[name + chen2019.TWIN]
        assert twin.start_from == name
        assert rates(made, twin) == two_stages
        for part in ("task", "loss", "readout"):
            assert describe(getattr(twin, part)) == describe(getattr(made[name], part))
        assert describe(twin.fit.select) == describe(made[name].fit.select)  # BR-leaf: other labels
    assert len(made) == 9 + 6 + 2  # and the two raw products


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ("plco", "another split of PLCO: 2 test images, not 39,600"),
        ("chestxray14", "chestxray14, not PLCO"),
        ("chexpert", "chexpert, not PLCO"),
    ],
)
def test_no_dataset_here_is_the_papers_split(dataset, reason):
    sets = {"plco": ["train", "val", "test"], "chestxray14": ["train_val", "train_val", "test"],
            "chexpert": ["train", "train", "valid"]}[dataset]  # fmt: skip
    frame = pd.DataFrame({"split": np.repeat(sets, [40, 40, 2])})
    frame["patient_id"] = frame["image_path"] = frame.index.astype(str)
    frame["view"] = "Frontal"
    frame.attrs["dataset"] = dataset
    made, why = chen2019.split(frame, CONFIG)
    assert why == reason
    assert set(made["split"]) == {"train", "val", "test"}


def test_probabilities_follow_the_chain_rule():
    made = rows()
    logits = np.random.default_rng(0).normal(size=(3, 19))
    conditional = probabilities.sigmoid(logits)
    path = [column(n) for n in ("Infiltration", "Opacity", "Pulmonary", "Abnormal")]
    expected = conditional[:, path].prod(axis=1)
    np.testing.assert_allclose(made["HLCP"].readout.probabilities(logits)[:, path[0]], expected)
    rescaled = (0.02 + 0.98 * conditional[:, path]).prod(axis=1)
    floored = made["HLUP (rescale)"].readout.probabilities(logits)[:, path[0]]
    np.testing.assert_allclose(floored, rescaled)
    np.testing.assert_allclose(made["BR-all"].readout.probabilities(logits), conditional)
    for name in ("HLUP (rescale)", "HLUP-finetune (rescale)"):
        raw = made[name + chen2019.RAW]
        assert (raw.fit.epochs, raw.start_from) == (0, name)
        np.testing.assert_allclose(raw.readout.probabilities(logits)[:, path[0]], expected)


@pytest.mark.parametrize("form", ["powerset", "maximum"])
def test_the_form_of_hlup_is_that_of_its_exact_rows_alone(form):
    """Abnormal at logit 1 where it is absent, all else unknown to the loss: softplus(1)."""
    before, after = rows(), rows(replace(CONFIG, hlup=form))
    changed = {name for name in before if describe(before[name]) != describe(after[name])}
    assert changed == {"HLUP", "HLUP-finetune", "HLUP, same budget"}
    learnt = np.full((1, 19), np.nan, np.float32)
    learnt[0, column("Abnormal")] = 0
    value = float(after["HLUP"].loss(learnt)(learnt, np.ones((1, 19), np.float32)))
    assert value == pytest.approx(np.log1p(np.e))


def test_deleted_labels_are_unknown_in_training_and_known_in_scores():
    frame = plco_frame([{"Nodule": 1}, {"Mass": 1}], deleted=("Nodule", "Abnormal", "COPD"))
    targets = rows()["HLCP"].task.targets(frame)
    assert np.isnan(targets.learnt[:, column("Nodule")]).all()
    assert np.isnan(targets.learnt[:, column("COPD")]).all()
    assert not np.isnan(targets.truth).any()
    # Abnormal was deleted, but a preserved Mass gives it away
    assert targets.learnt[1, column("Abnormal")] == 1


def test_the_real_validation_list_is_learnt_as_it_is(shared_data):
    released = shared_data / "plco-official-splits" / "val_set_delete0.3.csv.gz"
    with gzip.open(released) as file:
        frame = pd.read_csv(file)
    targets = rows()["HLCP"].task.targets(frame)
    np.testing.assert_array_equal(targets.truth, frame[list(labels.PLCO)].to_numpy())
    deleted = frame[list(plco.PRESERVE)].to_numpy() == 0
    assert deleted.mean() > 0.03
    assert np.isnan(targets.learnt[deleted]).mean() > 0.5  # the rest is implied by what is below
    known = ~np.isnan(targets.learnt)
    np.testing.assert_array_equal(targets.learnt[known], targets.truth[known])


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The script on a few phantoms, twice, in an empty folder."""
    folder = tmp_path_factory.mktemp("demo")

    def script(*words: str) -> subprocess.CompletedProcess:
        command = [
            "--size", "32", "--epochs", "1", "--finetune-epochs", "1", "--resamples", "40",
            "--results-dir", "results", "--cache-dir", "cache",
            "--rows", "BR-leaf", "BR-all", "HLUP-finetune",
        ]  # fmt: skip
        start = ["bash", str(REPOSITORY / "reproduce" / "chen2019.sh")]
        command = [*start, *with_changes(command, words)]
        if "--data-dir" not in words:
            command += ["--phantoms", "160"]
        environment = os.environ | {"CXR_PYTHON": sys.executable}
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500
        )

    first = script()
    assert first.returncode == 0, first.stderr
    return folder / "results" / "chen2019" / "plco-phantoms", first, script


def test_the_demo_prints_both_tables_marked_as_drawn(demo):
    folder, first, _ = demo
    assert "drawn phantoms, not comparable with the published values" in first.stdout
    for word in ("Table 1", "Table 2", "HLUP-finetune (ours)", "Claims", "Figure 3"):
        assert word in first.stdout
    assert "Traceback" not in first.stdout + first.stderr
    table = pd.read_csv(folder / "table.csv")
    ran = table[table["ours"].notna() & table["published"].notna()]
    assert set(ran["verdict"]) == {"not comparable (drawn phantoms)"}
    assert {"BR-leaf", "BR-all", "HLCP", "HLUP-finetune"} <= set(ran["row"])
    assert (folder / "figure-3.svg").exists()


def test_every_number_can_be_recomputed_from_the_predictions(demo, tmp_path):
    folder, *_ = demo
    (run,) = folder.glob("HLUP-finetune/seed-0-*")
    command = [
        sys.executable, "-m", "reproduce.rescore", "--predictions", str(run / "predictions.npz"),
        "--tree", "plco", "--resamples", "40", "--results-dir", str(tmp_path),
    ]  # fmt: skip
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    measured = pd.read_csv(run / "metrics.csv")
    again = pd.read_csv(next(tmp_path.rglob("table.csv")))
    both = measured.merge(again, "inner", KEYS, suffixes=("", "_again"))
    assert len(both) >= 2 * (19 + 3)
    for value in ("value", "low", "high"):
        np.testing.assert_allclose(both[value], both[f"{value}_again"])


def test_a_second_run_trains_nothing(demo):
    folder, _, script = demo
    (predicted,) = folder.glob("HLCP/seed-0-*/predictions.npz")
    before = predicted.stat().st_mtime_ns
    again = script()
    assert "4 of 4 runs are finished and stay" in again.stdout
    assert "epoch" not in again.stdout
    assert predicted.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data-dir", "nowhere"], "There is no folder nowhere"),
        (["--rows", "HLXP"], "There is no row 'HLXP'"),
        (["--backbone", "densenet99"], "there is no backbone 'densenet99'"),
        (["--device", "gpu"], "sees no GPU"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(demo, words, sentence):
    *_, script = demo
    if words[0] == "--device" and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    result = script(*words, "--epochs", "2")
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
