"""Score CSVs and runs with the command: numbers, warnings, refusals."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from data import labels
from evaluation.predictions import Predictions, save
from tests.rescore_command import rescore

LABELS = ("Edema", "Pleural Effusion")
ROOT = Path(__file__).parents[1]


# CSV files


@pytest.fixture
def own(tmp_path):
    """Return the rows of truth.csv and predictions.csv: 60 images of 30 patients."""
    generator = np.random.default_rng(0)
    truth = (generator.random((60, 2)) < 0.4).astype(int)
    values = ((generator.random((60, 2)) + 0.5 * truth) / 1.5).round(6).tolist()
    return {
        "truth": [
            ["id", "who", *LABELS],
            *([f"image {i}", f"p{i // 2}", *row] for i, row in enumerate(truth.tolist())),
        ],
        "predictions": [
            ["id", *LABELS],
            *([f"image {i}", *row] for i, row in enumerate(values)),
        ],
        "folder": tmp_path,
    }


def run(own, *flags):
    """Write the files of `own` and score them; return the exit code."""
    paths = []
    for name in ("truth", "predictions"):
        path = own["folder"] / f"{name}.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(own[name])
        paths += [f"--{name}", str(path)]
    results = own["folder"] / "out"
    return rescore(*paths, "--results-dir", results, "--resamples", 60, *flags)


def scored(own, name=None) -> Path:
    """Return the folder of the tables of predictions.csv, or of another scored file."""
    name = name or f"{own['folder'].name}-predictions"
    return own["folder"] / "out" / "rescored" / name


def values(own, name=None):
    table = pd.read_csv(scored(own, name) / "table.csv")
    return table.set_index(["group", "metric"])


def expected(own):
    truth = {row[0]: row[2:] for row in own["truth"][1:]}
    predicted = {row[0]: row[1:] for row in own["predictions"][1:]}
    rows = [(truth[name], predicted[name]) for name in truth if name in predicted]
    columns = zip(*(zip(*pair, strict=True) for pair in rows), strict=True)
    return [roc_auc_score(*zip(*column, strict=True)) for column in columns]


def test_a_csv_is_scored_exactly(own, capsys):
    assert run(own, "--patient-column", "who") == 0
    table = values(own)
    auc = [table.loc[(name, "AUC"), "value"] for name in LABELS]
    assert auc == pytest.approx(expected(own), abs=1e-12)
    assert table.loc[("mean", "AUC"), "value"] == pytest.approx(np.mean(auc))
    assert (table.loc[("mean", "AUC"), ["low", "high"]].to_numpy() != auc).all()
    printed = capsys.readouterr()
    few = "very few cases, so a wide interval: Edema (16 patients), Pleural Effusion (18 patients)"
    assert printed.err == f"warning: {few}\n"
    assert "Pleural Effusion" in printed.out
    assert {path.name for path in scored(own).iterdir()} == {
        "scored-from.txt",
        "table.csv",
        "table.md",
        "roc.svg",
    }


def put(name, row, column, value):
    def change(own):
        own[name][row][column] = value

    return change


def repeat(name):
    return lambda own: own[name].append(own[name][3])


def rename_ids(own):
    for row in own["predictions"][1:]:
        row[0] = f"other/picture {row[0]}"


def only_names(own):
    own["predictions"][0] = ["id", "Mass", "Hernia"]


def shorten(own):
    own["predictions"][4] = own["predictions"][4][:-1]


def without_rows(own):
    del own["predictions"][1:]


def reverse_rows(own):
    own["predictions"][1:] = own["predictions"][:0:-1]


def drop_and_add_rows(own):
    del own["predictions"][5:8]
    own["predictions"].append(["image 99", 0.5, 0.5])


def spell_names_differently(own):
    own["predictions"][0] = ["id", " edema", "Pleural_Effusion "]


@pytest.mark.parametrize(
    ("change", "images", "warnings"),
    [
        (reverse_rows, 60, ["another order than the truth, matched by id"]),
        (
            drop_and_add_rows,
            57,
            [
                "without a prediction, and left out: 3; scored on 57 of the 60 images",
                "1 rows without truth, left out",
            ],
        ),
        (
            spell_names_differently,
            60,
            ["columns matched by similar names (edema, Pleural_Effusion)"],
        ),
    ],
)
def test_rows_and_columns_are_matched_by_name(own, capsys, change, images, warnings):
    change(own)
    assert run(own) == 0
    message = capsys.readouterr().err
    assert all(warning in message for warning in [*warnings, "no --patient-column"])
    table = values(own)
    assert table.loc[("Edema", "AUC"), "images"] == images
    auc = [table.loc[(name, "AUC"), "value"] for name in LABELS]
    assert auc == pytest.approx(expected(own), abs=1e-12)
    assert auc[0] > 0.6  # matched by position it would be about .5


def test_labels_that_only_one_file_has_are_named(own, capsys):
    own["predictions"][0][2] = "Fracture"
    assert run(own, "--patient-column", "who") == 0
    message = capsys.readouterr().err
    assert "truth.csv: 1 columns not scored (Pleural Effusion)" in message
    assert "predictions.csv: 1 columns not scored (Fracture)" in message
    assert ("Pleural Effusion", "AUC") not in values(own).index


def test_odd_values_are_counted(own, capsys):
    own["predictions"][3][1] = 1.7
    for row in own["predictions"][1:]:
        row[2] = 0.25
    own["truth"][4][2] = ""
    assert run(own) == 0
    message = capsys.readouterr().err
    assert "1 predictions lie outside [0, 1] (0." in message
    assert "to 1.7); they are ranked as they are, without calibration" in message
    assert "Pleural Effusion is constant" in message
    assert "1 unknown (blank) targets" in message
    table = values(own)
    assert table.loc[("Pleural Effusion", "AUC"), "value"] == 0.5
    assert table.loc[("Edema", "AUC"), "images"] == 59
    assert "Brier" not in table.index.get_level_values("metric")


def test_one_class_is_not_available_and_left_out_of_the_mean(own, capsys):
    for row in own["truth"][1:]:
        row[2] = 0
    assert run(own) == 0
    table = values(own)
    assert np.isnan(table.loc[("Edema", "AUC"), "value"])
    assert table.loc[("mean", "AUC"), "value"] == table.loc[("Pleural Effusion", "AUC"), "value"]
    assert table.loc[("mean", "AUC"), "note"] == "one class only: Edema"
    printed = capsys.readouterr()
    assert "Edema: the truth has one class only" in printed.err
    assert "n/a" in printed.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("predictions", 3, 1, "nan"), "1 predictions are blank, NaN or infinite, the first"),
        (put("predictions", 3, 1, ""), "'Edema' of image 2; predict them again"),
        (put("predictions", 3, 1, "inf"), "NaN or infinite"),
        (put("predictions", 3, 1, "0,5"), "'Edema' of image 2 is '0,5', which is no number"),
        (put("predictions", 3, 1, "1_0"), "which is no number"),
        (put("truth", 3, 2, -1), "settle uncertain labels"),
        (put("truth", 3, 2, 0.5), "holds 0.5 among 1 values that are not 0, 1 or blank"),
        (repeat("predictions"), "1 ids more than once (image 2)"),
        (repeat("truth"), "1 ids more than once (image 2)"),
        (put("predictions", 3, 0, " "), "line 4 has no id"),
        (put("predictions", 0, 0, ""), "may hold row numbers"),
        (put("predictions", 0, 0, "Unnamed: 0"), "may hold row numbers"),
        (put("predictions", 0, 2, "edema"), "'edema' as a column more than once"),
        (rename_ids, "share no id: other/picture image 0"),
        (only_names, "share no label column: who, Edema, Pleural Effusion against Mass, Hernia"),
        (shorten, "2 fields in line 5, but its header has 3"),
        (without_rows, "has no rows"),
    ],
)
def test_files_that_cannot_be_scored_are_refused(own, capsys, change, message):
    change(own)
    assert run(own) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--patient-column", "nobody"], "Neither file has a column 'nobody'"),
        (["--id-column", "nothing"], "no column 'nothing', which --id-column names"),
        (["--labels", "Edema,Mass"], "no column 'Mass', which --labels names"),
        (["--tree", "chexpert"], "needs 12 labels more"),
        (["--compare", "nowhere.csv"], "There is no file nowhere.csv"),
    ],
)
def test_flags_that_do_not_fit_the_files_are_refused(own, capsys, flags, message):
    assert run(own, *flags) == 2
    assert message in capsys.readouterr().err


def test_files_that_are_not_a_table_are_refused(own, capsys):
    run(own)
    broken = own["folder"] / "predictions.csv"
    for content in (b"", b"id;Edema\n1;2\n", b"\xff\xfe\x00"):
        broken.write_bytes(content)
        assert rescore("--predictions", broken, "--truth", own["folder"] / "truth.csv") == 2
    message = capsys.readouterr().err
    assert "separated by commas; its first line is 'id;Edema'" in message
    assert "is not UTF-8 text" in message
    broken.write_text("id,Edema\n1,0.2\n")
    assert rescore("--predictions", broken) == 2
    assert "holds no truth" in capsys.readouterr().err


def test_labels_choose_the_columns(own):
    own["truth"][0].append("Age")
    own["predictions"][0].append("Age")
    for row in (*own["truth"][1:], *own["predictions"][1:]):
        row.append(63)
    assert run(own) == 2
    assert run(own, "--labels", "edema") == 0
    assert {*values(own).index.get_level_values("group")} == {"Edema", "mean", "weighted mean"}


def test_comparing_two_models(own):
    better = own["folder"] / "better.csv"
    with better.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(own["predictions"][0])
        for true, row in zip(own["truth"][1:], own["predictions"][1:], strict=True):
            writer.writerow([row[0], 0.6 * row[1] + 0.4 * true[2], row[2]])
    assert run(own, "--compare", str(better), "--patient-column", "who") == 0
    out = scored(own, f"{own['folder'].name}-predictions-against-{own['folder'].name}-better")
    table = pd.read_csv(out / "compare.csv").set_index(["group", "metric"])
    improved, same = table.loc[("Edema", "AUC")], table.loc[("Pleural Effusion", "AUC")]
    assert improved["difference"] > improved["low"]  # of 16 patients: wide
    assert improved["p"] < 0.05
    assert improved["p_holm"] == pytest.approx(2 * improved["p"])
    assert (same["difference"], same["p"]) == (0, 1)
    assert (out / "compare.svg").is_file()


def test_a_tree_adds_groups_and_violations(own):
    names = labels.CHEXPERT_HIERARCHY
    generator = np.random.default_rng(0)
    own["truth"] = [["id", *names]]
    own["predictions"] = [["id", *names]]
    for row in range(80):
        own["truth"].append([f"i{row}", *(generator.random(len(names)) < 0.4).astype(int)])
        own["predictions"].append([f"i{row}", *generator.random(len(names)).round(4)])
    assert run(own, "--tree", "chexpert-abnormal", "--ge") == 0
    groups = {*values(own).index.get_level_values("group")}
    assert {"leaf", "high-level", "leaf given Abnormal", "W", "D", "N"} <= groups
    broken = pd.read_csv(scored(own) / "violations.csv")
    assert len(broken) == 12
    assert (broken["contradictions"] > 0).all()
    assert "implied by AUC" in (scored(own) / "table.md").read_text("utf-8")


def test_a_runs_predictions_hold_their_own_truth(own, capsys):
    truth = np.array([row[2:] for row in own["truth"][1:]], np.float32)
    members = np.random.default_rng(0).random((4, 60, 2)).astype(np.float32)
    ids, patients = zip(*(row[:2] for row in own["truth"][1:]), strict=True)
    path = own["folder"] / "predictions.npz"
    save(path, Predictions(ids, patients, LABELS, truth, members, {}))
    out = ["--results-dir", own["folder"] / "out", "--resamples", 60]
    assert rescore("--predictions", path, *out) == 0
    table = values(own)
    mean = members.astype(float).mean(axis=0)
    assert table.loc[("Edema", "AUC"), "value"] == pytest.approx(
        roc_auc_score(truth[:, 0], mean[:, 0])
    )
    found = table.loc[("Edema", "errors found (AUC of the spread)"), "value"]
    wrong = (mean[:, 0] > 0.5) != (truth[:, 0] == 1)
    assert found == pytest.approx(roc_auc_score(wrong, members.astype(float).std(axis=0)[:, 0]))
    assert "patient" not in capsys.readouterr().err.replace("16 patients", "").replace(
        "18 patients", ""
    )
    other = own["folder"] / "other.npz"
    save(other, Predictions(ids, patients, LABELS, 1 - truth, members, {}))
    assert rescore("--predictions", path, "--compare", other, *out) == 2
    assert "hold different truths" in capsys.readouterr().err


# The command


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["pham2019"],
        ["pham2019", "--predictions", "a.csv"],
        ["pham2019", "--released", ".", "--truth", "a.csv"],
        ["--predictions", "a.csv", "--resamples", "-1"],
        ["--predictions", "a.csv", "--seed", "-1"],
        ["--predictions", "a.csv", "--download"],
        ["pham2019", "--released", ".", "--base-url", "http://here"],
    ],
)
def test_incomplete_or_contradictory_commands_are_refused(flags, capsys):
    assert rescore(*flags) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_neither_help_nor_scoring_loads_tensorflow(own):
    assert run(own) == 0
    given = [f"--{name}={own['folder'] / name}.csv" for name in ("predictions", "truth")]
    code = (
        "import sys; from reproduce.rescore.__main__ import main\n"
        "with __import__('contextlib').suppress(SystemExit): main(['--help'])\n"
        f"main({given!r})\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'matplotlib', 'cv2', 'tqdm'}\n"
        "print('loaded', heavy & {*sys.modules})"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "usage: python -m reproduce.rescore" in shown.stdout
    assert shown.stdout.strip().endswith("loaded set()")
