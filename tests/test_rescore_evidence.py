"""Score Zech's predictions, the leaderboard and experts' labels; detect misplaced rows."""

import csv
import gzip
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from data import labels, public_lists
from evaluation import EvaluationError, published
from reproduce.rescore import __main__ as command
from reproduce.rescore import evidence, experts, leaderboard, lists, matching, row_audit
from reproduce.tables import authors
from reproduce.tables.details import of_predictions
from tests.conftest import REPOSITORY
from tests.rescore_command import rescore

FIVE = list(labels.CHEXPERT_COMPETITION)


@pytest.fixture(scope="module")
def zech(shared_data):
    label_file = shared_data / "chestxray14-labels" / "Data_Entry_2017_v2020.csv.gz"
    return authors.read("zech2018", shared_data / "released", label_file)


# Zech


def test_zech_gives_the_mean_auc_and_agrees_with_his_own_label_by_label(shared_data, tmp_path):
    folder = shared_data / "chestxray14-labels"
    code = (
        "import sys\nfrom reproduce.rescore.__main__ import main\n"
        f"main(['zech2018', '--released', r'{shared_data / 'released'}', '--data-dir', r'{folder}',"
        f" '--results-dir', r'{tmp_path}', '--resamples', '20'])\n"
        "print([name for name in ('tensorflow', 'keras', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "the CheXNet test list, whole: 22,433 images" in done.stdout
    assert "equal ours in 14 of 14 labels" in done.stdout
    assert "BSD-3-Clause" in done.stdout
    table = pd.read_csv(tmp_path / "zech2018" / "released" / "table.csv").set_index("column")
    assert table.loc["mean", "ours"] == pytest.approx(0.8383, abs=5e-5)
    own = pd.read_csv(shared_data / "released" / "chexnet-zech" / "aucs.csv", index_col="label")
    for label, auc in own["auc"].items():
        assert table.loc[label, "ours"] == pytest.approx(auc, abs=1e-6)
        assert float(table.loc[label, "printed"]) == pytest.approx(auc, abs=5.1e-5)


def test_another_label_file_is_refused(shared_data, tmp_path, capsys):
    own = tmp_path / "Data_Entry_2017.csv"
    own.write_text(
        "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position\n"
    )
    folder = shared_data / "released"
    assert rescore("zech2018", "--released", folder, "--data-dir", tmp_path) == 2
    assert "is not ChestX-ray14's whole label file" in capsys.readouterr().err


# Lists of images


def test_the_patients_of_the_official_test_list(shared_data):
    with gzip.open(shared_data / "chestxray14-labels" / "test_list.txt.gz", "rt") as file:
        ids = file.read().split()
    assert {str(int(name[:8])) for name in ids} == public_lists.official_test_patients()
    assert lists.describe(ids) == "These images are the official test list, whole: 25,596 images."
    assert lists.describe(ids[:50]).startswith("These 50 images are part of the official test list")


def test_images_of_no_list():
    ids = [f"{patient:08d}_000.png" for patient in range(1, 400)]
    assert "are no known test list" in lists.describe(ids)
    assert lists.describe(["patient1/study1"]) == ""
    assert lists.describe(["00099999_000.png"]) == ""  # beyond the last patient


# Predictions that fit other rows


def synthetic(images=600, seed=0):
    generator = np.random.default_rng(seed)
    targets = (generator.random((images, 3)) < 0.3).astype(float)
    return targets, np.clip(0.3 * targets + 0.7 * generator.random((images, 3)), 0, 1)


@pytest.mark.parametrize(
    ("shift", "rows"),
    [(0, ""), (1, "1 row before"), (40, "40 rows before"), (-40, "40 rows after")],
)
def test_shifted_rows_are_detected(shift, rows):
    targets, scores = synthetic()
    text = row_audit.sentence(np.roll(scores, shift, axis=0), targets, ["a"] * 600, targets)
    if shift:
        assert f"fit the images {rows} the ones that they name" in text
    else:
        assert text == ""


@pytest.mark.parametrize(
    ("first", "place"),
    [
        (0, "the first 500 rows of the label file"),
        (300, "500 rows of the label file from row 301 on"),
    ],
)
def test_predictions_of_other_rows_of_the_label_file_are_detected(first, place):
    targets, scores = synthetic(2000)
    ids = [f"image {row}" for row in range(2000)]
    text = row_audit.sentence(scores[first : first + 500], targets[1500:], ids, targets)
    assert f"fit {place}" in text


def test_shuffled_rows_fit_nothing():
    targets, scores = synthetic()
    shuffled = np.random.default_rng(1).permutation(scores)
    text = row_audit.sentence(shuffled, targets, ["a"] * 600, targets)
    assert "may be shuffled" in text
    assert row_audit.sentence(shuffled[:100], targets[:100], ["a"] * 600, targets) == ""


def test_a_shifted_file_of_real_predictions_is_found(shared_data, tmp_path, capsys):
    with (shared_data / "released" / "chexnet-zech" / "preds.csv").open() as file:
        header, *rows = csv.reader(file)
    shifted = [[row[0], *other[1:]] for row, other in zip(rows, rows[7:] + rows[:7], strict=True)]
    path = tmp_path / "shifted.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *shifted])
    folder = shared_data / "chestxray14-labels"
    assert rescore("--predictions", path, "--data-dir", folder, "--resamples", 2) == 0
    captured = capsys.readouterr()
    assert "fit the images 7 rows after the ones that they name (mean AUC 0.838" in captured.err
    assert "the CheXNet test list, whole" in captured.out


def test_ids_with_folders_match_file_names(tmp_path):
    (tmp_path / "truth.csv").write_text("id,Mass,View Position\n1.png,0,AP\n2.png,1,PA\n")
    (tmp_path / "preds.csv").write_text("id,Mass\nimages/2.png,.9\nimages/1.png,.1\n")
    data = matching.match(tmp_path / "preds.csv", tmp_path / "truth.csv")
    assert data.models[0][0, :, 0].tolist() == [0.1, 0.9]
    assert (data.ids, data.about) == (["1.png", "2.png"], {"view": ["AP", "PA"]})
    assert any("matched without their folders" in warning for warning in data.warnings)


# The leaderboard


@pytest.fixture
def board(shared_data, tmp_path):
    """A folder with the real truth and Pham's file, and two models made from his."""
    for name in ("groundtruth.csv", "hieupham_predictions.csv"):
        shutil.copy(shared_data / "released" / "chexpert-test" / name, tmp_path)
    pham = pd.read_csv(tmp_path / "hieupham_predictions.csv", index_col="Study")
    noise = np.random.default_rng(0).normal(size=pham.shape)
    (pham + 1e-9 * noise).iloc[::-1].to_csv(tmp_path / "twin_predictions.csv")
    (pham + noise).to_csv(tmp_path / "worse_predictions.csv")
    return tmp_path


def test_models_are_compared_with_phams(board, capsys):
    results = board / "results"
    code = rescore("leaderboard", "--released", board, "--results-dir", results, "--resamples", 200)
    assert code == 0
    out = capsys.readouterr().out
    assert "twin_predictions.csv is not one of the ten released models" in out
    assert "Not found, so not compared: desmond" in out
    assert "none in the repository" in out
    folder = results / "leaderboard" / "released"
    gaps = pd.read_csv(folder / "differences.csv").set_index(["model", "group"])
    assert gaps.loc[("twin", "mean"), "difference"] == pytest.approx(0, abs=1e-4)
    assert gaps.loc[("worse", "mean"), "high"] < 0
    assert gaps.loc[("worse", "mean"), "p_holm"] < 0.05 < gaps.loc[("twin", "mean"), "p_holm"]
    assert gaps["equivalent"].to_dict() == {key: key == ("twin", "mean") for key in gaps.index}
    assert "Of the 2 others, 1 are equivalent to it" in out
    assert "twin is nearly Pham's model" in out
    claim = pd.read_csv(folder / "state-of-the-art.csv").iloc[0]
    assert claim["ours"] == "within noise"
    scored = pd.read_csv(folder / "models.csv").set_index(["model", "group"])["value"]
    assert scored["hieupham", "mean"] == pytest.approx(0.9243, abs=5e-5)


def test_the_claim_holds_where_all_others_are_worse(board):
    (board / "twin_predictions.csv").unlink()
    truth, models, _ = leaderboard.read(board)
    assert leaderboard.verdict(*leaderboard.compare(truth, models, 200, 0))[0] == "holds"
    truth_itself = truth[FIVE].to_numpy(float)
    better = {**models, "perfect": truth_itself}
    assert leaderboard.verdict(*leaderboard.compare(truth, better, 200, 0))[0] == "does not hold"


def test_models_with_columns_in_common_are_named():
    random = np.random.default_rng(0)
    pham, other, third = (random.normal(size=(100, 5)) for _ in range(3))
    copied, near = other.copy(), pham.copy()
    copied[:, 1] = third[:, 1]
    order = pham[:, 3].argsort()
    near[order[[0, 10]], 3] = pham[order[[10, 0]], 3]  # ranks 1 and 11 change places
    models = {"hieupham": pham, "other": other, "copied": copied, "third": third, "near": near}
    # Spearman: 1 - 6 * (10² + 10²) / (100 * (100² - 1)) = .99880
    assert leaderboard.alike(models) == [
        "hieupham and near have identical probabilities of Atelectasis, Cardiomegaly, "
        "Consolidation and Pleural Effusion.",
        "other and copied have identical probabilities of Atelectasis, Consolidation, Edema and "
        "Pleural Effusion.",
        "copied and third have identical probabilities of Cardiomegaly.",
        "near is nearly Pham's model: for every finding, the ranks of the studies correlate by "
        ".999 or more.",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="Edema"), "has no column Edema"),
        (lambda table: table.iloc[1:], "has 499 rows of 499 studies"),
        (lambda table: table.assign(Edema="?"), "predictions that are no numbers"),
    ],
)
def test_a_models_file_that_does_not_fit_is_refused(board, capsys, change, message):
    path = board / "worse_predictions.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    assert rescore("leaderboard", "--released", board) == 2
    assert message in capsys.readouterr().err


