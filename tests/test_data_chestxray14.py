"""The ChestX-ray14 reader on the real label file, real images and faulty folders."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import DataError, chestxray14, labels

ROWS = [
    ("00000001_000.png", "Cardiomegaly|Emphysema", 1, "PA"),
    ("00000001_001.png", "No Finding", 1, "AP"),
    ("00000002_000.png", "Hernia", 2, "PA"),
    ("00000003_000.png", "Mass|Nodule|Pleural_Thickening", 3, "PA"),
]
TEST = ["00000002_000.png"]
HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,View Position"
COUNTS = {  # of the complete release, version 2020
    "Infiltration": 19_894,
    "Effusion": 13_317,
    "Atelectasis": 11_559,
    "Nodule": 6_331,
    "Mass": 5_782,
    "Pneumothorax": 5_302,
    "Consolidation": 4_667,
    "Pleural_Thickening": 3_385,
    "Cardiomegaly": 2_776,
    "Emphysema": 2_516,
    "Edema": 2_303,
    "Fibrosis": 1_686,
    "Pneumonia": 1_431,
    "Hernia": 227,
    "No Finding": 60_361,
}


def csv_of(rows, header=HEADER, end="\n"):
    lines = [f"{name},{finding},0,{patient},58,{view}" for name, finding, patient, view in rows]
    return end.join([header, *lines, ""])


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a small release in the flat layout; its images are empty, as readers open none."""
    release = tmp_path / "CXR8"
    (release / "images").mkdir(parents=True)
    for name, *_ in ROWS:
        (release / "images" / name).touch()
    (release / "Data_Entry_2017_v2020.csv").write_text(csv_of(ROWS))
    (release / "test_list.txt").write_text("\n".join(TEST))
    train = [name for name, *_ in ROWS if name not in TEST]
    (release / "train_val_list.txt").write_text("\n".join(train) + "\n")
    return release


def test_a_release_reads_label_for_label(folder):
    frame = chestxray14.read(folder)
    assert frame["image_path"].tolist() == [f"images/{name}" for name, *_ in ROWS]
    assert frame["patient_id"].tolist() == ["1", "1", "2", "3"]
    assert frame["view"].tolist() == ["PA", "AP", "PA", "PA"]
    assert frame["split"].tolist() == ["train_val", "train_val", "test", "train_val"]
    released = [*labels.CHESTXRAY14, "No Finding"]
    assert frame.columns[6:].tolist() == released
    for (_, finding, *_), row in zip(ROWS, frame[released].to_numpy(), strict=True):
        assert {released[i] for i in np.flatnonzero(row)} == set(finding.split("|"))
    assert (frame.dtypes[released] == np.float32).all()
    assert frame.attrs["dataset"] == "chestxray14"
    assert frame.attrs["images"] == 4
    assert frame.attrs["missing"] == []
    assert not frame.attrs["complete"]
    assert not frame.attrs["phantom"]
    assert list(frame.attrs["label_files"]) == [
        "Data_Entry_2017_v2020.csv",
        "train_val_list.txt",
        "test_list.txt",
    ]


def test_numbered_folders_mix_with_the_flat_one(folder):
    for number, name in ((1, ROWS[0][0]), (12, ROWS[3][0])):
        batch = folder / f"images_{number:03d}" / "images"
        batch.mkdir(parents=True)
        (folder / "images" / name).rename(batch / name)
    shutil.copy(folder / "images" / ROWS[1][0], folder / "images_001" / "images")  # twice
    assert chestxray14.read(folder)["image_path"].tolist() == [
        "images_001/images/00000001_000.png",
        "images/00000001_001.png",
        "images/00000002_000.png",
        "images_012/images/00000003_000.png",
    ]


def test_upper_case_names_and_linked_folders_are_found(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk") / "pictures"
    (folder / "images").rename(elsewhere)
    (folder / "images").symlink_to(elsewhere)
    (elsewhere / ROWS[0][0]).rename(elsewhere / "00000001_000.PNG")
    assert chestxray14.read(folder)["image_path"][0] == "images/00000001_000.PNG"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Data_Entry_2017.csv", csv_of(ROWS)),
        ("Data_Entry_2017.csv", "\ufeff" + csv_of(ROWS)),
        ("Data_Entry_2017_v2020.csv.gz", csv_of(ROWS)),
    ],
)
def test_either_label_file_reads_however_it_was_saved(folder, name, text):
    expected = chestxray14.read(folder)
    (folder / "Data_Entry_2017_v2020.csv").unlink()
    content = text.encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    frame = chestxray14.read(folder)
    pd.testing.assert_frame_equal(frame, expected)
    assert next(iter(frame.attrs["label_files"])) == name


