"""Read CheXpert (Irvin et al. 2019) as released: 1, 0, -1 (uncertain) or NaN (blank)."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from data import DataError, reading
from data.datasets import DATASETS
from data.labels import CHEXPERT

DATASET = DATASETS["chexpert"]
COMPLETE = DATASET.complete  # images per split
CSVS = {
    "train": ("train.csv",),
    "valid": ("valid.csv", "val_labels.csv"),
    "test": ("test.csv", "test_labels.csv", "groundtruth.csv"),
}  # the later names are those of CheXlocalize and of the published test labels
VISUALCHEXBERT = "train_visualCheXbert.csv"
RADIOLOGISTS = ("bc4", "bc6", "bc8")  # the three benchmark radiologists
_FOLDERS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
_BATCH = re.compile(r"\(train \d+\)$")  # ends the folders of the full-size training images
_PATH = r"(?:^|/)(?P<patient_id>patient[^/]+)/(?P<study>study[^/]+)"
_EXPECTED = (
    "train.csv  (inside or beside CheXpert-v1.0/ or CheXpert-v1.0-small/)",
    "valid.csv",
    "test.csv  (if you have it; also test_labels.csv or groundtruth.csv)",
    "train/patient00001/study1/view1_frontal.jpg …",
    "valid/patient64541/study1/view1_frontal.jpg …",
)


def read(folder: str | Path, labels: str = "chexpert", allow_missing: bool = False) -> pd.DataFrame:
    """Return one row per image: by split, then in the order of patient, study and image.

    Columns: image_path, patient_id, study_id, sex, age, view, split (train, valid, test), then 14
    labels. Sex and age are as written, and blank in the test set, whose CSV lacks them. `folder` is
    the CheXpert folder or its parent folder. `labels` chooses the training labels: "chexpert", or
    "visualchexbert", which are never uncertain.
    """
    folder = reading.open_folder(folder)
    folders = _chexpert_folders(folder)
    csvs = _csvs(folders, labels)
    parts, names, paths = [], [], []
    for block, (split, path) in enumerate(csvs.items()):
        folder_of_patient = _patient_folders(folders, split)
        table = _read_csv(path, split, folder, folder_of_patient)
        name = table.pop("name")
        reading.check_unique(name, path)
        parents = table["patient_id"].map(folder_of_patient).fillna(split)
        paths += reading.on_disk(folder, parents + "/" + name)
        names.append(split + "/" + name)
        parts.append(table.assign(split=split, block=block))
    columns = ["patient_id", "study_id", "sex", "age", "view", "split", *CHEXPERT, "block"]
    frame = pd.concat(parts, ignore_index=True)[columns]
    rows = frame["split"].value_counts().to_dict()
    radiologists(folder)  # report a faulty file now, not after training
    return reading.finish(
        frame,
        paths,
        pd.concat(names, ignore_index=True),
        folder,
        list(csvs.values()),
        allow_missing,
        dataset=DATASET.name,
        complete={"train", "valid"} <= set(rows)
        and all(count == COMPLETE[split] for split, count in rows.items()),
    )


def radiologists(folder: str | Path) -> dict[str, pd.DataFrame]:
    """Return the 0/1 decisions on the test set, by study_id, of each benchmark radiologist.

    A file may lie where the released repository has it, or directly in `radiologists`.
    """
    folder = reading.open_folder(folder)
    decisions = {}
    for name in RADIOLOGISTS:
        paths = (
            each / "radiologists" / below / f"{name}.csv"
            for each in _chexpert_folders(folder)
            for below in ("", "benchmark_radiologists")
        )
        if path := next((path for path in paths if path.is_file()), None):
            table = reading.read_table(path, ("Study",), CHEXPERT)
            values = reading.label_values(table, CHEXPERT, (1, 0), path)
            studies = reading.texts(table, "Study", path)
            reading.check_unique(studies, path)
            study_ids = _parsed(studies, _PATH + "$", path).agg("/".join, axis=1)
            decisions[name] = pd.DataFrame(values, study_ids.to_numpy(), list(CHEXPERT))
    return decisions


def _chexpert_folders(folder: Path) -> list[Path]:
    """Return the folder and the CheXpert folders within it."""
    within = [path for path in reading.subfolders(folder) if path.name.lower().startswith("chex")]
    return [folder, *within]


def _csvs(folders: list[Path], labels: str) -> dict[str, Path]:
    """Return split -> its CSV; raise a DataError if there is none, or not the one asked for."""
    folder = folders[0]
    if labels not in ("chexpert", "visualchexbert"):
        raise DataError(f"There are no {labels!r} labels; choose chexpert or visualchexbert.")
    names = CSVS | ({"train": (VISUALCHEXBERT,)} if labels == "visualchexbert" else {})
    searched = folders
    if folder.absolute().name.lower().startswith("chex"):  # the CSV may lie beside this folder
        searched = [*folders, folder.absolute().parent]
    csvs = {}
    for split, choices in names.items():
        paths = (each / name for name in choices for each in searched)
        present = next((path for path in paths if path.is_file()), None)
        if present:
            csvs[split] = present
    if labels == "visualchexbert" and "train" not in csvs:
        error = reading.layout_error(
            folder,
            "CheXpert with VisualCheXbert labels",
            VISUALCHEXBERT,
            (VISUALCHEXBERT, *_EXPECTED[1:]),
            (VISUALCHEXBERT,),
        )
        raise DataError(f"{error}\nWithout that file, use --labels chexpert.")
    if not csvs:
        marks = [name for choices in names.values() for name in choices]
        raise reading.layout_error(
            folder, DATASET.title, "train.csv, valid.csv or test.csv", _EXPECTED, marks
        )
    return csvs


def _patient_folders(folders: list[Path], split: str) -> dict[str, str]:
    """Return patient -> the parent of the patient's folder, relative to the first of `folders`."""
    folder_of_patient: dict[str, str] = {}
    for folder in folders:
        inside = [folder / name for name in _FOLDERS[split]]
        if split == "train" and folder != folders[0] and _BATCH.search(folder.name):
            inside.append(folder)
        for directory in inside:
            relative = directory.relative_to(folders[0]).as_posix()
            patients = [name for name in reading.list_names(directory) if name[:7] == "patient"]
            shared = folder_of_patient.keys() & set(patients)
            if shared:
                raise DataError(
                    f"Patients such as {min(shared)} lie both in {folder_of_patient[min(shared)]} "
                    f"and in {relative} below {folders[0]}; pass one of these folders."
                )
            for patient in patients:
                folder_of_patient[patient] = relative
    return folder_of_patient


