"""ChestMNIST: rows are named only where every label agrees with the public lists."""

import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest

from data import DataError, chestmnist, labels, public_lists, splits
from downloads import DownloadError
from tests import mnist
from tests.file_server import file_server  # noqa: F401

PATIENTS = "chestxray14-patients-1-3922-64px"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a file with all 112,120 rows of the public lists; its images are black."""
    path = tmp_path_factory.mktemp("whole") / "chestmnist.npz"
    return mnist.write(path, mnist.listed(), mnist.blank)


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """Return a folder with 1,000 real radiographs and the table of indices."""
    source = shared_data / PATIENTS / "images"
    listed = mnist.listed({path.name for path in sorted(source.iterdir())[:1000]})
    folder = tmp_path_factory.mktemp("real")
    mnist.write(folder / "chestmnist_64.npz", listed, mnist.from_folder(source, 64))
    mnist.write_index(folder / "chestmnist.csv", listed)
    return folder


def test_the_public_lists_are_those_of_the_label_file(shared_data):
    released = pd.read_csv(shared_data / "chestxray14-labels" / "Data_Entry_2017_v2020.csv.gz")
    listed = public_lists.images()
    assert {*listed["image"]} == {*released["Image Index"]}
    of_2020 = released.set_index("Image Index")["Finding Labels"].reindex(listed["image"])
    known = of_2020.str.get_dummies()[list(labels.CHESTXRAY14)].to_numpy()
    of_lists = public_lists.label_matrix(listed["findings"])
    assert (of_lists > known).sum() == 0
    assert (known > of_lists).sum() == 188
    assert (known > of_lists).any(axis=1).sum() == 181


def test_the_order_of_the_lists_is_the_public_one(shared_data):
    listed = mnist.listed()
    for name in mnist.SETS:
        path = shared_data / "chestxray14-labels" / "chexnet-split" / f"{name}.txt.gz"
        released = gzip.decompress(path.read_bytes()).decode().split()
        assert listed["image"][listed["chexnet"] == name].tolist() == released


def test_a_whole_file_is_named(whole):
    frame = chestmnist.read(whole)
    assert frame.attrs["complete"]
    assert "patients_unknown" not in frame.attrs
    assert frame["split"].value_counts().to_dict() == chestmnist.COMPLETE
    assert frame["image_path"][0] == "chestmnist.npz/train/0/00001522_000.png"
    assert frame["patient_id"][0] == "1522"
    assert frame["patient_id"].nunique() == 30_805
    counts = frame[frame["split"] == "train"][list(labels.CHESTXRAY14)].sum().astype(int)
    assert counts.tolist()[:4] == [7996, 1950, 9261, 13914]
    assert splits.chexnet(frame)["split"].equals(frame["split"])
    official = splits.official(frame, 1 / 8, seed=0)
    assert (official["split"] == "test").sum() == 25_596


def test_two_rows_that_are_swapped_are_not_named(whole, tmp_path):
    path = tmp_path / "chestmnist.npz"
    path.write_bytes(whole.read_bytes())
    with np.load(path) as arrays:
        swapped = arrays["test_labels"].copy()
    other = int((swapped != swapped[0]).any(axis=1).argmax())
    swapped[[0, other]] = swapped[[other, 0]]
    mnist.change(path, test_labels=swapped)
    frame = chestmnist.read(path)
    reason = frame.attrs["patients_unknown"]
    assert reason == (
        "2 of 112,120 rows have other labels than the public lists, first row 0 of test"
    )
    assert frame["patient_id"].is_unique
    assert frame["image_path"][0] == "chestmnist.npz/train/0"


def test_a_changed_label_is_found(whole, tmp_path):
    path = tmp_path / "chestmnist.npz"
    path.write_bytes(whole.read_bytes())
    with np.load(path) as arrays:
        changed = arrays["train_labels"].copy()
    changed[70_000, 13] ^= 1
    mnist.change(path, train_labels=changed)
    reason = chestmnist.read(path).attrs["patients_unknown"]
    assert "1 of 112,120 rows" in reason
    assert "row 70000 of train" in reason


def test_a_part_is_named_by_the_table_of_indices(real):
    frame = chestmnist.read(real)
    assert "patients_unknown" not in frame.attrs
    assert not frame.attrs["complete"]
    assert frame["image_path"].str.endswith(".png").all()
    with pytest.raises(DataError, match="no images of these patients"):
        splits.of_patients(frame, "30000-30805")
    some = splits.of_patients(frame, "1-20,25")
    assert set(some["patient_id"].astype(int)) <= {*range(1, 21), 25}
    assert some.attrs["patients"]["given"] == "1-20,25"


def test_a_part_without_a_table_is_unnamed(real, tmp_path):
    file = tmp_path / "chestmnist_64.npz"
    file.write_bytes((real / file.name).read_bytes())
    frame = chestmnist.read(file)
    assert frame.attrs["patients_unknown"] == "1,000 rows instead of the public lists' 112,120"
    for split in (splits.by_patient, lambda frame, seed: splits.official(frame, 0.1, seed)):
        with pytest.raises(splits.PatientsUnknown):
            split(frame, seed=0)
    assert splits.chexnet(frame)["split"].equals(frame["split"])


def test_a_table_that_belongs_to_another_file(real, tmp_path):
    (tmp_path / "chestmnist_64.npz").write_bytes((real / "chestmnist_64.npz").read_bytes())
    index = pd.read_csv(real / "chestmnist.csv")
    index.iloc[:-1].to_csv(tmp_path / "chestmnist.csv", index=False)
    assert "name no image for row" in chestmnist.read(tmp_path).attrs["patients_unknown"]
    index.assign(image_id=index["image_id"].to_numpy()[::-1]).to_csv(
        tmp_path / "chestmnist.csv", index=False
    )
    assert "other labels than the table" in chestmnist.read(tmp_path).attrs["patients_unknown"]


def test_sex_age_and_view_come_from_the_label_file(real, shared_data, tmp_path):
    for path in (*real.iterdir(), shared_data / PATIENTS / "Data_Entry_2017_v2020.csv"):
        (tmp_path / path.name).symlink_to(path)
    frame = chestmnist.read(tmp_path)
    released = pd.read_csv(tmp_path / "Data_Entry_2017_v2020.csv", index_col="Image Index")
    names = frame["image_path"].str.rpartition("/")[2]
    assert frame["sex"].tolist() == released["Patient Gender"].reindex(names).tolist()
    assert set(frame["view"]) == {"PA", "AP"}


@pytest.mark.parametrize(("size", "expected"), [(28, 28), (64, 64), (100, 128), (256, 224)])
def test_the_file_of_the_fitting_size_is_read(size, expected, tmp_path):
    assert chestmnist.pixels_for(size, chestmnist.FILES) == expected
    for name, _ in chestmnist.FILES.values():
        (tmp_path / name).write_bytes(b"")
    assert chestmnist._find(tmp_path, size).name == chestmnist.FILES[expected][0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", "is damaged or cut short"),
        ("empty", "is damaged or cut short"),
        ("labels", "other train_labels than 14 columns of 0 and 1"),
        ("pixels", "float64 values in train_images"),
        ("shape", "not one square gray image for each"),
        ("keys", "has no val_images"),
        ("folder", r"no chestmnist\*\.npz; --download gets it"),
        ("nowhere", "There is no folder"),
    ],
)
def test_damage_is_one_sentence(damage, message, tmp_path):
    path = tmp_path / "chestmnist.npz"
    mnist.write(path, mnist.listed().groupby("chexnet").head(30), mnist.blank)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "labels":
        mnist.change(path, train_labels=np.full((30, 14), 2, np.uint8))
    elif damage == "pixels":
        mnist.change(path, train_images=np.zeros((30, 28, 28)))
    elif damage == "shape":
        mnist.change(path, train_images=np.zeros((29, 28, 28), np.uint8))
    elif damage == "keys":
        with np.load(path) as arrays:
            content = {name: arrays[name] for name in arrays.files if name != "val_images"}
        np.savez(path, **content)
    elif damage == "folder":
        path = tmp_path / "sub"
        path.mkdir()
    elif damage == "nowhere":
        path = tmp_path / "nowhere.npz"
    with pytest.raises(DataError, match=message):
        chestmnist.read(path)


def test_it_is_downloaded_in_the_fitting_size(file_server, tmp_path, monkeypatch):  # noqa: F811
    handler, address = file_server
    content = b"an npz of 64 pixels"
    handler.files = {"/mirror/chestmnist_64.npz": content}
    name, published = chestmnist.FILES[64]
    with pytest.raises(DownloadError, match=f"instead of {published}"):
        chestmnist.download(tmp_path, 64, f"{address}/mirror/")
    digest = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(chestmnist.FILES, 64, (name, digest))
    path = chestmnist.download(tmp_path, 60, f"{address}/mirror")
    assert path == tmp_path / name
    assert path.read_bytes() == content
    assert handler.asked[-1][0] == "/mirror/chestmnist_64.npz?download=1"