def test_a_changed_file_of_a_known_model_is_refused(board, capsys):
    shutil.copy(board / "worse_predictions.csv", board / "drnet_predictions.csv")
    assert rescore("leaderboard", "--released", board) == 2
    assert "is not the file that was released" in capsys.readouterr().err


def test_the_leaderboard_needs_more_than_phams(shared_data, capsys):
    assert rescore("leaderboard", "--released", shared_data / "released") == 2
    assert "holds 1 of the ten models' CSVs" in capsys.readouterr().err


# Experts' labels

PRINTED = {  # experts, NIH
    "Consolidation": (0.844, 0.575),
    "Pleural_Thickening": (0.853, 0.536),
    "Cardiomegaly": (0.973, 0.878),
    "Effusion": (0.903, 0.839),
}


def test_both_truths_on_the_188_images(shared_data, zech):
    sample = of_predictions(zech.predictions, zech.about)
    frames, parts = experts.analyse(sample, shared_data / "expert-relabels", 50, 0)
    table = frames["experts"].query("experts == 'all findings'").set_index("group")
    for label, (expert, nih) in PRINTED.items():
        assert table.loc[label, "expert"] == pytest.approx(expert, abs=5e-4)
        assert table.loc[label, "nih"] == pytest.approx(nih, abs=5e-4)
        assert table.loc[label, "expert_low"] < expert < table.loc[label, "expert_high"]
        assert table.loc[label, "difference"] == pytest.approx(expert - nih, abs=1e-3)
    counts = table.loc["Atelectasis", ["expert_positives", "nih_positives", "images"]]
    assert counts.tolist() == [68, 17, 188]
    four = frames["experts"].query("experts == 'four findings'").set_index("group")
    assert (four["images"] == 935).all()
    assert list(four.index) == [*labels.FOUR_FINDINGS, "mean"]
    read_by = frames["readers"].query("experts == 'all findings'")
    assert read_by["reader"].nunique() == 5
    assert set(parts) == {
        "Experts' labels, all findings: 188 images",
        "Experts' labels, four findings: 935 images",
    }


