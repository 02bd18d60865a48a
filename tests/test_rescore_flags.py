"""Score arrays, ensembles, given thresholds and No Finding by the command, on real predictions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from data import labels
from tests.rescore_command import rescore

FINDINGS = [*labels.CHESTXRAY14]
PROBABILITIES = [f"prob_{name}" for name in FINDINGS]


@pytest.fixture(scope="module")
def real(tmp_path_factory, shared_data) -> Path:
    """Write Zech's predictions of 1,500 images, in two parts by patient, and their label file."""
    folder = tmp_path_factory.mktemp("real")
    predictions = pd.read_csv(shared_data / "released" / "chexnet-zech" / "preds.csv")[:1500]
    official = shared_data / "chestxray14-labels" / "Data_Entry_2017_v2020.csv.gz"
    truth = pd.read_csv(official, dtype=str)
    truth = truth[truth["Image Index"].isin(predictions["Image Index"])]
    patients = predictions["Image Index"].str[:8]
    first = patients.isin(patients.unique()[:200])
    columns = ["Image Index", *PROBABILITIES]
    predictions[first][columns].to_csv(folder / "val.csv", index=False)
    predictions[~first][columns].to_csv(folder / "preds.csv", index=False)
    truth.to_csv(folder / "Data_Entry_2017.csv", index=False)
    return folder


@pytest.fixture
def command(real, tmp_path):
    """Return a function that runs the command on the label file, and one that reads a table."""

    def run(*flags, truth=real / "Data_Entry_2017.csv", out=tmp_path / "out") -> int:
        return rescore("--truth", truth, "--resamples", 20, "--results-dir", out, *flags)

    def table(name: str, out=tmp_path / "out") -> pd.DataFrame:
        (path,) = out.glob(f"rescored/*/{name}.csv")
        return pd.read_csv(path)

    return run, table


def auc(table: pd.DataFrame, group: str) -> float:
    return table[(table["group"] == group) & (table["metric"] == "AUC")]["value"].item()


def truth_of(real: Path, images: pd.Series) -> pd.DataFrame:
    return pd.read_csv(real / "Data_Entry_2017.csv").set_index("Image Index").loc[images]


# Arrays


def test_arrays_score_as_the_csv_does(real, command, tmp_path, capsys):
    run, table = command
    predictions = pd.read_csv(real / "preds.csv")
    values = predictions[PROBABILITIES].to_numpy()
    np.save(tmp_path / "preds.npy", values)
    np.savez(tmp_path / "preds.npz", values[:, ::-1])
    (tmp_path / "ids.txt").write_text("\n".join(predictions["Image Index"]) + "\n")
    predictions[["prob_Mass", "Image Index"]].to_csv(tmp_path / "ids.csv", index=False)
    assert run("--predictions", real / "preds.csv", out=tmp_path / "a") == 0
    expected = table("table", tmp_path / "a")
    capsys.readouterr()
    given = ("--predictions", tmp_path / "preds.npy", "--ids", tmp_path / "ids.txt")
    assert run(*given, out=tmp_path / "b") == 0
    assert (
        "its 14 columns are taken as ChestX-ray14's labels in the order of Wang et al. 2017, "
        in (capsys.readouterr().err)
    )
    pd.testing.assert_frame_equal(table("table", tmp_path / "b"), expected)
    order = ("--labels", ",".join(FINDINGS[::-1]))
    given = ("--predictions", tmp_path / "preds.npz", "--ids", tmp_path / "ids.csv", *order)
    assert run(*given, "--id-column", "Image Index", out=tmp_path / "c") == 0
    assert "are taken as" not in capsys.readouterr().err
    for name in (*FINDINGS, "mean"):
        assert auc(table("table", tmp_path / "c"), name) == pytest.approx(auc(expected, name))


