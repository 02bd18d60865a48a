"""Read the PLCO chest X-rays with the split lists that Chen et al. 2019 released."""

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from data import DataError, labels, reading
from data.datasets import DATASETS

DATASET = DATASETS["plco"]
COMPLETE = DATASET.complete  # images per split, without the train list
SPLITS = ("train", "val", "test")
PRESERVE = tuple(f"{label} preserve bool" for label in labels.PLCO)
EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def read(folder: str | Path, deleted: str = "0.0", allow_missing: bool = False) -> pd.DataFrame:
    """Return one row per image, by split, then in the order of the images' names.

    Columns: image_path, patient_id, view, split, 19 labels (0 or 1), and per label a column that is
    1 where the label is preserved. `deleted` is the share of deleted labels, as spelled in the
    lists' names.
    """
    folder = reading.open_folder(folder)
    lists = _lists(folder, deleted)
    columns = (*labels.PLCO, *PRESERVE)
    parts, names = [], []
    for block, (split, path) in enumerate(lists.items()):
        table = reading.read_table(path, ("img_name", "plco_id"), columns)
        values = reading.label_values(table, columns, (0, 1), path)
        images_of_list = reading.texts(table, "img_name", path)
        reading.check_unique(images_of_list, path)
        names.append(images_of_list)
        patients = reading.texts(table, "plco_id", path).to_numpy()
        # the trial took one postero-anterior view per visit
        about = {"patient_id": patients, "view": "PA", "split": split, "block": block}
        values = pd.DataFrame(values, columns=list(columns))
        parts.append(pd.concat([pd.DataFrame(about), values], axis=1))
    frame, names = pd.concat(parts, ignore_index=True), pd.concat(names, ignore_index=True)
    reading.check_unique(names, folder)  # also across the lists
    images = _images(folder, set(names))
    rows = frame["split"].value_counts().to_dict()
    return reading.finish(
        frame,
        [images.get(name) for name in names],
        names,
        folder,
        list(lists.values()),
        allow_missing,
        dataset=DATASET.name,
        complete=all(rows[split] == count for split, count in COMPLETE.items()),
    )


def _lists(folder: Path, deleted: str) -> dict[str, Path]:
    """Return split -> its list; raise a DataError if one is missing."""
    folders = [folder, *reading.subfolders(folder)]
    names = {split: f"{split}_set_delete{deleted}.csv" for split in SPLITS}
    lists = {}
    for split, name in names.items():
        choices = [each / (name + ending) for each in folders for ending in ("", ".gz")]
        present = next((path for path in choices if path.is_file()), None)
        if present is None:
            expected = (
                *names.values(),
                "(the lists may be .csv.gz and lie one folder down)",
                "images/AD06848050206123808_v2.png …  (any folders; png, jpg or tif)",
            )
            marks = (name, f"{name}.gz")
            raise reading.layout_error(folder, "a PLCO folder", name, expected, marks)
        lists[split] = present
    return lists


def _images(folder: Path, wanted: set[str]) -> dict[str, str]:
    """Return name without extension -> path relative to the folder, of the wanted images."""
    images: dict[str, str] = {}
    for path in _files(str(folder), "", set()):
        name, extension = os.path.splitext(path.rpartition("/")[2])
        if extension.lower() not in EXTENSIONS or name not in wanted:
            continue
        if name in images:
            raise DataError(
                f"The image {name} lies twice below {folder}, as {images[name]} and as {path}; "
                "keep one copy of every image there."
            )
        images[name] = path
    return images


def _files(root: str, below: str, entered: set[tuple[int, int]]) -> Iterator[str]:
    """Yield all files below, links followed, as paths relative to the root.

    Enter no folder twice, as links may lead back, and leave out links to missing files.
    """
    try:
        status = os.stat(f"{root}/{below}")
        if (status.st_dev, status.st_ino) in entered:
            return
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(f"{root}/{below}") as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise reading.unreadable_folder(f"{root}/{below}", error) from error
    for entry in entries:
        path = f"{below}{entry.name}"
        if reading.is_folder(entry):
            yield from _files(root, f"{path}/", entered)
        elif not entry.is_symlink() or os.path.exists(entry.path):
            yield path
