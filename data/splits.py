"""Split images into train, validation and test sets by patient, in their given order.

A split depends on the seed and the patients' ids alone, not on the order of the rows. Fractions
refer to images and are exact to within one patient.
"""

import gzip
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import safefiles
from data import DataError, public_lists, reading

NAMES = ("train", "val", "test")
PUBLIC = "public"  # a second test set, Pham's of 500 studies
_RANGES = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


class PatientsUnknown(DataError):
    """A split by patient was asked for, but the dataset does not say whose the images are."""


def of_patients(frame: pd.DataFrame, wanted: str) -> pd.DataFrame:
    """Return the images of some patients: ranges such as 1-100,205, or a file with one id per line.

    Ids are compared by their first number: 7, 0007 and patient00007 are one patient.
    """
    _check_patients_known(frame)
    number = frame["patient_id"].str.extract(r"(\d+)", expand=False).astype(float)
    if _RANGES.fullmatch(wanted):
        ends = [part.partition("-")[::2] for part in wanted.split(",")]
        kept = [number.between(int(first), int(last or first)) for first, last in ends]
        chosen = np.logical_or.reduce(kept)
        shown = wanted
    else:
        path = Path(wanted).expanduser()
        if not path.is_file():
            raise DataError(
                f"--patients {wanted}: give ranges such as 1-100,205, or a file with one id per "
                "line."
            )
        ids = pd.Series(reading.read_list(path)).str.extract(r"(\d+)", expand=False)
        chosen = number.isin(ids.dropna().astype(float)).to_numpy()
        shown = path.name
    if not chosen.any():
        raise DataError(f"--patients {wanted}: the dataset has no images of these patients.")
    subset = frame[chosen].reset_index(drop=True)
    patients = sorted(subset["patient_id"].unique())
    listed = hashlib.sha256("\n".join(patients).encode()).hexdigest()
    subset.attrs = {
        **frame.attrs,
        "complete": False,
        "patients": {"given": shown, "count": len(patients), "sha256": listed},
    }
    return subset


def _check_patients_known(frame: pd.DataFrame) -> None:
    if reason := frame.attrs.get("patients_unknown"):
        raise PatientsUnknown(
            f"The patients of these images are unknown ({reason}): put MedMNIST's table of indices "
            "beside the file, or use the released split and all images."
        )


def as_released(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the released splits unchanged, except that CheXpert's `valid` is called val."""
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
    """Return released `test` as test and `fraction` of released `train` as val; drop other images.

    The images that a paper reports on therefore never select its model.
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
    """Return random train, val and test sets of all images; ignore the released split."""
    _check_patients_known(frame)
    if len(fractions) != len(NAMES) or not np.isclose(sum(fractions), 1):
        raise ValueError(f"{fractions} must be the fractions of train, val and test, with sum 1")
    return _checked(frame.assign(split=_assign(frame["patient_id"], NAMES, fractions, seed)))


def chexnet(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ChestX-ray14's public 70/10/20 split by patient, used by CheXNet's reproductions.

    It has 78,468 / 11,219 / 22,433 images of 30,805 patients and comes from the three image lists
    at https://github.com/arnoweng/CheXNet, on which others published numbers and predictions.
    ChestMNIST is released in these sets, so they are known even where its patients are not.
    """
    if "patients_unknown" in frame.attrs:
        return as_released(frame)
    set_of_patient = public_lists.chexnet_sets()
    split = frame["patient_id"].map(set_of_patient)
    unknown = frame.loc[split.isna(), "patient_id"].unique().tolist()
    if unknown:
        raise DataError(
            f"The CheXNet split covers ChestX-ray14's patients 1 to 30805; this data has "
            f"{len(unknown):,} others, such as {unknown[0]}; choose another split."
        )
    if lacking := [name for name in NAMES if name not in set(split)]:
        raise DataError(
            f"Of the {frame['patient_id'].nunique():,} patients here the CheXNet split puts none "
            f"into {lacking[0]}; use more data or choose another split."
        )
    return _checked(frame.assign(split=split))


def official(frame: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Return ChestX-ray14's official test set, and `fraction` of all other images as val."""
    _check_patients_known(frame)
    if "train_val" not in set(frame["split"]):  # ChestMNIST is released in CheXNet's sets
        testing = frame["patient_id"].isin(public_lists.official_test_patients())
        frame = frame.assign(split=np.where(testing, "test", "train_val"))
    return held_out(frame, fraction, seed, train="train_val")


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
            f"{others}; put the label file of {from_split} into the dataset's folder."
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
    """Return the set of each image: shuffle the patients and cut where the image shares fall."""
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
    """Write image_path and split as a CSV, gzipped if named .gz; return the split's digest."""
    path = Path(path)
    text = frame[["image_path", "split"]].to_csv(index=False, lineterminator="\n")
    content = text.encode("utf-8", "surrogateescape")
    packed = gzip.compress(content, mtime=0) if path.suffix == ".gz" else content
    safefiles.write(path, packed)
    return digest(frame)


def digest(frame: pd.DataFrame) -> str:
    """Return the hash of the images and their sets; the order of the rows does not matter."""
    pairs = sorted(zip(frame["image_path"], frame["split"], strict=True))
    return hashlib.sha256(
        "\n".join(map(",".join, pairs)).encode("utf-8", "surrogateescape")
    ).hexdigest()


def digest_of(path: str | Path) -> str:
    """Return the digest of a saved split; "" if it cannot be read."""
    try:
        return digest(reading.read_table(Path(path), ("image_path", "split")))
    except DataError:
        return ""


def load(frame: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Return the images that a saved split names, with that split; drop all others."""
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
