"""Train, validation and test sets by patient; every function leaves the order of the images.

A split depends on the seed and the patients' ids alone, not on the order of the rows. Fractions are
of images and hold to within one patient.
"""

import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import safefiles
from data import DataError, reading

NAMES = ("train", "val", "test")
PUBLIC = "public"  # a second test set, Pham's of 500 studies
CHEXNET_PATIENTS = Path(__file__).with_name("chexnet_patients.csv.gz")
OFFICIAL_TEST_PATIENTS = Path(__file__).with_name("chestxray14_test_patients.csv.gz")


def as_released(frame: pd.DataFrame) -> pd.DataFrame:
    """The released sets as they are, CheXpert's `valid` as val."""
    split = frame["split"].replace({"valid": "val"})
    if not split.isin(NAMES).all():
        raise DataError(
            f"The released split {', '.join(sorted(set(split) - set(NAMES)))} holds training and "
            "validation images in one; carve a validation set out of it."
        )
    return _checked(frame.assign(split=split))


def held_out(
    frame: pd.DataFrame, fraction: float, seed: int, train: str = "train", test: str = "test"
) -> pd.DataFrame:
    """Released `test` as test; val is `fraction` of released `train`; other images are left out.

    So the images that a paper reports on never choose its model.
    """
    frame = frame[frame["split"].isin((train, test))].reset_index(drop=True)
    for name in (train, test):
        if not (frame["split"] == name).any():
            raise DataError(f"The data has no images of the released split {name}.")
    released_test = frame["split"] == test
    frame = frame.assign(split=np.where(released_test, "test", "train"))
    return carve(frame, "train", "val", fraction, seed)


def by_patient(
    frame: pd.DataFrame, seed: int, fractions: Sequence[float] = (0.7, 0.1, 0.2)
) -> pd.DataFrame:
    """Random train, val and test sets of all images, whatever the released split."""
    if len(fractions) != len(NAMES) or not np.isclose(sum(fractions), 1):
        raise ValueError(f"{fractions} are no fractions of train, val and test")
    return _checked(frame.assign(split=_assign(frame["patient_id"], NAMES, fractions, seed)))


def chexnet(frame: pd.DataFrame) -> pd.DataFrame:
    """ChestX-ray14's public 70/10/20 split by patient, as used for CheXNet's reproductions.

    78,468 / 11,219 / 22,433 images. The table holds the set of each of the 30,805 patients, taken
    from the three image lists at https://github.com/arnoweng/CheXNet, which others published
    numbers and predictions on.
    """
    set_of_patient = chexnet_sets()
    split = frame["patient_id"].map(set_of_patient)
    unknown = frame.loc[split.isna(), "patient_id"].unique().tolist()
    if unknown:
        raise DataError(
            f"The CheXNet split knows ChestX-ray14's patients 1 to 30805; this data has "
            f"{len(unknown):,} others, such as {unknown[0]}: choose another split."
        )
    if lacking := [name for name in NAMES if name not in set(split)]:
        raise DataError(
            f"Of the {frame['patient_id'].nunique():,} patients here the CheXNet split puts none "
            f"into {lacking[0]}; use more data or choose another split."
        )
    return _checked(frame.assign(split=split))


def chexnet_sets() -> dict[str, str]:
    """Patient -> train, val or test of the CheXNet split."""
    table = reading.read_table(CHEXNET_PATIENTS, ("patient", "split"))
    return dict(zip(table["patient"], table["split"], strict=True))


def official_test_patients() -> set[str]:
    """The 2,797 patients of ChestX-ray14's test_list.txt; all others are in train_val_list.txt."""
    return {*reading.read_table(OFFICIAL_TEST_PATIENTS, ("patient",))["patient"]}