def test_columns_are_found_by_name(folder):
    table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv")
    expected = chestxray14.read(folder)
    table[table.columns[::-1]].to_csv(folder / "Data_Entry_2017_v2020.csv", index=False)
    pd.testing.assert_frame_equal(chestxray14.read(folder), expected)


def test_sex_and_age_are_as_written_and_blank_where_the_file_lacks_them(folder):
    path = folder / "Data_Entry_2017_v2020.csv"
    table = pd.read_csv(path).assign(**{"Patient Gender": "F", "Patient Age": "058Y"})
    table.to_csv(path, index=False)
    frame = chestxray14.read(folder)
    assert (set(frame["sex"]), set(frame["age"])) == ({"F"}, {"058Y"})
    table.drop(columns=["Patient Gender", "Patient Age"]).to_csv(path, index=False)
    frame = chestxray14.read(folder)
    assert (set(frame["sex"]), set(frame["age"])) == ({""}, {""})


def test_missing_images_are_an_error_until_allowed(folder):
    for name, *_ in ROWS[:2]:
        (folder / "images" / name).unlink()
    with pytest.raises(
        DataError, match=r"2 of 4 images are missing .*00000001_000.png, .*001"
    ) as e:
        chestxray14.read(folder)
    assert "--allow-missing" in str(e.value)
    frame = chestxray14.read(folder, allow_missing=True)
    assert frame["patient_id"].tolist() == ["2", "3"]
    assert frame.index.tolist() == [0, 1]
    assert frame.attrs["missing"] == ["00000001_000.png", "00000001_001.png"]
    assert frame.attrs["images"] == 2


def test_no_image_at_all_is_an_error_even_if_missing_ones_are_allowed(folder):
    shutil.rmtree(folder / "images")
    (folder / "images_001.tar.gz").touch()
    with pytest.raises(DataError, match=r"4 of 4 images are missing.*Extract images_001.tar.gz"):
        chestxray14.read(folder, allow_missing=True)


