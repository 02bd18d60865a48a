"""The CheXpert reader: every released layout, the values kept apart, folders that went wrong."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import DataError, chexpert
from data.labels import CHEXPERT

NAN = np.nan
IMAGES = {  # split -> (path below the CheXpert folder, Frontal/Lateral, AP/PA, first four labels)
    "train": [
        ("train/patient00001/study1/view1_frontal.jpg", "Frontal", "AP", (1, 0, -1, NAN)),
        ("train/patient00001/study1/view2_lateral.jpg", "Lateral", "", (1, 0, -1, NAN)),
        ("train/patient00001/study2/view1_frontal.jpg", "Frontal", "PA", (NAN, NAN, 1, 0)),
        ("train/patient00002/study1/view1_frontal.jpg", "Frontal", "LL", (0, -1, 0, 1)),
    ],
    "valid": [("valid/patient64541/study1/view1_frontal.jpg", "Frontal", "AP", (0, 1, 0, 0))],
}
TEST = [
    ("test/patient64741/study1/view1_frontal.jpg", (0, 1, 1, 0)),
    ("test/patient64741/study1/view2_lateral.jpg", (0, 1, 1, 0)),
    ("test/patient64742/study1/view1_frontal.jpg", (1, 0, 0, 0)),
]


def table(split, name="CheXpert-v1.0-small"):
    rows = [
        [f"{name}/{path}", "Female", 61, view, side, *values, *[NAN] * 10]
        for path, view, side, values in IMAGES[split]
    ]
    return pd.DataFrame(rows, columns=["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT])


def public_test():
    rows = [[path, *values, *[0.0] * 10] for path, values in TEST]
    return pd.DataFrame(rows, columns=["Path", *CHEXPERT])


def touch(folder: Path, *splits):
    for split in splits:
        for path, *_ in TEST if split == "test" else IMAGES[split]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return CheXpert-v1.0-small with its CSVs inside and empty images."""
    folder = tmp_path / "CheXpert-v1.0-small"
    touch(folder, "train", "valid")
    for split in IMAGES:
        table(split).to_csv(folder / f"{split}.csv", index=False)
    return folder


def test_the_small_release_reads_value_for_value(folder):
    frame = chexpert.read(folder)
    everything = [image for split in IMAGES for image in IMAGES[split]]
    assert frame["image_path"].tolist() == [path for path, *_ in everything]
    assert frame["split"].tolist() == ["train"] * 4 + ["valid"]
    assert frame["patient_id"].tolist()[2:] == ["patient00001", "patient00002", "patient64541"]
    assert frame["study_id"].tolist()[:3] == [
        "patient00001/study1",
        "patient00001/study1",
        "patient00001/study2",
    ]
    assert frame["view"].tolist() == [
        "Frontal AP",
        "Lateral",
        "Frontal PA",
        "Frontal LL",
        "Frontal AP",
    ]
    assert frame.columns[7:].tolist() == list(CHEXPERT)
    values = frame[list(CHEXPERT)].to_numpy()
    assert values.dtype == np.float32
    expected = np.full((5, 14), NAN)
    expected[:, :4] = [values for *_, values in everything]
    np.testing.assert_array_equal(values, expected)  # blank, 0 and -1 stay distinct
    assert list(frame.attrs["label_files"]) == ["train.csv", "valid.csv"]
    assert not frame.attrs["complete"]


def below(frame, folder):
    """Return the frame with image paths relative to the folder."""
    paths = frame["image_path"].str.removeprefix(f"{folder}/")
    return frame.assign(image_path=paths)


def test_the_folder_around_reads_the_same(folder):
    inside, around = chexpert.read(folder), chexpert.read(folder.parent)
    assert around["image_path"].str.startswith("CheXpert-v1.0-small/").all()
    pd.testing.assert_frame_equal(below(around, folder.name), inside)


@pytest.mark.parametrize("from_around", [True, False])
def test_the_csv_may_lie_beside_the_folder(folder, from_around):
    expected = chexpert.read(folder)
    for split in IMAGES:
        (folder / f"{split}.csv").rename(folder.parent / f"{split}.csv")
    frame = chexpert.read(folder.parent if from_around else folder)
    pd.testing.assert_frame_equal(below(frame, folder.name), expected)


def test_an_archive_without_the_top_folder_reads(folder):
    """Path starts with a missing folder, as in Kaggle's archive."""
    expected = chexpert.read(folder)
    frame = chexpert.read(folder.rename(folder.parent / "archive"))
    pd.testing.assert_frame_equal(frame, expected)