def carve(
    frame: pd.DataFrame, from_split: str, to_split: str, fraction: float, seed: int
) -> pd.DataFrame:
    """Move random patients with `fraction` of the images of `from_split` to `to_split`."""
    if not 0 < fraction < 1:
        raise ValueError(f"fraction {fraction} is not between 0 and 1")
    within = frame["split"] == from_split
    if not within.any():
        others = ", ".join(sorted(set(frame["split"])))
        raise DataError(
            f"There are no images of the set {from_split}, from which {to_split} is taken, but of "
            f"{others}: put the label file of {from_split} into the dataset's folder."
        )
    parts = _assign(
        frame.loc[within, "patient_id"], (to_split, from_split), (fraction, 1 - fraction), seed
    )
    split = frame["split"].to_numpy(object).copy()
    split[within.to_numpy()] = parts
    return _checked(frame.assign(split=split.astype(str)))


def _assign(
    patients: pd.Series, names: Sequence[str], fractions: Sequence[float], seed: int
) -> np.ndarray:
    """The set of each image: patients in a random order, cut where the shares of images fall."""
    code, different = pd.factorize(patients)
    images = np.bincount(code, minlength=len(different))
    digests = [hashlib.blake2b(f"{seed}/{name}".encode()).digest() for name in different]
    order = np.array(sorted(range(len(different)), key=digests.__getitem__), int)
    before = np.concatenate([[0], np.cumsum(images[order])])  # images before each patient
    part = np.zeros(len(different), int)
    for share in np.cumsum(fractions)[:-1]:
        part[order[np.abs(before - share * len(patients)).argmin() :]] += 1
    empty = set(range(len(names))) - set(part[code])
    if empty:
        raise DataError(
            f"{len(different):,} patients with {len(patients):,} images are too few to fill "
            f"{', '.join(names[index] for index in sorted(empty))}; use more data."
        )
    return np.asarray(names)[part[code]]


def _checked(frame: pd.DataFrame) -> pd.DataFrame:
    reading.check_patients(frame)
    return frame


def save(frame: pd.DataFrame, path: str | Path) -> str:
    """Write image_path and split as a CSV, gzipped if named so; its hash, to be recorded."""
    path = Path(path)
    text = frame[["image_path", "split"]].to_csv(index=False, lineterminator="\n")
    content = text.encode("utf-8", "surrogateescape")
    packed = gzip.compress(content, mtime=0) if path.suffix == ".gz" else content
    safefiles.write(path, packed)
    return digest(frame)


def digest(frame: pd.DataFrame) -> str:
    """The hash of which image is in which set, whatever the order of the rows."""
    pairs = sorted(zip(frame["image_path"], frame["split"], strict=True))
    return hashlib.sha256(
        "\n".join(map(",".join, pairs)).encode("utf-8", "surrogateescape")
    ).hexdigest()


def digest_of(path: str | Path) -> str:
    """The digest of a saved split; empty if it cannot be read."""
    try:
        return digest(reading.read_table(Path(path), ("image_path", "split")))
    except DataError:
        return ""


def load(frame: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """The frame's images named in a saved split, with that split; others are left out."""
    path = Path(path)
    table = reading.read_table(path, ("image_path", "split"))
    names = reading.texts(table, "image_path", path)
    reading.check_unique(names, path)
    split = reading.texts(table, "split", path)
    if len(other := split[~split.isin((*NAMES, PUBLIC))]):
        raise DataError(
            f"{path} has the split {other.iloc[0]!r} in line {other.index[0]:,}; use "
            f"{', '.join(NAMES)}."
        )
    if unknown := names[~names.isin(frame["image_path"])].tolist():
        raise DataError(
            f"{path} names images that the data lacks ({len(unknown):,}), such as {unknown[0]}; "
            "it was saved for another folder."
        )
    if lacking := [name for name in NAMES if name not in set(split)]:
        raise DataError(f"{path} has no images of the split {lacking[0]}; a run needs all three.")
    saved = frame["image_path"].map(dict(zip(names, split, strict=True)))
    return _checked(frame.assign(split=saved)[saved.notna()].reset_index(drop=True))
