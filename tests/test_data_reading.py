"""What is written as a phantom dataset is what the reader of that dataset reads."""

import json

import numpy as np
import pandas as pd
import pytest

from data import chestxray14, chexpert, labels, plco, reading
from data.phantom import drawing


def written_chestxray14(folder):
    table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv")
    expected = pd.DataFrame({"image_path": "images/" + table["Image Index"]})
    expected["patient_id"] = table["Patient ID"].astype(str)
    expected["view"] = table["View Position"]
    test = set((folder / "test_list.txt").read_text().split())
    expected["split"] = ["test" if n in test else "train_val" for n in table["Image Index"]]
    for label in (*labels.CHESTXRAY14, "No Finding"):
        expected[label] = [label in found.split("|") for found in table["Finding Labels"]]
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


@pytest.mark.parametrize(
    ("reader", "written"),
    [
        (chestxray14, written_chestxray14),
        (chexpert, written_chexpert),
        (plco, written_plco),
    ],
)
def test_what_is_drawn_is_read_label_for_label(reader, written, tmp_path):
    dataset = reader.__name__.split(".")[-1]
    folder = drawing.write(dataset, tmp_path / "drawn", 150, 32, seed=4, progress=False)
    frame, expected = reader.read(folder), written(folder)
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


def test_half_written_phantoms_are_still_known_as_drawn(tmp_path):
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
    found = reading.on_disk(tmp_path, ["a/one.png", "a/two.png", "b/one.png", "b/two.png"] * 50)
    assert found == ["a/One.PNG", None, None, None] * 50
    assert len(listed) == 2