def test_the_full_size_release_reads_from_its_batches(folder):
    expected = chexpert.read(folder)
    root = folder.parent / "chexpertchestxrays-u20210408"
    first = root / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir(parents=True)
    for split in IMAGES:
        table(split, "CheXpert-v1.0").to_csv(first / f"{split}.csv", index=False)
    (folder / "valid").rename(first / "valid")
    for batch, patient in enumerate(["patient00001", "patient00002"], 2):
        part = root / f"CheXpert-v1.0 batch {batch} (train {batch - 1})"
        part.mkdir()
        (folder / "train" / patient).rename(part / patient)
    frame = chexpert.read(root)
    assert frame["image_path"].tolist()[3:] == [
        "CheXpert-v1.0 batch 3 (train 2)/patient00002/study1/view1_frontal.jpg",
        "CheXpert-v1.0 batch 1 (validate & csv)/valid/patient64541/study1/view1_frontal.jpg",
    ]
    pd.testing.assert_frame_equal(frame.iloc[:, 1:], expected.iloc[:, 1:])


def test_two_releases_side_by_side_are_ambiguous(folder):
    shutil.copytree(folder, folder.parent / "CheXpert-v1.0")
    with pytest.raises(DataError, match=r"such as patient00001 lie both in CheXpert-v1.0/"):
        chexpert.read(folder.parent)
    assert len(chexpert.read(folder)) == 5


def test_visualchexbert_labels_replace_the_training_ones(folder):
    other = table("train", "CheXpert-v1.0")
    other[list(CHEXPERT)] = 0.0
    other.loc[2, "Edema"] = 1.0
    other[["Path", *sorted(CHEXPERT)]].to_csv(folder / "train_visualCheXbert.csv")  # with an index
    frame = chexpert.read(folder, labels="visualchexbert")
    assert frame.loc[frame["split"] == "train", list(CHEXPERT)].to_numpy().sum() == 1
    assert frame.loc[2, "Edema"] == 1
    assert frame["view"].tolist()[:4] == ["Frontal", "Lateral", "Frontal", "Frontal"]
    assert frame.loc[4, "Enlarged Cardiomediastinum"] == 1  # validation labels are radiologists'
    assert list(frame.attrs["label_files"]) == ["train_visualCheXbert.csv", "valid.csv"]


def test_a_missing_visualchexbert_file_is_named(folder):
    with pytest.raises(DataError, match=r"has no train_visualCheXbert.csv"):
        chexpert.read(folder, labels="visualchexbert")
    with pytest.raises(DataError, match="no 'chexbert' labels; choose"):
        chexpert.read(folder, labels="chexbert")


def test_sex_and_age_are_as_written_and_blank_where_a_csv_has_none(folder):
    frame = chexpert.read(folder)
    assert set(frame["sex"]) == {"Female"}
    assert set(frame["age"]) == {"61"}
    changed = table("valid").drop(columns=["Sex", "Age"])
    changed.to_csv(folder / "valid.csv", index=False)
    frame = chexpert.read(folder)
    assert set(frame.loc[frame["split"] == "valid", "sex"]) == {""}
    assert set(frame.loc[frame["split"] == "train", "age"]) == {"61"}


@pytest.mark.parametrize("name", ["test.csv", "test_labels.csv"])
def test_the_public_test_set_has_fewer_columns(folder, name):
    touch(folder, "test")
    public_test().to_csv(folder / name, index=False)
    frame = chexpert.read(folder).query("split == 'test'")
    assert frame["image_path"].tolist() == [path for path, _ in TEST]
    assert frame["view"].tolist() == ["Frontal", "Lateral", "Frontal"]
    np.testing.assert_array_equal(frame[list(CHEXPERT[:4])], [values for _, values in TEST])


def test_a_row_per_study_applies_to_all_its_images(folder):
    touch(folder, "test")
    studies = public_test().drop(index=1)
    studies["Study"] = "CheXpert-v1.0/" + studies.pop("Path").str.rsplit("/", n=1).str[0]
    studies.to_csv(folder / "groundtruth.csv", index=False)
    frame = chexpert.read(folder).query("split == 'test'")
    assert frame["image_path"].tolist() == [path for path, _ in TEST]
    np.testing.assert_array_equal(frame[list(CHEXPERT[:4])], [values for _, values in TEST])
    shutil.rmtree(folder / "test/patient64742")
    with pytest.raises(DataError, match=r"missing .*test/patient64742/study1/view1_frontal.jpg"):
        chexpert.read(folder)


def test_chexlocalize_calls_its_validation_folder_val(folder):
    (folder / "valid").rename(folder / "val")
    (folder / "valid.csv").rename(folder / "val_labels.csv")
    frame = chexpert.read(folder)
    assert frame["image_path"].iloc[-1] == "val/patient64541/study1/view1_frontal.jpg"
    assert frame["split"].iloc[-1] == "valid"