@pytest.mark.parametrize(
    ("array", "flags", "message"),
    [
        (np.ones((3, 14)), (), "give their ids with --ids FILE"),
        (np.ones((4, 14)), ("--ids", "ids.txt"), "ids.txt holds 3 ids, but preds.npy has 4 rows"),
        (np.ones((3, 2)), ("--ids", "ids.txt"), "2 columns, but nothing says their labels"),
        (np.ones((3, 14)), ("--ids", "ids.txt", "--labels", "a,b"), "--labels names 2: name all"),
        (np.ones((2, 3, 14)), ("--ids", "ids.txt"), "is float64 of the shape (2, 3, 14)"),
        (np.array([["a"]]), ("--ids", "ids.txt"), "must hold numbers"),
        (np.array([[None]]), ("--ids", "ids.txt"), "preds.npy is damaged, or no array of numbers"),
        (np.ones((3, 14)), ("--ids", "ids.txt", "--id-column", "b"), "its columns are x."),
    ],
)
def test_arrays_that_cannot_be_matched_are_refused(
    tmp_path, monkeypatch, capsys, array, flags, message
):
    monkeypatch.chdir(tmp_path)
    np.save("preds.npy", array)
    Path("ids.txt").write_text("x\ny\nz\n")
    Path("truth.csv").write_text("id,Mass\nx,0\ny,1\nz,1\n")
    assert rescore("--predictions", "preds.npy", "--truth", "truth.csv", *flags) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.split("\n")) == 3  # a blank line, and one sentence


def test_ids_without_an_array_are_refused(real, command, capsys):
    run, _ = command
    assert run("--predictions", real / "preds.csv", "--ids", real / "preds.csv") == 2
    assert "--ids names the rows of an .npy" in capsys.readouterr().err


def test_a_row_without_id_names_the_other_columns(command, tmp_path, capsys):
    run, _ = command
    (tmp_path / "p.csv").write_text("number,image,prob_Mass\n,a.png,.1\n2,b.png,.3\n")
    assert run("--predictions", tmp_path / "p.csv") == 2
    message = "line 2 has no id in column 'number'; fill it in, or name another column with "
    assert f"{message}--id-column NAME: image, prob_Mass." in capsys.readouterr().err


# What the label file and the names of images say


def test_sex_age_and_view_of_own_predictions(real, command):
    run, table = command
    assert run("--predictions", real / "preds.csv", "--by", "sex,age,view") == 0
    groups = table("subgroups").query("metric == 'AUC' and group == 'mean'")
    images = groups.set_index(["by", "subgroup"])["images"]
    truth = truth_of(real, pd.read_csv(real / "preds.csv")["Image Index"])
    for name, sex in (("female", "F"), ("male", "M")):
        assert images["sex", name] == (truth["Patient Gender"] == sex).sum()
    assert images["age", "40-59"] == truth["Patient Age"].between(40, 59).sum()
    assert images["view", "AP"] == (truth["View Position"] == "AP").sum()


def test_patients_are_those_in_the_names_of_images(real, command, tmp_path, capsys):
    run, table = command
    truth = truth_of(real, pd.read_csv(real / "preds.csv")["Image Index"])
    own = truth["Finding Labels"].str.contains("Effusion").astype(int).rename("Effusion")
    own.to_csv(tmp_path / "own.csv")
    own.to_frame().join(truth["Patient ID"]).to_csv(tmp_path / "patients.csv")
    given = ("--predictions", real / "preds.csv")
    assert run(*given, truth=tmp_path / "own.csv", out=tmp_path / "a") == 0
    printed = capsys.readouterr()
    image = truth.index[0]
    assert f"Patients are those in the images' names: {int(image[:8])} in {image}." in printed.out
    assert "no --patient-column" not in printed.err
    assert run(*given, truth=tmp_path / "patients.csv", out=tmp_path / "b") == 0
    pd.testing.assert_frame_equal(table("table", tmp_path / "a"), table("table", tmp_path / "b"))


