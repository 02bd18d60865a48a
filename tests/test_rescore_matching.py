"""Match files of predictions and truth: names, the official label file, damaged files."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import labels
from evaluation import EvaluationError
from reproduce.rescore import matching, reading, score
from tests.rescore_command import rescore

ROOT = Path(__file__).parents[1]
TRUTH = "id,Edema,Pleural Effusion\na,1,0\nb,0,1\nc,0,0\n"


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    "header",
    [
        "id,prob_Edema,prob_Pleural_Effusion",
        "id,Edema_pred,Pleural Effusion_pred",
        "id,p_edema,P_Pleural-Effusion",
        "id,score Edema,Pleural.Effusion.Score",
        "id,Probability_Edema,Pleural_Effusion_probability",
        "id,logit_Edema,Pleural Effusion",
    ],
)
def test_predicted_columns_may_be_marked_as_such(tmp_path, header):
    truth = put(tmp_path, "truth.csv", TRUTH)
    predictions = put(tmp_path, "preds.csv", f"{header}\nc,.1,.2\na,.8,.3\nb,.4,.7\n")
    matched = matching.match(predictions, truth)
    assert matched.labels == ["Edema", "Pleural Effusion"]
    np.testing.assert_array_equal(matched.models[0][0], [[0.8, 0.3], [0.4, 0.7], [0.1, 0.2]])


def test_truth_and_predictions_may_stand_in_one_file(tmp_path):
    text = "Path,Edema_GT,Edema_Pred,Edema_AE\na,1,.9,.1\nb,0,.2,.2\nc,1,.3,.7\n"
    both = put(tmp_path, "both.csv", text)
    for truth in (None, both):
        matched = matching.match(both, truth)
        assert matched.labels == ["Edema"]
        assert matched.targets[:, 0].tolist() == [1, 0, 1]
        assert matched.models[0][0, :, 0].tolist() == [0.9, 0.2, 0.3]
        assert f"{both}: 1 columns not scored (Edema_AE)" in matched.warnings


def test_a_marked_column_is_preferred_and_two_are_refused(tmp_path):
    truth = put(tmp_path, "truth.csv", TRUTH)
    preds = put(tmp_path, "preds.csv", "id,Edema,prob_Edema\na,1,.9\nb,0,.2\nc,0,.1\n")
    matched = matching.match(preds, truth)
    assert matched.models[0][0, :, 0].tolist() == [0.9, 0.2, 0.1]
    preds = put(tmp_path, "preds.csv", "id,prob_Edema,Edema_pred\na,1,.9\nb,0,.2\nc,0,.1\n")
    with pytest.raises(EvaluationError, match="'prob_Edema' and 'Edema_pred' both predict 'edema'"):
        matching.match(preds, truth)
    twice = put(tmp_path, "truth.csv", "id,Edema,Edema_GT\na,1,0\nb,0,1\nc,0,0\n")
    preds = put(tmp_path, "preds.csv", "id,prob_Edema\na,.9\nb,.2\nc,.1\n")
    with pytest.raises(EvaluationError, match="'Edema' and 'Edema_GT' are both the truth"):
        matching.match(preds, twice)


def test_labels_that_begin_with_such_a_word_match_as_they_are(tmp_path):
    truth = put(tmp_path, "truth.csv", "id,label_1,Score of Edema,P\na,1,0,1\nb,0,1,0\n")
    preds = put(tmp_path, "preds.csv", "id,label_1,Score of Edema,P\na,.9,.1,.3\nb,.2,.4,.6\n")
    assert matching.match(preds, truth).labels == ["label_1", "Score of Edema", "P"]


@pytest.mark.parametrize("name", ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv.gz"])
def test_the_official_label_file_is_truth_with_its_patients(tmp_path, name):
    # the first release ends every line with a comma
    end = "," if name == "Data_Entry_2017.csv" else ""
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender"
    header += ",View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    rows = ["No Finding,0,1", "Edema|Pleural_Thickening,0,2", "Hernia,1,2", "Edema,0,3"]
    lines = [f"{i}.png,{row},58,M,PA,2682,2749,0.143,0.143" for i, row in enumerate(rows)]
    truth = put(tmp_path, name, "".join(f"{line}{end}\n" for line in [header, *lines]))
    text = "Image Index,prob_Edema,prob_Pleural_Thickening\n2.png,.1,.2\n0.png,.3,.4\n1.png,.5,.6\n"
    matched = matching.match(put(tmp_path, "preds.csv", text), truth)
    assert matched.labels == ["Edema", "Pleural_Thickening"]
    assert matched.targets.tolist() == [[0, 0], [1, 1], [0, 0]]
    assert matched.patients.tolist() == ["1", "2", "2"]
    assert any("scored on 3 of the 4 images" in each for each in matched.warnings)
    assert not any("patient" in each for each in matched.warnings)


@pytest.mark.parametrize("cell", ["Oedema", "No Finding|Edema", "", "Edema||Mass", "Edema,Mass"])
def test_findings_that_are_none_are_refused(tmp_path, cell):
    text = f'id,Finding Labels\na,No Finding\nb,"{cell}"\n'
    preds = put(tmp_path, "preds.csv", "id,Edema\na,.5\nb,.6\n")
    with pytest.raises(EvaluationError, match="Finding Labels of b is"):
        matching.match(preds, put(tmp_path, "truth.csv", text))


def test_expert_labels_beside_the_official_column_count(tmp_path):
    text = "Image Index,Finding Labels,Patient ID,Pneumothorax\na,No Finding,1,YES\nb,Mass,2,NO\n"
    preds = put(tmp_path, "preds.csv", "id,Pneumothorax,Mass\na,.5,.3\nb,.6,.2\n")
    matched = matching.match(preds, put(tmp_path, "truth.csv", text))
    assert matched.labels == ["Pneumothorax"]
    assert matched.targets.tolist() == [[1], [0]]
    assert any(
        "Finding Labels is not used beside Pneumothorax" in each for each in matched.warnings
    )


# What is refused


@pytest.mark.parametrize("names", [["A", "a", "B"], ["A", " A"], ["A_b", "A b"]])
def test_labels_of_an_npz_that_match_alike_are_refused(tmp_path, names):
    path, numbers = tmp_path / "predictions.npz", np.eye(4, len(names), dtype=np.float32)
    arrays = {"ids": list("wxyz"), "patients": list("wxyz"), "labels": names, "meta": "{}"}
    np.savez(path, **arrays, targets=numbers, probabilities=numbers[None])
    with pytest.raises(EvaluationError, match="more than once"):
        matching.match(path)


def test_labels_named_twice_are_refused(tmp_path):
    truth = put(tmp_path, "truth.csv", TRUTH)
    with pytest.raises(EvaluationError, match="names 'Edema' twice"):
        matching.match(truth, put(tmp_path, "t.csv", TRUTH), labels=["Edema", "edema"])


def patients(folder: Path, true: list[str], predicted: list[str]) -> matching.Matched:
    lines = [f"{name},{who},{i % 2}" for i, (name, who) in enumerate(zip("abc", true, strict=True))]
    truth = put(folder, "truth.csv", "\n".join(["id,who,Edema", *lines]))
    lines = [
        f"{name},{who},.{i}" for i, (name, who) in enumerate(zip("abc", predicted, strict=True))
    ]
    predictions = put(folder, "preds.csv", "\n".join(["id,who,Edema", *lines]))
    return matching.match(predictions, truth, patient_column="who")


def test_patients_that_disagree_are_refused(tmp_path):
    assert patients(tmp_path, ["1", "2.0", "03"], ["01", "2", "3"]).patients.tolist() == list("123")
    with pytest.raises(EvaluationError, match="different patients of c: '3' and '4'"):
        patients(tmp_path, ["1", "2", "3"], ["1", "2", "4"])
    with pytest.raises(EvaluationError, match="patient 99 in two ways, '99' and '099'"):
        patients(tmp_path, ["99", "099", "1"], ["99", "099", "1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'id,Edema\na,"1\nb,0\n', "stray quotation mark"),
        (b"id,Edema\na,1,2\n", "3 fields in line 2"),
        (b"id,Edema\n\n\na\n", "1 field in line 4"),
        (b"id,Edema\na,\x00\n", "truth.csv"),
        (gzip.compress(TRUTH.encode(), mtime=0)[:30], "gzip file"),
        (b"\x1f\x8b" + b"x" * 40, "gzip file"),
        (gzip.compress(TRUTH.encode(), mtime=0)[:-6] + b"abcdef", "gzip file"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, content, message, capsys):
    (tmp_path / "truth.csv").write_bytes(content)
    preds = put(tmp_path, "preds.csv", TRUTH)
    assert rescore("--predictions", preds, "--truth", tmp_path / "truth.csv") == 2
    shown = capsys.readouterr().err.strip()
    assert message in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize("path", ["x" * 300, ".", "/proc/1/mem/x", "a\nb"])
def test_impossible_paths_are_one_sentence(tmp_path, path, capsys):
    assert rescore("--predictions", path, "--truth", path) == 2
    assert rescore("pham2019", "--released", path) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("results", ["file", "file/below", "/proc/here", "x" * 300])
def test_a_results_folder_that_cannot_be_is_one_sentence(tmp_path, results, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "file", "precious")
    preds, truth = put(tmp_path, "preds.csv", TRUTH), put(tmp_path, "truth.csv", TRUTH)
    given = ["--predictions", preds, "--truth", truth, "--resamples", 9]
    assert rescore(*given, "--results-dir", results) == 2
    assert results in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/y", "http://", "http://[::1", "http://a b/"])
def test_addresses_that_are_none_are_one_sentence(tmp_path, url, capsys):
    given = ["pham2019", "--released", tmp_path / "r", "--download", "--base-url", url]
    assert rescore(*given) == 2
    shown = capsys.readouterr().err
    assert url in shown
    assert "Traceback" not in shown


# Where the tables go


def test_folders_are_named_after_the_files_and_kept_apart(tmp_path):
    run = tmp_path / "chen2019" / "plco" / "HLCP" / "seed-0"
    other = tmp_path / "a" / "model"
    again = tmp_path / "b" / "model"
    for folder in (run, other, again):
        folder.mkdir(parents=True)
    (run / "config.json").write_text("{}")

    def name(*paths: Path) -> str:
        return score.own_folder(tmp_path, paths[:1], paths[1] if len(paths) > 1 else None).name

    assert name(run / "predictions.npz") == "chen2019-plco-HLCP-seed-0"
    assert (
        name(run / "predictions-chexpert.npz") == "chen2019-plco-HLCP-seed-0-predictions-chexpert"
    )
    assert name(other / "preds.csv.gz") == "model-preds"
    first, second = name(other / "preds.csv"), name(again / "preds.csv")
    assert len({"model-preds", first, second}) == 3  # three files
    assert name(other / "preds.csv.gz") == "model-preds"
    assert name(again / "preds.csv") == second  # the same file again
    assert name(other / "x.csv", again / "y.csv") == "model-x-against-model-y"


# In a pipe


def test_a_pipe_gets_one_block_and_may_stop_reading(tmp_path):
    names = [*labels.CHESTXRAY14]
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.random((60, 14)).round(4), columns=names)
    truth = (frame > 0.5).astype(int).assign(**{"Patient ID": range(60)})
    for name, table in (("preds", frame), ("truth", truth)):
        table.rename_axis("id").to_csv(tmp_path / f"{name}.csv")
    preds, truth = (
        f"--{flag}={tmp_path / name}.csv"
        for flag, name in (("predictions", "preds"), ("truth", "truth"))
    )
    words = [sys.executable, "-m", "reproduce.rescore", preds, truth, "--resamples", "9"]
    whole = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("Pleural_Thickening") == 1
    reader, writer = os.pipe()
    os.close(reader)
    closed = subprocess.run(words, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (closed.returncode, closed.stderr) == (141, "")


# Real files


def test_released_predictions_against_the_official_labels(shared_data, capsys):
    predictions = shared_data / "released" / "chexnet-zech" / "preds.csv"
    truth = shared_data / "chestxray14-labels" / "Data_Entry_2017_v2020.csv.gz"
    matched = matching.match(predictions, truth)
    assert matched.targets.shape == (22_433, 14)
    table = score.score(matched, (score.Group("mean"),), 3, 0).set_index(["group", "metric"])
    assert table.loc[("mean", "AUC"), "value"] == pytest.approx(0.8383, abs=5e-5)
    theirs = pd.read_csv(predictions.parent / "aucs.csv").set_index("label")["auc"]
    ours = table["value"].xs("AUC", level="metric")[list(theirs.index)]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert reading.PATIENTS in reading.read(truth).table