def _read_csv(
    path: Path, split: str, folder: Path, folder_of_patient: dict[str, str]
) -> pd.DataFrame:
    """Return a CSV's patients, studies, sexes, ages, names (patient/study/image), views, labels."""
    by_study = path.name == "groundtruth.csv"
    column = "Study" if by_study else "Path"
    optional = ("Sex", "Age", "AP/PA", "Frontal/Lateral")
    table = reading.read_table(path, (column,), CHEXPERT, optional)
    # the test labels are a majority vote of radiologists, without blank or uncertain ones
    allowed = (1, 0) if split == "test" else (1, 0, -1, np.nan)
    values = reading.label_values(table, CHEXPERT, allowed, path)
    text = reading.texts(table, column, path)
    parsed = _parsed(text, _PATH + ("$" if by_study else "/(?P<image>[^/]+)$"), path)
    _check_path(text, parsed, table, split, path)
    frame = pd.DataFrame(values, columns=list(CHEXPERT), index=table.index)
    frame["patient_id"] = parsed["patient_id"]
    frame["study_id"] = parsed["patient_id"] + "/" + parsed["study"]
    for name, column in (("sex", "Sex"), ("age", "Age"), ("side", "AP/PA")):
        frame[name] = table.get(column, "")  # the test set's CSV has no such columns
    frame[["sex", "age"]] = frame[["sex", "age"]].fillna("")
    if by_study:  # its row stands for every image of the study
        reading.check_unique(frame["study_id"], path)
        parents = frame["patient_id"].map(folder_of_patient).fillna("test")
        images = [
            sorted(reading.list_names(folder / study).values()) or ["view1_frontal.jpg"]
            for study in parents + "/" + frame["study_id"]
        ]
        frame = frame.assign(image=pd.Series(images, frame.index)).explode("image")
    else:
        frame["image"] = parsed["image"]
    frame["name"] = frame["study_id"] + "/" + frame["image"]
    view = frame.pop("image").str.extract(r"_(frontal|lateral)", expand=False).str.capitalize()
    frame["view"] = (view.fillna("") + " " + frame.pop("side").fillna("")).str.strip()
    return frame


def _parsed(text: pd.Series, pattern: str, path: Path) -> pd.DataFrame:
    """Return patient, study and image of each path; raise a DataError at any other form."""
    parsed = text.str.extract(pattern)
    malformed = text[parsed["patient_id"].isna()]
    if len(malformed):
        shape = "train/patient00001/study1" + "/view1_frontal.jpg" * ("image" in parsed)
        raise DataError(
            f"{len(malformed):,} of {len(text):,} rows of {path} name no image or study like "
            f"{shape}, first {malformed.iloc[0]} in line {malformed.index[0]:,}; correct the file."
        )
    return parsed


def _check_path(
    text: pd.Series, parsed: pd.DataFrame, table: pd.DataFrame, split: str, path: Path
) -> None:
    """Raise a DataError if a path contradicts the split of its CSV or the view in its row."""
    named = text.str.extract(r"(?:^|/)(train|valid|val|test)/patient", expand=False)
    first = reading.first_true(named.notna() & ~named.isin(_FOLDERS[split]))
    if first is not None:
        raise DataError(
            f"{path} is read as the split {split}, but line {text.index[first]:,} names "
            f"{text.iloc[first]}; give each CSV the name of its own split."
        )
    if "image" in parsed and "Frontal/Lateral" in table:
        view = parsed["image"].str.extract(r"_(frontal|lateral)", expand=False).str.capitalize()
        stated = table["Frontal/Lateral"].str.strip().str.capitalize()
        first = reading.first_true(view.notna() & stated.notna() & (view != stated))
        if first is not None:
            raise DataError(
                f"{path} calls the image {text.iloc[first]} {stated.iloc[first]} "
                f"in line {text.index[first]:,}, but its name says otherwise; correct it."
            )