def test_a_reader_by_hand():
    ids = [f"0000000{row}_000.png" for row in range(1, 5)]
    both = experts.OnBoth(
        ["Mass"], ids, np.zeros((4, 1)), np.array([[1], [1], [0], [0.0]]),
        np.array([[0.9], [0.4], [0.6], [0.1]]), None,
    )  # fmt: skip
    readings = pd.DataFrame({"reader": ["a"] * 4, "Mass": [1, np.nan, 0, 1.0]}, index=ids)
    made = experts.readers(both, experts.ExpertSet("x", readings, readings, {"Mass": ("Mass",)}))
    row = made.iloc[0]
    # this reader left the second image open: one hit of one, one false alarm of two
    assert (row["sensitivity"], row["specificity"], row["images"]) == (1, 0.5, 3)
    assert row["below_curve"] == 1  # the model ranks that positive above both negatives


def test_images_without_experts_labels_are_refused(shared_data, tmp_path, capsys):
    (tmp_path / "truth.csv").write_text("id,Mass\n1,0\n2,1\n3,1\n")
    (tmp_path / "preds.csv").write_text("id,Mass\n1,.2\n2,.9\n3,.1\n")
    flags = ("--predictions", tmp_path / "preds.csv", "--truth", tmp_path / "truth.csv")
    more = ("--truth", "experts", "--experts", shared_data / "expert-relabels")
    assert rescore(*flags, *more) == 2
    assert "None of the scored images has experts' labels" in capsys.readouterr().err
    assert rescore(*flags, "--truth", "experts", "--experts", tmp_path) == 2
    assert "healthcare-nih-chest-xray-labels" in capsys.readouterr().err