def test_only_the_first_five_of_many_missing_images_are_named(folder):
    rows = [(f"0000000{patient}_000.png", "Mass", patient, "PA") for patient in range(1, 10)]
    (folder / "Data_Entry_2017_v2020.csv").write_text(csv_of(rows))
    (folder / "test_list.txt").write_text(rows[-1][0])
    (folder / "train_val_list.txt").write_text("\n".join(name for name, *_ in rows[:-1]))
    with pytest.raises(DataError, match=r"6 of 9.*04_000.png, .*08_000.png, … \(1 more\)"):
        chestxray14.read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0]], "lists images more than once .1.: 00000001_000.png"),
        (lambda rows: [(*rows[0][:1], "Cardiomegally", 1, "PA"), *rows[1:]], "'Cardiomegally'"),
        (
            lambda rows: [(*rows[0][:1], "Mass|No Finding", 1, "PA"), *rows[1:]],
            "contradictory .* in line 2",
        ),
        (
            lambda rows: [(*rows[0][:1], "", 1, "PA"), *rows[1:]],
            "no Finding Labels in 1 of 4 rows, first in line 2",
        ),
        (lambda rows: [(*rows[0][:1], "Mass", "", "PA"), *rows[1:]], "no Patient ID in"),
        (
            lambda rows: [*rows, ("00000004_000.png", "Mass", 4, "PA")],
            "1 of 5 images .* in neither",
        ),
        (
            lambda rows: [*rows[:2], (*rows[2][:2], 3, "PA"), rows[3]],
            "00000002_000.png to patient 3 in line 4, but its name says patient 2",
        ),
        (lambda rows: [], "has no rows"),
    ],
)
def test_a_wrong_label_file_is_refused_even_with_allow_missing(folder, change, message):
    (folder / "Data_Entry_2017_v2020.csv").write_text(csv_of(change(ROWS)))
    with pytest.raises(DataError, match=message):
        chestxray14.read(folder, allow_missing=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_list.txt", b"00000002_000.png\n00000003_000.png", "in both lists of"),
        (
            "test_list.txt",
            b"00000002_000.png\n00000009_000.png",
            "names images that .* lacks .1., such as 00000009_000.png; .* pass --allow-missing",
        ),
        ("Data_Entry_2017_v2020.csv", b"", "is empty"),
        ("Data_Entry_2017_v2020.csv", b"Image Index,Patient ID\n1,2", "no column Finding Labels"),
        ("Data_Entry_2017_v2020.csv", csv_of(ROWS).encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_spoilt_file_is_named(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        chestxray14.read(folder)


def test_half_a_gzip_is_named(folder):
    (folder / "Data_Entry_2017_v2020.csv").unlink()
    content = gzip.compress(csv_of(ROWS * 500).encode())
    (folder / "Data_Entry_2017_v2020.csv.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"v2020.csv.gz .*get it again"):
        chestxray14.read(folder)


def test_a_wrong_folder_shows_expected_and_present_files(folder):
    message = f"not look like ChestX-ray14: it has no Data_Entry_2017.*Did you mean {folder}?"
    for wrong in (folder / "images", folder.parent):
        with pytest.raises(DataError, match=message) as error:
            chestxray14.read(wrong)
        assert "train_val_list.txt" in str(error.value)
    with pytest.raises(DataError, match="There is no folder"):
        chestxray14.read(folder / "nowhere")


def test_a_long_listing_is_cut(tmp_path):
    for number in range(100):
        (tmp_path / f"holiday_{number:02d}.jpg").touch()
    (tmp_path / "archive.zip").touch()
    with pytest.raises(DataError, match=r"Extract archive.zip first.(.|\n)*… and 96 more$"):
        chestxray14.read(tmp_path)


@pytest.fixture
def whole_release(shared_data, tmp_path, monkeypatch) -> Path:
    """Return the real label file with lists of the official lengths and all images."""
    source = shared_data / "chestxray14-labels" / "Data_Entry_2017_v2020.csv.gz"
    shutil.copy(source, tmp_path)
    table = pd.read_csv(source, usecols=["Image Index", "Patient ID"])
    left, chosen = 25_596, set()
    for patient, images in (
        table["Patient ID"].value_counts().sample(frac=1, random_state=0).items()
    ):
        if images <= left:
            left, chosen = left - images, chosen | {patient}
    test = table["Patient ID"].isin(chosen)
    for name, rows in (("test_list.txt", test), ("train_val_list.txt", ~test)):
        (tmp_path / name).write_text("\n".join(table.loc[rows, "Image Index"]))
    on_disk = {name: name for name in table["Image Index"]}
    monkeypatch.setattr(
        "data.reading.list_names", lambda path: on_disk if path.name == "images" else {}
    )
    return tmp_path


def test_the_real_label_file_has_the_known_counts(whole_release):
    frame = chestxray14.read(whole_release)
    assert frame.attrs["complete"]
    assert frame.attrs["images"] == len(frame) == 112_120
    assert frame["patient_id"].nunique() == 30_805
    assert {name: int(frame[name].sum()) for name in COUNTS} == COUNTS
    findings = frame[list(labels.CHESTXRAY14)].to_numpy()
    np.testing.assert_array_equal(findings.any(axis=1), frame["No Finding"] == 0)
    assert frame["No Finding"].mean() == pytest.approx(0.538, abs=5e-4)
    assert findings.sum() / len(frame) == pytest.approx(0.724, abs=5e-4)


def test_a_subset_of_the_real_release_is_recorded_as_one(whole_release):
    lines = (whole_release / "test_list.txt").read_text().split("\n")
    with gzip.open(whole_release / "Data_Entry_2017_v2020.csv.gz", "rt") as file:
        rows = [line for line in file if not line.startswith(lines[0])]
    (whole_release / "Data_Entry_2017_v2020.csv").write_text("".join(rows))
    with pytest.raises(DataError, match=r"names images that Data_Entry_2017_v2020.csv lacks .1."):
        chestxray14.read(whole_release)
    frame = chestxray14.read(whole_release, allow_missing=True)
    assert len(frame) == 112_119
    assert not frame.attrs["complete"]


def test_a_patient_has_one_spelling(folder):
    text = (folder / "Data_Entry_2017_v2020.csv").read_text()
    expected = chestxray14.read(folder)
    for spelt in (",0,001,", ",0,1.0,", ",0,1.,"):
        (folder / "Data_Entry_2017_v2020.csv").write_text(text.replace(",0,1,", spelt, 1))
        pd.testing.assert_frame_equal(chestxray14.read(folder), expected)


def test_a_patient_in_both_sets_is_refused(folder):
    (folder / "test_list.txt").write_text("00000001_000.png\n")
    (folder / "train_val_list.txt").write_text(
        "00000001_001.png\n00000002_000.png\n00000003_000.png\n"
    )
    with pytest.raises(DataError, match=r"more than one split .1.: 1;"):
        chestxray14.read(folder, allow_missing=True)
