"""Shared parts of the readers: strict CSV files, layouts, links; all readers on phantoms."""

import gzip
import json
import os

import numpy as np
import pandas as pd
import pytest

from data import DataError, labels, plco, reading
from data.datasets import DATASETS
from data.phantom import drawing


def written_chestxray14(folder):
    table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv")
    expected = pd.DataFrame({"image_path": "images/" + table["Image Index"]})
    expected["patient_id"] = table["Patient ID"].astype(str)
    expected["view"] = table["View Position"]
    test = set((folder / "test_list.txt").read_text().split())
    expected["split"] = ["test" if n in test else "train_val" for n in table["Image Index"]]
    for label in (*labels.CHESTXRAY14, "No Finding"):
        expected[label] = [label in spelled.split("|") for spelled in table["Finding Labels"]]
    return expected


def written_chexpert(folder):
    tables = [pd.read_csv(folder / f"{s}.csv").assign(split=s) for s in ("train", "valid", "test")]
    table = pd.concat(tables, ignore_index=True)
    parts = table["Path"].str.split("/")
    name = parts.str[-1].str.removesuffix(".jpg").str.split("_").str[1].str.capitalize()
    side = table["AP/PA"].where(table["AP/PA"].notna(), "")
    expected = pd.DataFrame({"image_path": parts.str[1:].str.join("/")})
    expected["patient_id"] = parts.str[2]
    expected["study_id"] = parts.str[2] + "/" + parts.str[3]
    expected["view"] = (name + " " + side).str.strip()
    return pd.concat([expected, table[["split", *labels.CHEXPERT]]], axis=1)


def written_plco(folder):
    tables = [
        pd.read_csv(folder / f"{split}_set_delete0.0.csv").assign(split=split)
        for split in ("train", "val", "test")
    ]
    table = pd.concat(tables, ignore_index=True)
    expected = pd.DataFrame({"image_path": "images/" + table["img_name"] + ".png"})
    expected["patient_id"], expected["view"] = table["plco_id"], "PA"
    return pd.concat([expected, table[["split", *labels.PLCO, *plco.PRESERVE]]], axis=1)


WRITTEN = {"chestxray14": written_chestxray14, "chexpert": written_chexpert, "plco": written_plco}


@pytest.mark.parametrize("dataset", WRITTEN)
def test_readers_return_every_label_of_the_phantoms(dataset, tmp_path):
    folder = drawing.write(dataset, tmp_path / "drawn", 150, 32, seed=4, progress=False)
    frame, expected = DATASETS[dataset].read(folder), WRITTEN[dataset](folder)
    frame = frame.drop(columns=["sex", "age"], errors="ignore")  # their own tests read them
    assert len(frame) == 150
    assert frame.columns.tolist() == expected.columns.tolist()
    text = frame.columns[: 5 if dataset == "chexpert" else 4]
    assert frame[text].to_numpy().tolist() == expected[text].to_numpy().tolist()
    values = frame.drop(columns=text).to_numpy()
    np.testing.assert_array_equal(values, expected.drop(columns=text).to_numpy(np.float32))
    assert frame.attrs["phantom"]
    assert not frame.attrs["complete"]
    drawn = pd.read_csv(folder / "phantom_findings.csv")
    assert set(drawn["image_path"]) <= set(frame["image_path"])
    json.dumps(frame.attrs)  # attrs go into every run's records


def test_unfinished_phantoms_are_recognised(tmp_path):
    folder = drawing.write("plco", tmp_path / "drawn", 20, 32, seed=0, progress=False)
    (folder / "phantom.json").rename(folder / "phantom.unfinished.json")
    assert plco.read(folder).attrs["phantom"]


def test_each_directory_is_listed_once_however_many_images_it_holds(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "One.PNG").touch()
    listed, list_names = [], reading.list_names

    def counted(directory):
        listed.append(directory)
        return list_names(directory)

    monkeypatch.setattr(reading, "list_names", counted)
    spelled = reading.on_disk(tmp_path, ["a/one.png", "a/two.png", "b/one.png", "b/two.png"] * 50)
    assert spelled == ["a/One.PNG", None, None, None] * 50
    assert len(listed) == 2