# Operating points, subgroups and calibration of a CSV


@pytest.fixture
def own(tmp_path):
    targets, scores = synthetic(400)
    ids = [f"{row // 2 + 1:08d}_{row % 2:03d}.png" for row in range(400)]
    truth = pd.DataFrame(targets[:, :2].astype(int), columns=["Mass", "Edema"])
    truth.insert(0, "id", ids)
    sexes, ages = np.where(np.arange(400) % 4 < 2, "M", "F"), np.arange(400) % 90
    truth = truth.assign(**{"Patient ID": np.arange(400) // 2 + 1, "Patient Gender": sexes})
    truth.assign(**{"Patient Age": ages}).to_csv(tmp_path / "truth.csv", index=False)
    predicted = pd.DataFrame(scores[:, :2], columns=["prob_Mass", "prob_Edema"])
    predicted.insert(0, "id", ids)
    predicted[:300].to_csv(tmp_path / "test.csv", index=False)
    predicted[300:].to_csv(tmp_path / "val.csv", index=False)
    return tmp_path


def run(own, *flags) -> int:
    files = ("--predictions", own / "test.csv", "--truth", own / "truth.csv")
    return rescore(*files, "--results-dir", own / "out", "--resamples", 30, *flags)


def test_all_analyses_of_a_csv(own, capsys):
    flags = ("--by", "sex,age", "--operating-point", "sensitivity=0.8", "--calibrate")
    assert run(own, *flags, "--validation", own / "val.csv") == 0
    out = capsys.readouterr().out
    assert "chosen on validation images" in out
    folder = next((own / "out" / "rescored").iterdir())
    for name in ("operating-points", "subgroups", "gaps", "calibration", "reliability"):
        assert (folder / f"{name}.csv").is_file()
    assert {path.name for path in folder.glob("*.svg")} >= {"reliability.svg", "subgroups.svg"}
    assert "ECE, temperature" in (folder / "calibration.csv").read_text()
    assert run(own) == 0  # tables of an earlier command do not stay beside newer numbers
    assert not (folder / "subgroups.csv").exists()


def test_without_validation_a_remark_says_that_the_test_images_were_used(own, capsys):
    assert run(own, "--operating-point", "youden", "--calibrate") == 0
    out = capsys.readouterr().out
    assert "chosen on the scored images themselves" in out
    assert "No temperature was fitted" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--by", "view"), "Nothing says the view of these images"),
        (("--by", "income"), "--by 'income' is unknown"),
        (("--operating-point", "best"), "'best' is no operating point"),
        (("--validation", "val.csv"), "add --operating-point"),
        (("--operating-point", "youden", "--validation", "test.csv"), "are both in --validation"),
        (("--truth", "experts"), "needs --experts DIR"),
        (("--experts", "here"), "goes with --truth experts"),
    ],
)
def test_flags_that_do_not_fit_are_refused(own, capsys, flags, message):
    flags = [str(own / flag) if flag.endswith(".csv") else flag for flag in flags]
    assert run(own, *flags) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