def test_no_finding_is_scored_and_in_no_mean(real, command, tmp_path, capsys):
    run, table = command
    predictions = pd.read_csv(real / "preds.csv").set_index("Image Index")
    assert run("--predictions", real / "preds.csv", "--ge", out=tmp_path / "a") == 0
    assert "No Finding" not in "".join(capsys.readouterr())
    none = 1 - predictions.max(axis=1)
    predictions.assign(**{"prob_No Finding": none}).to_csv(tmp_path / "p.csv")
    given = ("--predictions", tmp_path / "p.csv", "--compare", tmp_path / "p.csv", "--ge")
    assert run(*given, out=tmp_path / "b") == 0
    assert "Means are over the 14 findings. No Finding has a line" in capsys.readouterr().out
    fourteen, fifteen = table("table", tmp_path / "a"), table("table", tmp_path / "b")
    line = fifteen["group"] == "No Finding"
    pd.testing.assert_frame_equal(fifteen[~line].reset_index(drop=True), fourteen)
    is_normal = truth_of(real, predictions.index)["Finding Labels"] == "No Finding"
    assert auc(fifteen, "No Finding") == pytest.approx(roc_auc_score(is_normal, none))
    compared = table("compare", tmp_path / "b")
    assert compared.query("group == 'No Finding'")["difference"].tolist() == [0, 0]
    assert compared["group"].nunique() == fifteen["group"].nunique()


def test_no_finding_of_other_datasets_is_a_label_like_others(command, tmp_path):
    run, table = command
    generator = np.random.default_rng(0)
    names = ["No Finding", "Lung Opacity"]
    truth = pd.DataFrame(generator.integers(0, 2, (60, 2)), columns=names).rename_axis("id")
    truth.to_csv(tmp_path / "t.csv")
    (truth * 0.2 + generator.random((60, 2)) * 0.8).to_csv(tmp_path / "p.csv")
    assert run("--predictions", tmp_path / "p.csv", truth=tmp_path / "t.csv") == 0
    both = [auc(table("table"), name) for name in names]
    assert auc(table("table"), "mean") == pytest.approx(np.mean(both))


# Thresholds


def test_thresholds_from_other_predictions_and_from_a_file(real, command, tmp_path, capsys):
    run, table = command
    given = ("--predictions", real / "preds.csv", "--labels", "Effusion,Edema")
    chosen = ("--operating-point", "specificity=0.9", "--threshold-from", real / "val.csv")
    assert run(*given, *chosen, out=tmp_path / "a") == 0
    assert "chosen on validation images" in capsys.readouterr().out
    points = table("operating-points", tmp_path / "a")
    held_out = pd.read_csv(real / "val.csv").set_index("Image Index")["prob_Edema"]
    absent = ~truth_of(real, held_out.index)["Finding Labels"].str.contains("Edema")
    threshold = points[points["group"] == "Edema"]["threshold"].iloc[0]
    assert (held_out[absent] < threshold).mean() >= 0.9
    allowed = [each for each in held_out if (held_out[absent] < each).mean() >= 0.9]
    most = max((held_out[~absent] >= each).mean() for each in allowed)
    assert (held_out[~absent] >= threshold).mean() == most
    written = next((tmp_path / "a").rglob("operating-points.csv"))
    assert run(*given, "--thresholds", written, out=tmp_path / "b") == 0
    printed = capsys.readouterr().out
    assert "Thresholds were given, not chosen." in printed
    assert "--validation" not in printed
    pd.testing.assert_frame_equal(table("operating-points", tmp_path / "b"), points)


def test_given_thresholds_by_hand(command, tmp_path):
    run, table = command
    (tmp_path / "t.csv").write_text("id,who,Mass\na,1,1\nb,2,1\nc,3,0\nd,4,0\ne,5,0\n")
    (tmp_path / "p.csv").write_text("id,Mass\na,.7\nb,.2\nc,.3\nd,.6\ne,.1\n")
    (tmp_path / "th.csv").write_text("threshold,label\n.3,mass\n.9,Edema\n")
    flags = ("--thresholds", tmp_path / "th.csv", "--patient-column", "who")
    assert run("--predictions", tmp_path / "p.csv", *flags, truth=tmp_path / "t.csv") == 0
    points = table("operating-points").set_index("metric")
    # a, c and d are at or above .3: one of two cases is found, one of three others rejected
    assert points.loc["sensitivity", ["TP", "FP", "FN", "TN"]].tolist() == [1, 2, 1, 1]
    assert points.loc["specificity", "value"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ("label,threshold\nEdema,.5\n", (), "th.csv has no threshold for Effusion; give a number"),
        ("label,threshold\nEffusion,high\n", (), "has no threshold for Effusion"),
        ("name,threshold\nEffusion,.5\n", (), "has no column 'label'"),
        ("label,value\nEffusion,.5\n", (), "has no column threshold"),
        ("label,threshold\nEffusion,.5\nEffusion,.4\n", (), "two thresholds for Effusion"),
        ("label,threshold\n", ("--operating-point", "youden"), "leave out --operating-point"),
    ],
)
def test_thresholds_that_do_not_fit_are_refused(
    real, command, tmp_path, capsys, content, flags, message
):
    run, _ = command
    (tmp_path / "th.csv").write_text(content)
    given = ("--predictions", real / "preds.csv", "--labels", "Effusion")
    assert run(*given, "--thresholds", tmp_path / "th.csv", *flags) == 2
    shown = capsys.readouterr().err.splitlines()
    assert message in shown[-1]