def table_of(tmp_path, text, wanted=("name", "finding")):
    (tmp_path / "labels.csv").write_text(text)
    return reading.read_table(tmp_path / "labels.csv", wanted[:1], wanted[1:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,age,finding\na,1,0\nb,1,0.0,0\n", "has 4 fields in line 3, .* header has 3"),
        ("name,age,finding\na,1,0\n\nb,1\n", "has 2 fields in line 4, .* header has 3"),
        ("name,age,finding\na,0.0,1,0\nb,0.0,1,1\n", "has 4 fields in line 2"),  # in all rows
        ("name,age,finding\na,1\nb,1\n", "has 2 fields in line 2"),
        ('name,age,finding\na,1,0\n"b,1,0\nc,1,0\n', "stray quotation mark .* in line 3"),
        ('name,age,finding\na,1,0\n"b\n",1,0\n', "stray quotation mark .* in line 3"),
        ('name,age,finding\nb",1,0\n', 'stray quotation mark in column name, line 2: b"'),
        ("name,finding,finding\na,1,0\n", "has the column finding more than once"),
        ("name,finding, finding\na,1,0\n", "has the column finding more than once"),
        ("name,age,finding\na,1,0\n,1,0\n", "no name in 1 of 2 rows, first in line 3"),
        ("name,age,finding\na,1,0\n\nb,1,2\n", "column finding: 2, first in line 4"),
        ("a,b\n1,2\n\0,3\n", "has a NUL byte in line 3; get it again"),
    ],
)
@pytest.mark.parametrize("name", ["labels.csv", "labels.csv.gz"])
def test_a_malformed_row_is_refused_with_its_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())

    def read():
        table = reading.read_table(path, ("name",), ("finding",))
        reading.texts(table, "name", path)
        reading.label_values(table, ("finding",), (0, 1), path)

    with pytest.raises(DataError, match=message):
        read()


def test_rows_are_returned_with_their_lines(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('\nid,a\n\nx,"1,2"\ny,\n')
    assert reading.read_rows(path) == [(2, ["id", "a"]), (4, ["x", "1,2"]), (5, ["y", ""])]
    path.write_bytes(gzip.compress(b"id,a\nx\n"))  # gzipped under another name
    with pytest.raises(DataError, match=r"rows.csv has 1 field in line 2, .* header has 2"):
        reading.read_rows(path)


@pytest.mark.parametrize(
    "text",
    [
        "name,age,finding\na,1,0\nb,2,1\n",
        "name,age,finding\r\na,1,0\r\n\r\nb,2,1",
        "name,age,finding\na,1,0,\nb,2,1,\n",  # a comma ends every row
        "name,age,finding,\na,1,0\nb,2,1\n",  # or the header
        " name,finding ,age\na,0,1\nb,1,2\n",
        "name,finding,age,age\na,0,1,3\nb,1,2,3\n",  # a duplicate column that is not read
        'name,age,finding\n"a","1","0"\nb,2,1\n',
    ],
)
def test_equivalent_files_read_the_same(tmp_path, text):
    table = table_of(tmp_path, text)
    assert table["name"].tolist() == ["a", "b"]
    assert table["finding"].tolist() == [0, 1]


def test_rows_know_their_lines(tmp_path):
    table = table_of(tmp_path, "\nname,finding\n\na,0\nb,1\n\nc,1\n")
    assert table.index.tolist() == [4, 5, 7]


@pytest.mark.parametrize(
    ("first", "second"), [("0", "0.0"), ("99", "099"), ("A-01", "a-01"), ("A-01", "A-1")]
)
def test_a_patient_in_two_spellings_is_refused(first, second):
    frame = pd.DataFrame({"patient_id": [first, "7", second], "split": ["train", "train", "test"]})
    with pytest.raises(DataError, match=f"{first} and {second} in the split look like one patient"):
        reading.check_patients(frame)
    reading.check_patients(frame.replace({"patient_id": {second: "1000"}}))


@pytest.mark.parametrize("dataset", DATASETS)
def test_shuffled_rows_are_the_same_dataset(tmp_path, dataset):
    folder = drawing.write(dataset, tmp_path / "drawn", 60, 32, seed=4, progress=False)
    before = DATASETS[dataset].read(folder)
    for path in [*folder.glob("*.csv"), *folder.glob("*_list.txt")]:
        header, *rows = path.read_text().splitlines()
        if path.suffix == ".txt":
            header, rows = rows[0], [header, *rows[1:]]
        path.write_text("\n".join([header, *rows[::-1]]) + "\n")
    after = DATASETS[dataset].read(folder)
    pd.testing.assert_frame_equal(after, before)
    assert after["split"].drop_duplicates().tolist() == before["split"].drop_duplicates().tolist()


@pytest.mark.parametrize("dataset", ["chestxray14", "plco"])
def test_links_in_a_circle_end(tmp_path, dataset):
    folder = drawing.write(dataset, tmp_path / "drawn", 20, 32, seed=4, progress=False)
    before = DATASETS[dataset].read(folder)
    (folder / "images_001").symlink_to(folder / "images_001")
    (folder / "images" / "loop").symlink_to(folder)
    (folder / "self.png").symlink_to(folder / "self.png")
    pd.testing.assert_frame_equal(DATASETS[dataset].read(folder), before)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "images").symlink_to(tmp_path / "other" / "images")
    message = {"plco": "does not look like", "chestxray14": "cannot be read .* delete it if it is"}
    with pytest.raises(DataError, match=message[dataset]):
        DATASETS[dataset].read(tmp_path / "other")


