"""Splits: by patient, exact to one patient, independent of row order, saved and checked."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import DataError, chestxray14, splits


def frame_of(images, split="train_val"):
    """Return a frame of patients with the given numbers of images."""
    patient = np.repeat([f"p{i}" for i in range(len(images))], images)
    return pd.DataFrame(
        {
            "image_path": [f"images/{i}.png" for i in range(len(patient))],
            "patient_id": patient,
            "split": split,
        }
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=40, max_size=200),
    st.integers(0, 1000),
    st.sampled_from([(0.7, 0.1, 0.2), (0.4, 0.3, 0.3)]),
)
def test_fractions_hold_to_within_a_patient_and_no_patient_is_shared(images, seed, fractions):
    frame = splits.by_patient(frame_of(images), seed, fractions)
    assert frame.groupby("patient_id")["split"].nunique().max() == 1
    shares = frame["split"].value_counts().reindex(splits.NAMES).to_numpy() / len(frame)
    # a cut is off by at most half a patient, a set between two cuts by a whole one
    assert np.abs(shares - fractions).max() <= max(images) / len(frame) + 1e-9


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=40, max_size=80), st.integers(0, 1000))
def test_a_split_depends_on_seed_and_patients_not_on_row_order(images, seed):
    frame = frame_of(images)
    split = splits.by_patient(frame, seed)["split"]
    shuffled = frame.sample(frac=1, random_state=seed)
    np.testing.assert_array_equal(
        splits.by_patient(shuffled, seed)["split"].sort_index().to_numpy(), split.to_numpy()
    )


def test_seeds_give_different_splits_and_the_order_of_images_stays():
    frame = frame_of([3] * 100)
    first, second = splits.by_patient(frame, 0), splits.by_patient(frame, 1)
    assert 0.2 < (first["split"] == second["split"]).mean() < 0.8
    pd.testing.assert_frame_equal(first.drop(columns="split"), frame.drop(columns="split"))
    assert (frame["split"] == "train_val").all()  # the input is unchanged


def test_which_patient_goes_where_never_changes_between_versions():
    frame = splits.by_patient(frame_of([1] * 10), seed=0)
    assert frame.loc[frame["split"] != "train", "patient_id"].tolist() == ["p3", "p6", "p8"]


def test_held_out_keeps_the_released_test_set_and_leaves_others_out():
    parts = [frame_of([5] * n, name) for name, n in (("train", 70), ("valid", 9), ("test", 20))]
    frame = pd.concat(parts, ignore_index=True)
    frame["patient_id"] += frame["split"]
    frame["image_path"] = [f"{i}.png" for i in range(len(frame))]
    scored = splits.held_out(frame, 0.1, seed=0, test="valid")  # validation is never test
    assert scored["split"].value_counts().to_dict() == {"train": 315, "val": 35, "test": 45}
    released = frame.set_index("image_path")["split"]
    came_from = scored["image_path"].map(released)
    assert set(came_from[scored["split"] == "test"]) == {"valid"}
    assert set(came_from[scored["split"] != "test"]) == {"train"}
    with pytest.raises(DataError, match="no images of the released split train_val"):
        splits.held_out(frame, 0.1, seed=0, train="train_val")


def test_released_sets_are_taken_as_they_are():
    parts = [frame_of([2], "train"), frame_of([1], "valid"), frame_of([1], "test")]
    frame = pd.concat(parts, ignore_index=True)
    frame["patient_id"] = frame["split"]
    assert splits.as_released(frame)["split"].tolist() == ["train", "train", "val", "test"]
    with pytest.raises(DataError, match="train_val holds training and validation images in one"):
        splits.as_released(frame_of([1, 2]))


def test_a_leaking_split_is_refused_everywhere(tmp_path):
    frame = frame_of([2, 2]).assign(split=["train", "test", "val", "val"])
    with pytest.raises(DataError, match=r"in more than one split .1.: p0"):
        splits.as_released(frame)
    splits.save(frame, tmp_path / "split.csv")
    with pytest.raises(DataError, match="in more than one split"):
        splits.load(frame_of([2, 2]), tmp_path / "split.csv")


def test_too_few_patients_are_refused():
    with pytest.raises(DataError, match="2 patients with 9 images are too few to fill"):
        splits.by_patient(frame_of([5, 4]), 0)
    with pytest.raises(DataError, match="too few to fill val"):
        splits.carve(frame_of([9, 9], "train"), "train", "val", 0.01, 0)
    with pytest.raises(
        DataError,
        match="no images of the set train, from which val is taken, but of train_val",
    ):
        splits.carve(frame_of([3]), "train", "val", 0.5, 0)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        splits.carve(frame_of([3]), "train_val", "val", 1.0, 0)
    with pytest.raises(ValueError, match="must be the fractions"):
        splits.by_patient(frame_of([3]), 0, (0.7, 0.2, 0.2))


def test_a_saved_split_loads_and_its_hash_guards_it(tmp_path):
    frame = frame_of([3] * 40)
    split = splits.by_patient(frame, 1)
    split.attrs["dataset"] = frame.attrs["dataset"] = "plco"
    path = tmp_path / "runs" / "split.csv"
    digest = splits.save(split, path)
    assert [path] == list(path.parent.iterdir())
    assert digest == splits.save(split, tmp_path / "again.csv")
    loaded = splits.load(frame, path)
    pd.testing.assert_frame_equal(loaded, split)
    assert splits.digest(loaded) == digest
    assert loaded.attrs == {"dataset": "plco"}
    swapped = path.read_text().replace(",val", ",new").replace(",test", ",val")
    path.write_text(swapped.replace(",new", ",test"))
    assert splits.digest(splits.load(frame, path)) != digest
    path.write_text(path.read_text().replace(",val", ",test"))
    with pytest.raises(DataError, match="has no images of the split val"):
        splits.load(frame, path)


def test_loading_leaves_out_images_that_were_left_out(tmp_path):
    frame = pd.concat([frame_of([2] * 20, "train"), frame_of([1] * 4, "test")], ignore_index=True)
    frame["image_path"] = [f"{i}.png" for i in range(len(frame))]
    frame["patient_id"] += frame["split"]
    split = splits.held_out(frame[frame["image_path"] != "0.png"], 0.2, seed=0)
    splits.save(split, tmp_path / "split.csv")
    pd.testing.assert_frame_equal(splits.load(frame, tmp_path / "split.csv"), split)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image_path,split\nimages/0.png,train\nelsewhere.png,test\n",
            "names images .*elsewhere",
        ),
        (
            "image_path,split\nimages/0.png,training\n",
            "has the split 'training' in line 2; use train, val",
        ),
        ("image_path,split\nimages/0.png,test\nimages/0.png,test\n", "more than once"),
        ("image_path,split\nimages/0.png,\n", "no split in 1 of 1 rows"),
        ("image,split\n", "no column image_path"),
        ("image_path,split\n", "has no rows"),
    ],
)
def test_a_split_file_of_other_images_is_refused(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        splits.load(frame_of([2]), tmp_path / "split.csv")


def test_the_real_small_release_splits_as_the_papers_do(shared_data):
    frame = chestxray14.read(shared_data / "chestxray14-64px")
    biggest = frame["patient_id"].value_counts().max()
    official = splits.held_out(frame, 1 / 8, seed=0, train="train_val")  # Mo 2019: 7:1, then test
    counts = official["split"].value_counts()
    assert counts["test"] == 170
    assert abs(counts["val"] - 526 / 8) <= biggest
    random = splits.by_patient(frame, seed=0)  # Ge 2018
    assert abs(random["split"].value_counts()["train"] - 0.7 * len(frame)) <= biggest
    assert official.attrs == random.attrs == frame.attrs


def test_the_chexnet_split_is_the_public_one(shared_data):
    labels_folder = shared_data / "chestxray14-labels"
    table = pd.read_csv(labels_folder / "Data_Entry_2017_v2020.csv.gz")
    frame = pd.DataFrame({"image_path": table["Image Index"], "split": "train_val"})
    frame["patient_id"] = table["Patient ID"].astype(str)
    split = splits.chexnet(frame)
    counts = {"train": 78_468, "val": 11_219, "test": 22_433}
    assert split["split"].value_counts().to_dict() == counts
    assert split.groupby("patient_id")["split"].nunique().max() == 1
    for name in splits.NAMES:
        with gzip.open(labels_folder / "chexnet-split" / f"{name}.txt.gz", "rt") as file:
            assert set(split.loc[split["split"] == name, "image_path"]) == set(file.read().split())
    test = table[split["split"] == "test"]
    assert (test["Finding Labels"] == "No Finding").mean() == pytest.approx(0.53, abs=0.01)


def test_the_chexnet_split_by_hand_and_its_refusals():
    def frame_with(*patients):
        names = [f"{patient}.png" for patient in patients]
        return pd.DataFrame({"image_path": names, "patient_id": patients, "split": "train_val"})

    split = splits.chexnet(frame_with("1", "10", "12", "1"))
    assert split["split"].tolist() == ["train", "test", "val", "train"]
    with pytest.raises(DataError, match="1 to 30805; this data has 2 others, such as A-1; choose"):
        splits.chexnet(frame_with("1", "10", "12", "A-1", "30806"))
    with pytest.raises(
        DataError, match="Of the 2 patients here the CheXNet split puts none into v"
    ):
        splits.chexnet(frame_with("1", "10"))


def test_a_split_named_gz_is_saved_gzipped(tmp_path):
    frame = frame_of([3] * 40)
    split = splits.by_patient(frame, 1)
    digest = splits.save(split, tmp_path / "split.csv.gz")
    assert digest == splits.save(split, tmp_path / "split.csv")
    packed = (tmp_path / "split.csv.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "split.csv").read_bytes()
    splits.save(split, tmp_path / "split.csv.gz")
    assert (tmp_path / "split.csv.gz").read_bytes() == packed  # no time in it
    pd.testing.assert_frame_equal(splits.load(frame, tmp_path / "split.csv.gz"), split)
    shuffled = split.sample(frac=1, random_state=0)
    assert splits.digest(shuffled) == digest
    assert splits.digest(split.assign(split=split["split"].to_numpy()[::-1])) != digest


@pytest.mark.parametrize("name", ["split.csv", "split.csv.gz"])
@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00v", b"PK\x03\x04\xff", b"\x1f\x8b\x08"]
)
def test_a_foreign_file_is_refused_as_a_split(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as raised:
        splits.load(frame_of([2]), tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        splits.load(frame_of([2]), tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory"):
        splits.load(frame_of([2]), tmp_path)


def test_the_digest_of_a_saved_split_is_that_of_the_split(tmp_path):
    split = splits.by_patient(frame_of([3] * 40), 1)
    path = tmp_path / "split.csv.gz"
    assert splits.digest_of(path) == ""  # there is none
    splits.save(split, path)
    assert splits.digest_of(path) == splits.digest(split)
    path.write_bytes(b"junk")
    assert splits.digest_of(path) == ""
