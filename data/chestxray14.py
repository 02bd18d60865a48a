"""Read NIH ChestX-ray14 (Wang et al. 2017) as released: one row per image of the label file."""

from pathlib import Path

import numpy as np
import pandas as pd

from data import DataError, labels, reading
from data.datasets import DATASETS

DATASET = DATASETS["chestxray14"]
COMPLETE = DATASET.complete  # images per split
LABEL_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")  # the corrected file first
LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
_EXPECTED = (
    "Data_Entry_2017_v2020.csv  (or Data_Entry_2017.csv, also .gz)",
    "train_val_list.txt",
    "test_list.txt",
    "images/00000001_000.png …  (or images_001/images/ … images_012/images/)",
)


def read(folder: str | Path, allow_missing: bool = False) -> pd.DataFrame:
    """Return one row per image, in the order of the images' names.

    Columns: image_path, patient_id (without leading zeros), sex and age (as written, blank where
    the label file lacks them), view (PA, AP), split (train_val, test), then 15 labels, 0 or 1. An
    image that lies in several image folders is taken from the first: images/, images_001/, …
    """
    folder = reading.open_folder(folder)
    label_file = _label_file(folder)
    needed = ("Image Index", "Finding Labels", "Patient ID", "View Position")
    table = reading.read_table(label_file, needed, optional=("Patient Gender", "Patient Age"))
    names = reading.texts(table, "Image Index", label_file)
    reading.check_unique(names, label_file)
    patients = _patients(table, names, label_file)
    split = _splits(names, folder, label_file, allow_missing)
    released = (*labels.CHESTXRAY14, labels.NO_FINDING)
    findings = _findings(reading.texts(table, "Finding Labels", label_file), released, label_file)
    views = reading.texts(table, "View Position", label_file).to_numpy()
    sex, age = (
        table.get(column, pd.Series("", table.index)).fillna("").to_numpy()
        for column in ("Patient Gender", "Patient Age")
    )
    about = {"patient_id": patients, "sex": sex, "age": age, "view": views, "split": split}
    frame = pd.DataFrame(about)
    frame = pd.concat([frame, pd.DataFrame(findings, columns=list(released))], axis=1)
    images = _images(folder)
    return reading.finish(
        frame.assign(block=0),
        [images.get(name.lower()) for name in names],
        names.reset_index(drop=True),
        folder,
        [label_file, *(folder / name for name in LISTS.values())],
        allow_missing,
        dataset=DATASET.name,
        complete=frame["split"].value_counts().to_dict() == COMPLETE,
    )


def _patients(table: pd.DataFrame, names: pd.Series, path: Path) -> np.ndarray:
    """Return the patient ids in one spelling; raise a DataError if a file name contradicts one.

    99, 099 and 99.0 are one patient, and 00000013_005.png is an image of patient 13.
    """
    patients = reading.texts(table, "Patient ID", path)
    patients = patients.str.replace(r"^0*(\d+)(?:\.0*)?$", r"\1", regex=True)
    in_name = names.str.extract(r"^0*(\d+)_\d+\.", expand=False)
    first = reading.first_true(in_name.notna() & (in_name != patients))
    if first is not None:
        raise DataError(
            f"{path} gives the image {names.iloc[first]} to patient {patients.iloc[first]} in line "
            f"{names.index[first]:,}, but its name says patient {in_name.iloc[first]}; correct "
            "that line, or get the file again."
        )
    return patients.to_numpy()


def _label_file(folder: Path) -> Path:
    """Return the label file; raise a DataError if it or one of the lists is missing."""
    choices = [folder / (name + ending) for name in LABEL_FILES for ending in ("", ".gz")]
    present = [path for path in choices if path.is_file()]
    absent = [] if present else [" or ".join(LABEL_FILES)]
    absent += [name for name in LISTS.values() if not (folder / name).is_file()]
    if absent:
        marks = [path.name for path in choices]
        raise reading.layout_error(folder, DATASET.title, " and no ".join(absent), _EXPECTED, marks)
    return present[0]


def _splits(names: pd.Series, folder: Path, label_file: Path, allow_missing: bool) -> np.ndarray:
    """Return the split of each image; raise a DataError where lists and label file disagree."""
    lists = {split: reading.read_list(folder / name) for split, name in LISTS.items()}
    listed = {split: names.isin(images).to_numpy() for split, images in lists.items()}
    in_both = names[listed["train_val"] & listed["test"]].tolist()
    if in_both:
        raise DataError(
            f"Images are in both lists of {folder} ({len(in_both):,}), such as {in_both[0]}."
        )
    unlisted = names[~(listed["train_val"] | listed["test"])]
    if len(unlisted):
        raise DataError(
            f"{len(unlisted):,} of {len(names):,} images of {label_file} are in neither "
            f"train_val_list.txt nor test_list.txt, such as {unlisted.iloc[0]} in line "
            f"{unlisted.index[0]:,}; get the lists that belong to it."
        )
    known = set(names)
    for split, images in lists.items():
        unknown = [image for image in images if image not in known]
        if unknown and not allow_missing:
            raise DataError(
                f"{folder / LISTS[split]} names images that {label_file.name} lacks "
                f"({len(unknown):,}), such as {unknown[0]}; get the whole label file, or pass "
                "--allow-missing to go on without them."
            )
    return np.where(listed["test"], "test", "train_val")


def _findings(texts: pd.Series, released: tuple[str, ...], path: Path) -> np.ndarray:
    """Return (images, labels) float32 of texts such as Effusion|Mass; parse equal texts once."""
    codes, different = pd.factorize(texts)
    known = np.zeros((len(different), len(released)), np.float32)
    unknown: dict[str, int] = {}  # finding -> its first line
    for row, text in enumerate(different):
        named = [finding.strip() for finding in text.split("|")]
        for finding in named:
            if finding not in released:
                unknown.setdefault(finding, texts.index[codes == row][0])
        known[row] = [name in named for name in released]
        if labels.NO_FINDING in named and len(named) > 1:
            line = texts.index[codes == row][0]
            raise DataError(
                f"{path} has the contradictory Finding Labels {text!r} in line {line:,}."
            )
    if unknown:
        raise DataError(
            f"{path} has unknown Finding Labels: {', '.join(map(repr, unknown))}, first in line "
            f"{min(unknown.values()):,}; known are {', '.join(released)}."
        )
    return known[codes]


def _images(folder: Path) -> dict[str, str]:
    """Return lower-cased file name -> path relative to the folder, over all image folders."""
    numbered = [path.name for path in reading.subfolders(folder) if path.name.startswith("images_")]
    images: dict[str, str] = {}
    for directory in ("images", *(f"{name}/images" for name in numbered), *numbered):
        for lower, name in reading.list_names(folder / directory).items():
            images.setdefault(lower, f"{directory}/{name}")
    return images