# Ensembles


@pytest.fixture
def networks(real, tmp_path) -> list[Path]:
    """Write two networks: Zech's predictions with different noise."""
    paths = []
    for name in ("val", "preds"):
        predictions = pd.read_csv(real / f"{name}.csv").set_index("Image Index")
        for network in range(2):
            noise = np.random.default_rng(network).normal(0, 0.1, predictions.shape)
            path = tmp_path / f"{name}-{network}.csv"
            noisy = (predictions + noise).clip(0, 1)
            noisy.sample(frac=1, random_state=network).to_csv(path)
            paths.append(path)
    return paths


def mean_auc(real: Path, predictions: pd.DataFrame) -> float:
    truth = truth_of(real, predictions.index)["Finding Labels"].str.split("|")
    known = {name: truth.map(lambda listed, name=name: name in listed) for name in FINDINGS}
    return np.mean([roc_auc_score(known[name], predictions[f"prob_{name}"]) for name in FINDINGS])


def test_several_predictions_are_one_ensemble(real, command, networks, capsys):
    run, table = command
    *validation, first, second = networks
    given = ("--predictions", first, "--predictions", second)
    chosen = ("--operating-point", "youden", "--validation", validation[0])
    assert run(*given, *chosen) == 2
    assert "give --validation once per --predictions" in capsys.readouterr().err
    assert run(*given, *chosen, "--validation", validation[1]) == 0
    printed = capsys.readouterr().out
    members = [pd.read_csv(path).set_index("Image Index") for path in (first, second)]
    mean = (members[0] + members[1]) / 2
    expected = [mean_auc(real, each) for each in (*members, mean)]
    listed = table("networks").set_index("network")["value"]
    assert listed.tolist() == pytest.approx(expected)
    assert auc(table("table"), "mean") == pytest.approx(expected[2])
    gain = table("networks")["gain over the best"].dropna().item()
    assert gain == pytest.approx(expected[2] - max(expected[:2]))
    assert gain > 0
    best = (first, second)[int(np.argmax(expected[:2]))]
    sentence = f"the mean of 2 files. Its mean AUC minus that of {best}, the best of them on these"
    assert sentence in printed
    held_out = sum(pd.read_csv(path).set_index("Image Index") for path in validation) / 2
    threshold = table("operating-points").set_index("group").loc["Effusion", "threshold"].iloc[0]
    assert np.isclose(held_out["prob_Effusion"], threshold, atol=1e-12).any()


def test_files_that_are_no_ensemble_are_refused(real, command, networks, tmp_path, capsys):
    run, _ = command
    first, second = networks[2:]
    assert run("--predictions", first, "--predictions", first) == 2
    assert "names a file twice" in capsys.readouterr().err
    pd.read_csv(second)[1:].to_csv(tmp_path / "fewer.csv", index=False)
    assert run("--predictions", first, "--predictions", tmp_path / "fewer.csv") == 2
    assert "1 only in the first, 0 only in the second, such as" in capsys.readouterr().err
    logits = pd.read_csv(second).set_index("Image Index") * 9 - 4
    logits.to_csv(tmp_path / "logits.csv")
    assert run("--predictions", first, "--predictions", tmp_path / "logits.csv") == 2
    assert "so they have no common mean" in capsys.readouterr().err.splitlines()[-1]


def test_other_flags_are_given_once(real, command, capsys):
    run, _ = command
    assert run("--predictions", real / "preds.csv", "--resamples", 30) == 2
    message = "--resamples is given twice, as 20 and as 30; give it once. "
    assert capsys.readouterr().err.startswith(message)