@pytest.mark.parametrize("dataset", WRITTEN)
def test_a_broken_link_is_a_missing_image(tmp_path, dataset):
    folder = drawing.write(dataset, tmp_path / "drawn", 20, 32, seed=4, progress=False)
    path = DATASETS[dataset].read(folder)["image_path"][5]
    (folder / path).rename(tmp_path / "elsewhere")
    (folder / path).symlink_to(tmp_path / "elsewhere")
    assert DATASETS[dataset].read(folder)["image_path"][5] == path
    (tmp_path / "elsewhere").unlink()
    with pytest.raises(DataError, match=r"1 of 20 .* or are links to missing files"):
        DATASETS[dataset].read(folder)
    frame = DATASETS[dataset].read(folder, allow_missing=True)
    assert len(frame) == frame.attrs["images"] == 19
    assert path not in set(frame["image_path"])
    (missing,) = frame.attrs["missing"]
    assert missing in path


def test_a_folder_that_cannot_be_listed_is_one_sentence(tmp_path, monkeypatch):
    folder = drawing.write("plco", tmp_path / "drawn", 20, 32, seed=4, progress=False)
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("images/"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(
        DataError, match=r"images/ cannot be read \(Permission denied\): make it readable"
    ):
        plco.read(folder)


def test_an_archive_is_to_be_extracted_and_a_file_to_be_left(tmp_path):
    for name, advice in (("CheXpert.zip", "extract it and pass"), ("train.csv", "pass")):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=rf"{name} is a file: {advice} the folder that holds"):
            reading.open_folder(tmp_path / name)


def layout_error(folder):
    expected = ("labels.csv", "images/a.png")
    return str(reading.layout_error(folder, "PLCO", "labels.csv", expected, ("labels.csv",)))


def test_a_wrong_folder_shows_its_files_and_suggests_another(tmp_path):
    folder = tmp_path / "downloads"
    (folder / "inner").mkdir(parents=True)
    assert layout_error(folder).splitlines() == [
        f"{folder} does not look like PLCO: it has no labels.csv.",
        "  expected       found",
        "  labels.csv     inner/",
        "  images/a.png",
    ]
    (folder / "data.tar.gz").touch()
    assert f"Extract data.tar.gz first: cd {folder} && for each in" in layout_error(folder)
    (tmp_path / "labels.csv").touch()
    assert f"Did you mean {tmp_path}?" in layout_error(folder)
    (folder / "inner" / "labels.csv").touch()
    assert f"Did you mean {folder / 'inner'}?" in layout_error(folder)
    (tmp_path / "empty").mkdir()
    assert "labels.csv     (nothing)" in layout_error(tmp_path / "empty")


def test_a_list_names_every_image_once(tmp_path):
    path = tmp_path / "test_list.txt"
    path.write_text("a.png\n\n  b.png \r\nc.png")
    assert reading.read_list(path) == ["a.png", "b.png", "c.png"]
    path.write_text("a.png\n\nb.png\n\nb.png\n")
    with pytest.raises(DataError, match=r"lists b\.png in line 3 and again in line 5; delete one"):
        reading.read_list(path)
    path.write_text("\n \n")
    with pytest.raises(DataError, match="is empty; get it again"):
        reading.read_list(path)


def test_missing_images_may_lie_in_archives(tmp_path):
    folder = drawing.write("plco", tmp_path / "drawn", 20, 32, seed=4, progress=False)
    (folder / plco.read(folder)["image_path"][5]).unlink()
    for name in ("images_2.zip", "images_1.tar.gz"):
        (folder / name).touch()
    with pytest.raises(DataError, match=r"Extract images_1\.tar\.gz, images_2\.zip first\. Get"):
        plco.read(folder)
