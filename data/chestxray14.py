"""NIH ChestX-ray14 (Wang et al. 2017) as released: one row an image of the label file."""

from pathlib import Path

import numpy as np
import pandas as pd

from data import DataError, labels, reading

LABEL_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")  # the corrected one first
LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
COMPLETE = {"train_val": 86_524, "test": 25_596}  # images
_EXPECTED = (
    "Data_Entry_2017_v2020.csv  (or Data_Entry_2017.csv, also .gz)",
    "train_val_list.txt",
    "test_list.txt",
    "images/00000001_000.png …  (or images_001/images/ … images_012/images/)",
)


def read(folder: str | Path, allow_missing: bool = False) -> pd.DataFrame:
    """image_path, patient_id, view (PA, AP), split (train_val, test), then 15 labels, 0 or 1.

    An image that lies in several image folders is taken from the first: images/, images_001/, …
    """
    folder = reading.open_folder(folder)
    label_file = _label_file(folder)
    table = reading.read_table(
        label_file, ("Image Index", "Finding Labels", "Patient ID", "View Position")
    )
    names = reading.texts(table, "Image Index", label_file)
    reading.check_unique(names, label_file)
    frame = pd.DataFrame(
        {
            "patient_id": reading.texts(table, "Patient ID", label_file),
            "view": reading.texts(table, "View Position", label_file),
            "split": _splits(names, folder, label_file),
        }
    )
    released = (*labels.CHESTXRAY14, labels.NO_FINDING)
    findings = _findings(reading.texts(table, "Finding Labels", label_file), released, label_file)
    frame = pd.concat([frame, pd.DataFrame(findings, columns=list(released))], axis=1)
    images = _images(folder)
    return reading.finish(
        frame,
        [images.get(name.lower()) for name in names],
        names,
        folder,
        [label_file, *(folder / name for name in LISTS.values())],
        allow_missing,
        dataset="chestxray14",
        complete=frame["split"].value_counts().to_dict() == COMPLETE,
    )


def _label_file(folder: Path) -> Path:
    choices = [folder / (name + ending) for name in LABEL_FILES for ending in ("", ".gz")]
    present = [path for path in choices if path.is_file()]
    lacking = [] if present else [" or ".join(LABEL_FILES)]
    lacking += [name for name in LISTS.values() if not (folder / name).is_file()]
    if lacking:
        marks = [path.name for path in choices]
        raise reading.layout_error(
            folder, "ChestX-ray14", " and no ".join(lacking), _EXPECTED, marks
        )
    return present[0]


def _splits(names: pd.Series, folder: Path, label_file: Path) -> np.ndarray:
    listed = {split: names.isin(reading.read_list(folder / LISTS[split])) for split in LISTS}
    both = names[listed["train_val"] & listed["test"]].tolist()
    if both:
        raise DataError(f"Images are in both lists of {folder} ({len(both):,}), such as {both[0]}.")
    neither = names[~(listed["train_val"] | listed["test"])].tolist()
    if neither:
        raise DataError(
            f"{len(neither):,} of {len(names):,} images of {label_file} are in neither "
            f"train_val_list.txt nor test_list.txt, such as {neither[0]}; get the lists that "
            "belong to it."
        )
    return np.where(listed["test"], "test", "train_val")


def _findings(texts: pd.Series, released: tuple[str, ...], path: Path) -> np.ndarray:
    """(images, labels) float32 of texts such as Effusion|Mass, each different one parsed once."""
    codes, different = pd.factorize(texts)
    known = np.zeros((len(different), len(released)), np.float32)
    unknown: dict[str, None] = {}
    for row, text in enumerate(different):
        found = {finding.strip() for finding in text.split("|")}
        unknown |= dict.fromkeys(sorted(found.difference(released)))
        known[row] = [name in found for name in released]
        if labels.NO_FINDING in found and len(found) > 1:
            raise DataError(f"{path} has the contradictory Finding Labels {text!r}.")
    if unknown:
        raise DataError(
            f"{path} has unknown Finding Labels: {', '.join(map(repr, unknown))}; "
            f"known are {', '.join(released)}."
        )
    return known[codes]


def _images(folder: Path) -> dict[str, str]:
    """Lower-cased file name -> path relative to the folder, over all image folders."""
    numbered = [path.name for path in reading.subfolders(folder) if path.name.startswith("images_")]
    images: dict[str, str] = {}
    for directory in ("images", *(f"{name}/images" for name in numbered), *numbered):
        for lower, name in reading.list_names(folder / directory).items():
            images.setdefault(lower, f"{directory}/{name}")
    return images