# The page


def rescored_side(*cells) -> pd.DataFrame:
    frame = pd.DataFrame(cells, columns=["column", "metric", "printed", "ours", "verdict"])
    difference = frame["ours"] - frame["printed"].astype(float)
    return frame.assign(low=0.1, high=0.99, difference=difference, note="")


def test_printed_numbers_are_counted_by_what_is_known_of_their_images():
    sides = {
        "pham2019": rescored_side(
            ("mean", "AUC", "0.930", 0.9243, "same images, differs by .0057"),
            ("mean", "radiologists", "2.6", 2.6, "equal to 1 decimal"),
        ),
        "asadi2025": rescored_side(("weighted mean", "AUC", "0.903", 0.9047, published.COMPATIBLE)),
        "zech2018": rescored_side(("Mass", "AUC", "0.8377", 0.83768, "equal to 4 decimals")),
    }
    assert evidence.in_words(sides) == [
        "On the same images, 2 of 3 recomputed numbers equal the printed ones in every printed "
        "decimal.",
        "Pham et al. 2019: the mean AUC differs by .0057 (0.930 printed).",
        "Where the images may be others, 1 of 1 printed numbers lies within the interval, so other "
        "patients explain the difference.",
    ]
    assert len(evidence.in_words({"zech2018": sides["zech2018"]})) == 1


def test_experts_headline_of_findings_with_enough_cases():
    """A has 6 cases by both labels, B only by one; the mean over A alone is the row of `MEAN`."""
    table = pd.DataFrame(
        {
            "group": ["A", "B", "mean", experts.MEAN],
            "nih_positives": [6, 5, 11, 6],
            "expert_positives": [9, 30, 39, 9],
            "nih": [0.7, 0.6, 0.65, 0.7],
            "expert": [0.9, 0.6, 0.75, 0.9],
            "difference": [0.2, 0.0, 0.1, 0.2],
        }
    ).assign(low=0.05, high=0.35)
    assert evidence._enough(table) == (
        "Over the 1 findings with 6 or more cases by both labels, it is .900 instead of .700 "
        "(difference .200 [.050, .350])."
    )
    assert evidence._enough(table[:3]) == ""


def test_the_page_shows_what_is_generated(shared_data, zech):
    text = evidence.PAGE.read_text("utf-8")
    options = command.parse(["evidence", "--released", str(shared_data / "released")])
    rows = []
    for paper in evidence.WHO:
        of_paper = zech if paper == "zech2018" else authors.read(paper, options.released)
        arguments = paper, of_paper, options.resamples, options.seed
        side, _ = evidence.released.rescore_paper(*arguments)
        rows += evidence.rescored_rows(paper, side)
    for row in rows:
        assert f"| {row['printed']} | {row['recomputed']} | {row['verdict']} |" in text
    sample = of_predictions(zech.predictions, zech.about)
    folder = shared_data / "expert-relabels"
    frames, _ = experts.analyse(sample, folder, options.resamples, options.seed)
    for _, table in frames["experts"].groupby("experts"):
        shown = evidence.experts_for_laymen(table)
        for line in evidence.tables.to_markdown(shown).splitlines():
            assert line in text, "run python -m reproduce.rescore evidence … --write-docs"
    for picture in ("subgroups.svg", "reliability.svg"):
        assert (evidence.FIGURES / picture).is_file()


def test_missing_files_are_named(shared_data, tmp_path, capsys):
    for path in (shared_data / "released" / "chexpert-test").rglob("*.csv"):
        shutil.copy(path, tmp_path)
    assert rescore("evidence", "--released", tmp_path, "--results-dir", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "not available: zech2018" in out
    assert "not available: leaderboard" in out
    page = (tmp_path / "out" / "evidence" / "released" / "evidence.md").read_text("utf-8")
    assert "Not available, so not checked" in page
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(EvaluationError, match="holds none of the released files"):
        evidence.gather(command.parse(["evidence", "--released", str(empty)]))
