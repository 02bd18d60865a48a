"""CheXpert (Irvin et al. 2019) as released: 1 positive, 0 negative, -1 uncertain, NaN blank."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from data import DataError, reading
from data.labels import CHEXPERT

CSVS = {
    "train": ("train.csv",),
    "valid": ("valid.csv", "val_labels.csv"),
    "test": ("test.csv", "test_labels.csv", "groundtruth.csv"),
}  # after the first, the names under which CheXlocalize and the test labels were published
VISUALCHEXBERT = "train_visualCheXbert.csv"
RADIOLOGISTS = ("bc4", "bc6", "bc8")  # the three that models are compared with
COMPLETE = {"train": 223_414, "valid": 234, "test": 668}  # images
_FOLDERS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
_BATCH = re.compile(r"\(train \d+\)$")  # the full-size training images come in such folders
_PATH = r"(?:^|/)(?P<patient_id>patient[^/]+)/(?P<study>study[^/]+)"
_EXPECTED = (
    "train.csv  (inside or beside CheXpert-v1.0/ or CheXpert-v1.0-small/)",
    "valid.csv",
    "test.csv  (if you have it; also test_labels.csv or groundtruth.csv)",
    "train/patient00001/study1/view1_frontal.jpg …",
    "valid/patient64541/study1/view1_frontal.jpg …",
)


def read(folder: str | Path, labels: str = "chexpert", allow_missing: bool = False) -> pd.DataFrame:
    """image_path, patient_id, study_id, view, split (train, valid, test), then the 14 labels.

    `folder` is the CheXpert folder or the one around it. The training labels are those of the
    "chexpert" labeller or of "visualchexbert", which is never uncertain.
    """
    folder = reading.open_folder(folder)
    places = _places(folder)
    csvs = _csvs(places, labels)
    parts, names, found = [], [], []
    for split, path in csvs.items():
        homes = _homes(places, split)
        table = _read_csv(path, folder, homes)
        name = table.pop("name")
        reading.check_unique(name, path)
        home = table["patient_id"].map(homes).fillna(split)
        found += reading.on_disk(folder, home + "/" + name)
        names.append(split + "/" + name)
        parts.append(table.assign(split=split))
    columns = ["patient_id", "study_id", "view", "split", *CHEXPERT]
    frame = pd.concat(parts, ignore_index=True)[columns]
    rows = frame["split"].value_counts().to_dict()
    return reading.finish(
        frame,
        found,
        pd.concat(names, ignore_index=True),
        folder,
        list(csvs.values()),
        allow_missing,
        dataset="chexpert",
        complete={"train", "valid"} <= set(rows)
        and all(count == COMPLETE[split] for split, count in rows.items()),
    )


def radiologists(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The 0/1 decisions on the test set, by study_id, of each benchmark radiologist found.

    Their files lie where the released repository has them, or directly in `radiologists`.
    """
    folder = reading.open_folder(folder)
    homes = [home / "radiologists" for home in _places(folder)]
    decisions = {}
    for name in RADIOLOGISTS:
        paths = (
            home / below / f"{name}.csv"
            for home in homes
            for below in ("", "benchmark_radiologists")
        )
        if path := next((path for path in paths if path.is_file()), None):
            table = reading.read_table(path, ("Study",), CHEXPERT)
            values = reading.label_values(table, CHEXPERT, (1, 0), path)
            studies = reading.texts(table, "Study", path)
            reading.check_unique(studies, path)
            of_study = studies.str.extract(_PATH + "$").agg("/".join, axis=1)
            decisions[name] = pd.DataFrame(values, of_study, list(CHEXPERT))
    return decisions


def _places(folder: Path) -> list[Path]:
    """The folder, and the CheXpert folders within it."""
    within = [path for path in reading.subfolders(folder) if path.name.lower().startswith("chex")]
    return [folder, *within]


def _csvs(places: list[Path], labels: str) -> dict[str, Path]:
    folder = places[0]
    if labels not in ("chexpert", "visualchexbert"):
        raise DataError(f"There are no {labels!r} labels; choose chexpert or visualchexbert.")
    names = CSVS | ({"train": (VISUALCHEXBERT,)} if labels == "visualchexbert" else {})
    searched = places
    if folder.absolute().name.lower().startswith("chex"):  # the CSV may lie beside this folder
        searched = [*places, folder.absolute().parent]
    csvs = {}
    for split, choices in names.items():
        paths = (place / name for name in choices for place in searched)
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
        raise DataError(f"{error}\nWithout that file: --labels chexpert.")
    if not csvs:
        marks = [name for choices in names.values() for name in choices]
        raise reading.layout_error(
            folder, "CheXpert", "train.csv, valid.csv or test.csv", _EXPECTED, marks
        )
    return csvs


def _homes(places: list[Path], split: str) -> dict[str, str]:
    """Patient -> the folder, relative to the first place, that holds the patient's folder."""
    homes: dict[str, str] = {}
    for place in places:
        inside = [place / name for name in _FOLDERS[split]]
        if split == "train" and place != places[0] and _BATCH.search(place.name):
            inside.append(place)
        for directory in inside:
            home = directory.relative_to(places[0]).as_posix()
            patients = [name for name in reading.list_names(directory) if name[:7] == "patient"]
            shared = homes.keys() & set(patients)
            if shared:
                raise DataError(
                    f"Patients such as {min(shared)} lie both in {homes[min(shared)]} and in "
                    f"{home} below {places[0]}; pass the one folder that is meant."
                )
            homes |= dict.fromkeys(patients, home)
    return homes


def _read_csv(path: Path, folder: Path, homes: dict[str, str]) -> pd.DataFrame:
    """patient_id, study_id, name (patient/study/image), view and labels of the rows of a CSV."""
    by_study = path.name == "groundtruth.csv"
    column = "Study" if by_study else "Path"
    table = reading.read_table(path, (column,), CHEXPERT, optional=("AP/PA",))
    values = reading.label_values(table, CHEXPERT, (1, 0, -1, np.nan), path)
    text = reading.texts(table, column, path)
    parsed = text.str.extract(_PATH + ("$" if by_study else "/(?P<image>[^/]+)$"))
    odd = text[parsed["patient_id"].isna()].tolist()
    if odd:
        raise DataError(
            f"{len(odd):,} of {len(text):,} rows of {path} have no {column} like "
            f"train/patient00001/study1/view1_frontal.jpg, the first being {odd[0]}."
        )
    frame = pd.DataFrame(values, columns=list(CHEXPERT))
    frame["patient_id"] = parsed["patient_id"]
    frame["study_id"] = parsed["patient_id"] + "/" + parsed["study"]
    frame["side"] = table.get("AP/PA", "")  # the test set's CSV has no such column
    if by_study:  # its row stands for every image of the study
        homes_here = frame["patient_id"].map(homes).fillna("test")
        images = [
            sorted(reading.list_names(folder / study).values()) or ["view1_frontal.jpg"]
            for study in homes_here + "/" + frame["study_id"]
        ]
        frame = frame.assign(image=images).explode("image", ignore_index=True)
    else:
        frame["image"] = parsed["image"]
    frame["name"] = frame["study_id"] + "/" + frame["image"]
    view = frame.pop("image").str.extract(r"_(frontal|lateral)", expand=False).str.capitalize()
    frame["view"] = (view.fillna("") + " " + frame.pop("side").fillna("")).str.strip()
    return frame