def test_missing_images_are_an_error_until_allowed(folder):
    shutil.rmtree(folder / "train/patient00002")
    (folder / "train/patient00001/study2/view1_frontal.jpg").unlink()
    with pytest.raises(DataError, match=r"2 of 5 .* train/patient00001/study2/view1_frontal.jpg, "):
        chexpert.read(folder)
    frame = chexpert.read(folder, allow_missing=True)
    assert len(frame) == frame.attrs["images"] == 3
    assert frame.attrs["missing"] == [
        "train/patient00001/study2/view1_frontal.jpg",
        "train/patient00002/study1/view1_frontal.jpg",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["Edema", "Path"]), "no column Path, Edema; its columns are Sex"),
        (
            lambda t: pd.concat([t, t[:1]]),
            "more than once .1.: patient00001/study1/view1_frontal.jpg",
        ),
        (lambda t: t.assign(Edema=2), "other than 1, 0, -1, blank in column Edema: 2"),
        (lambda t: t.assign(Path="a.jpg"), r"4 of 4 rows of .*, first a.jpg"),
        (
            lambda t: t.replace({"Path": "patient00002"}, "patient64541", regex=True),
            "more than one",
        ),
        (lambda t: t[:0], "has no rows"),
        (
            lambda t: t.replace({"Path": "/train/"}, "/valid/", regex=True),
            "is read as the split train, but line 2 names CheXpert-v1.0-small/valid/patient00001",
        ),
        (
            lambda t: t.assign(**{"Frontal/Lateral": "Frontal"}),
            "view2_lateral.jpg Frontal in line 3, but its name says otherwise",
        ),
        (
            lambda t: t.replace({"Path": "patient00002"}, "patient1", regex=True),
            "patient00001 and patient1 in .*train.csv.* look like one patient",
        ),
    ],
)
def test_a_wrong_csv_is_refused_even_with_allow_missing(folder, change, message):
    change(table("train")).to_csv(folder / "train.csv", index=False)
    with pytest.raises(DataError, match=message):
        chexpert.read(folder, allow_missing=True)


def test_a_wrong_folder_shows_the_expected_files(folder):
    with pytest.raises(DataError, match=f"has no train.csv, .* Did you mean {folder}") as error:
        chexpert.read(folder / "train")
    assert "\n  expected" in str(error.value)
    (folder.parent / "other").mkdir()
    with pytest.raises(DataError, match=r"\(nothing\)"):
        chexpert.read(folder.parent / "other")


def test_row_counts_of_the_whole_release_make_it_complete(folder, monkeypatch):
    monkeypatch.setattr(chexpert, "COMPLETE", {"train": 4, "valid": 1, "test": 3})
    assert chexpert.read(folder).attrs["complete"]
    touch(folder, "test")
    public_test()[:2].to_csv(folder / "test.csv", index=False)
    assert not chexpert.read(folder).attrs["complete"]
    public_test().to_csv(folder / "test.csv", index=False)
    assert chexpert.read(folder).attrs["complete"]
    (folder / "test/patient64742/study1/view1_frontal.jpg").unlink()
    assert not chexpert.read(folder, allow_missing=True).attrs["complete"]


def test_phantoms_are_recognised_from_either_folder(folder):
    (folder.parent / "phantom.json").write_text("{}")
    assert chexpert.read(folder).attrs["phantom"]
    assert chexpert.read(folder.parent).attrs["phantom"]


def test_the_real_test_labels_cover_every_image_of_their_studies(shared_data, tmp_path):
    released = shared_data / "released"
    images = pd.read_csv(
        released / "asadi2025_default_model_predictions_vs_groundtruth_with_errors.csv"
    )
    for path in images["Path"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    shutil.copy(released / "chexpert-test/groundtruth.csv", tmp_path)
    frame = chexpert.read(tmp_path).set_index("image_path")
    assert len(frame) == 668
    assert frame["study_id"].nunique() == frame["patient_id"].nunique() == 500
    for label in CHEXPERT:  # two independently released files
        expected = images.set_index("Path")[f"{label}_GT"]
        np.testing.assert_array_equal(frame.loc[expected.index, label], expected)


def test_test_labels_are_never_blank(folder):
    touch(folder, "test")
    public_test().assign(Edema=[0, NAN, 1]).to_csv(folder / "test.csv", index=False)
    with pytest.raises(DataError, match="other than 1, 0 in column Edema: nan, first in line 3"):
        chexpert.read(folder)


@pytest.mark.parametrize("study", ["xx", "CheXpert-v1.0/test/patient64741/study1/view1.jpg"])
def test_a_faulty_file_of_a_radiologist_is_refused_at_reading(folder, study):
    rows = pd.DataFrame([["test/patient64742/study1", *[0] * 14], [study, *[1] * 14]])
    (folder / "radiologists").mkdir()
    rows.to_csv(folder / "radiologists" / "bc6.csv", index=False, header=["Study", *CHEXPERT])
    with pytest.raises(DataError, match=rf"1 of 2 rows of .*bc6.csv .* {study} in line 3"):
        chexpert.read(folder)
    rows[:1].to_csv(folder / "radiologists" / "bc6.csv", index=False, header=["Study", *CHEXPERT])
    assert len(chexpert.read(folder)) == 5
    assert chexpert.radiologists(folder)["bc6"].index.tolist() == ["patient64742/study1"]


def test_a_view_that_is_stated_once_contradicts_nothing(folder):
    expected = chexpert.read(folder)["image_path"].tolist()
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table.loc[0, "Frontal/Lateral"] = None  # only the file's name states the view
    table.to_csv(folder / "train.csv", index=False)
    assert chexpert.read(folder)["image_path"].tolist() == expected
