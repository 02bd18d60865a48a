"""The PLCO reader: the released lists, images in any folders, faulty folders."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import DataError, label_tree, plco
from data.labels import PLCO

IMAGES = {  # split -> (name, patient, positive labels)
    "train": [
        ("AD01_v2", "A-000001-2", ("Granuloma", "Pulmonary Nodules and Masses", "Abnormal")),
        ("AD02_v2", "A-000001-2", ()),
        ("AD03_v2", "A-000002-4", ("COPD", "Pulmonary", "Abnormal")),
    ],
    "val": [("AD04_v2", "M-000003-1", ("Bone Lesion", "Abnormal"))],
    "test": [("AD05_v2", "M-000004-9", ())],
}


def table(split, deleted=()):
    rows = [[name, patient, *np.isin(PLCO, found)] for name, patient, found in IMAGES[split]]
    frame = pd.DataFrame(rows, columns=["img_name", "plco_id", *PLCO])
    frame[list(PLCO)] = frame[list(PLCO)].astype(float)
    for label in PLCO:
        frame[f"{label} preserve bool"] = float(label not in deleted)
    return frame


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return three lists and their images in several folders and formats."""
    release = tmp_path / "plco"
    for split in IMAGES:
        (release / split).mkdir(parents=True)
        table(split).to_csv(release / f"{split}_set_delete0.0.csv", index=False)
    for path in (
        "train/AD01_v2.png",
        "train/AD02_v2.TIF",
        "train/AD03_v2.jpeg",
        "val/AD04_v2.tiff",
        "test/AD05_v2.jpg",
    ):
        (release / path).touch()
    return release


def test_the_lists_read_label_for_label(folder):
    frame = plco.read(folder)
    assert frame["image_path"].tolist() == [
        "train/AD01_v2.png",
        "train/AD02_v2.TIF",
        "train/AD03_v2.jpeg",
        "val/AD04_v2.tiff",
        "test/AD05_v2.jpg",
    ]
    assert frame["split"].tolist() == ["train"] * 3 + ["val", "test"]
    assert frame["patient_id"].tolist()[:3] == ["A-000001-2", "A-000001-2", "A-000002-4"]
    assert set(frame["view"]) == {"PA"}
    assert frame.columns[4:].tolist() == [*PLCO, *(f"{label} preserve bool" for label in PLCO)]
    values = frame[list(PLCO)].to_numpy()
    assert values.dtype == np.float32
    everything = [image for split in IMAGES for image in IMAGES[split]]
    for (_, _, found), row in zip(everything, values, strict=True):
        assert {PLCO[i] for i in np.flatnonzero(row)} == set(found)
    assert frame[list(plco.PRESERVE)].to_numpy().all()
    assert not frame.attrs["complete"]
    assert frame.attrs["images"] == 5


def test_lists_with_deleted_labels_are_chosen_by_their_share(folder):
    for split in IMAGES:
        path = folder / f"{split}_set_delete0.3.csv"
        table(split, deleted=("Nodule", "COPD")).to_csv(path, index=False)
    frame = plco.read(folder, deleted="0.3")
    gone = [label for label in PLCO if not frame[f"{label} preserve bool"].any()]
    assert gone == ["Nodule", "COPD"]
    assert "val_set_delete0.3.csv" in frame.attrs["label_files"]
    assert plco.read(folder)[list(plco.PRESERVE)].to_numpy().all()


def test_gzipped_lists_in_a_folder_of_their_own_read_the_same(folder):
    expected = plco.read(folder)
    release = folder / "PLCO_incomplete_experiment_split"
    release.mkdir()
    for split in IMAGES:
        plain = folder / f"{split}_set_delete0.0.csv"
        (release / f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    pd.testing.assert_frame_equal(plco.read(folder), expected)


def test_links_to_folders_are_followed_and_circles_end(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk") / "batch_1"
    (folder / "train").rename(elsewhere)
    (folder / "train").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(folder)
    assert plco.read(folder)["image_path"][0] == "train/AD01_v2.png"


def test_an_image_that_lies_twice_is_refused(folder):
    (folder / "test" / "AD01_v2.tif").touch()
    with pytest.raises(DataError, match=r"AD01_v2 lies twice .* test/AD01_v2.tif and as train/"):
        plco.read(folder)
    (folder / "test" / "AD01_v2.tif").rename(folder / "test" / "AD99_v2.tif")
    (folder / "test" / "AD01_v2.txt").touch()  # other files are ignored
    assert len(plco.read(folder)) == 5


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("val", lambda t: pd.concat([t, t]), "val_set.* lists images more than once .1.: AD04_v2"),
        ("val", lambda t: t.assign(img_name="AD01_v2"), "lists images more than once .1.: AD01_v2"),
        (
            "test",
            lambda t: t.assign(plco_id="A-000001-2"),
            "in more than one split .1.: A-000001-2",
        ),
        ("test", lambda t: t.assign(COPD=np.nan), "other than 0, 1 in column COPD: nan"),
        ("test", lambda t: t.drop(columns="COPD preserve bool"), "no column COPD preserve bool"),
    ],
)
def test_a_wrong_list_is_refused_even_with_allow_missing(folder, split, change, message):
    change(table(split)).to_csv(folder / f"{split}_set_delete0.0.csv", index=False)
    with pytest.raises(DataError, match=message):
        plco.read(folder, allow_missing=True)


def test_a_missing_list_shows_the_expected_files(folder):
    with pytest.raises(DataError, match=r"has no train_set_delete0.5.csv(.|\n)*expected"):
        plco.read(folder, deleted="0.5")
    (folder / "test_set_delete0.0.csv").unlink()
    with pytest.raises(DataError, match=r"has no test_set_delete0.0.csv"):
        plco.read(folder)
    with pytest.raises(DataError, match=f"Did you mean {folder}?"):
        plco.read(folder / "train")


def test_the_real_validation_list_reads(shared_data, tmp_path):
    real = shared_data / "plco-official-splits"
    for deleted in ("0.0", "0.3"):
        name = f"val_set_delete{deleted}.csv.gz"
        (tmp_path / name).write_bytes((real / name).read_bytes())
        for split in ("train", "test"):
            path = tmp_path / f"{split}_set_delete{deleted}.csv"
            table(split).to_csv(path, index=False)
    images = pd.read_csv(real / "val_set_delete0.0.csv.gz", usecols=["img_name"])["img_name"]
    (tmp_path / "images").mkdir()
    for name in [*images, *(name for split in ("train", "test") for name, *_ in IMAGES[split])]:
        (tmp_path / "images" / f"{name}.png").touch()
    whole, partly = plco.read(tmp_path), plco.read(tmp_path, deleted="0.3")
    assert whole["split"].value_counts().to_dict() == {"val": 8538, "train": 3, "test": 1}
    np.testing.assert_array_equal(whole[list(PLCO)], partly[list(PLCO)])
    validation = whole[whole["split"] == "val"]
    assert not label_tree.violations(validation[list(PLCO)], label_tree.PLCO).any()
    assert validation["Abnormal"].sum() == 3540
    assert validation[list(plco.PRESERVE)].to_numpy().all()
    kept = partly.loc[partly["split"] == "val", list(plco.PRESERVE)].to_numpy()
    assert set(np.unique(kept)) == {0, 1}
    # only labels that say something are deleted: a normal image keeps them all
    assert kept[(validation["Abnormal"] == 0).to_numpy()].all()
