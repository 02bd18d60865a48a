"""What the readers share: tables by column name, files on disk, and errors that show the way."""

import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data import DataError

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")


def open_folder(folder: str | Path) -> Path:
    """The folder as a path; a DataError if it is none."""
    path = Path(folder).expanduser()
    if not path.exists():
        raise DataError(f"There is no folder {path}; check the path.")
    if not path.is_dir():
        advice = "extract it and pass" if path.name.lower().endswith(_ARCHIVES) else "pass"
        raise DataError(f"{path} is a file: {advice} the folder that holds the dataset.")
    try:
        os.listdir(path)
    except PermissionError as error:
        raise DataError(f"The folder {path} cannot be read: {error.strerror}.") from error
    return path


def subfolders(folder: Path) -> list[Path]:
    """The folders directly inside, links to folders included, by name."""
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir())


def layout_error(
    folder: Path, dataset: str, lacking: str, expected: Sequence[str], marks: Sequence[str]
) -> DataError:
    """The error for a wrong folder: expected beside found, and a likely folder that has `marks`."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    message = f"{folder} does not look like {dataset}: it has no {lacking}."
    archives = [entry.name for entry in entries if entry.name.lower().endswith(_ARCHIVES)]
    if archives:
        message += f" Extract {_some(archives)} first."
    for near in [*subfolders(folder), folder.absolute().parent]:
        if any((near / mark).exists() for mark in marks):
            message += f" Did you mean {near}?"
            break
    found = [entry.name + "/" * entry.is_dir() for entry in entries] or ["(nothing)"]
    rows = max(len(expected), 6)
    if len(found) > rows:
        found[rows - 1 :] = [f"… and {len(found) - rows + 1:,} more"]
    width = max(map(len, expected))
    for left, right in zip(
        ["expected", *expected, *[""] * (len(found) - len(expected))],
        ["found", *found, *[""] * (len(expected) - len(found))],
        strict=True,
    ):
        message += f"\n  {left:<{width}}   {right}".rstrip()
    return DataError(message)


def read_table(
    path: Path, text: Sequence[str], values: Sequence[str] = (), optional: Sequence[str] = ()
) -> pd.DataFrame:
    """The named columns of a CSV, plain or gzipped; their order and other columns do not matter.

    `text` columns stay as written, `values` become numbers where they are, `optional` are texts.
    """
    try:
        header = pd.read_csv(path, nrows=0).columns
        lacking = [name for name in (*text, *values) if name not in set(header.str.strip())]
        if lacking:
            raise DataError(
                f"{path} has no column {_some(lacking)}; its columns are {_some(list(header), 30)}."
            )
        table = pd.read_csv(
            path,
            usecols=[name for name in header if name.strip() in {*text, *values, *optional}],
            # by position a trailing comma would make the first column the index
            index_col=False,
            dtype={name: str for name in header if name.strip() not in values},
            low_memory=False,  # in chunks, one odd value would raise a warning before our error
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as a UTF-8 CSV.") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no whole CSV ({_line(error)}); get it again.") from error
    except OSError as error:  # also a broken gzip
        raise DataError(f"{path} cannot be read: {error.strerror or _line(error)}.") from error
    table.columns = table.columns.str.strip()
    if table.empty:
        raise DataError(f"{path} has no rows; get it again.")
    return table


def read_list(path: Path) -> list[str]:
    """The lines of a text file, without blank ones."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; get it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path} is empty; get it again.")
    return names


def texts(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """A column of non-blank texts."""
    blank = table[column].isna()
    if blank.any():
        raise DataError(
            f"{path} has no {column} in {blank.sum():,} of {len(table):,} rows, first in line "
            f"{blank.to_numpy().argmax() + 2:,}."
        )
    return table[column].astype(str).str.strip()


def label_values(
    table: pd.DataFrame, names: Sequence[str], allowed: Sequence[float], path: Path
) -> np.ndarray:
    """(rows, names) float32 of the allowed values; NaN among them stands for a blank."""
    values = np.full((len(table), len(names)), np.nan, np.float32)
    for column, name in enumerate(names):
        numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
        wrong = ~np.isin(numbers, allowed)
        if np.isnan(allowed).any():
            wrong &= table[name].notna().to_numpy()
        if wrong.any():
            strange = sorted({repr(value) for value in table.loc[wrong, name].tolist()})
            choices = ", ".join("blank" if np.isnan(v) else f"{v:g}" for v in allowed)
            raise DataError(
                f"{path} has values other than {choices} in column {name}: {_some(strange)}."
            )
        values[:, column] = numbers
    return values


def check_unique(names: pd.Series, path: Path) -> None:
    """A DataError if an image is listed more than once."""
    twice = names[names.duplicated()].unique().tolist()
    if twice:
        raise DataError(f"{path} lists images more than once ({len(twice):,}): {_some(twice)}.")


def check_patients(frame: pd.DataFrame) -> None:
    """A DataError if a patient is in more than one split."""
    pairs = frame[["patient_id", "split"]].drop_duplicates()
    shared = pairs.loc[pairs["patient_id"].duplicated(), "patient_id"].unique().tolist()
    if shared:
        raise DataError(
            f"Patients are in more than one split ({len(shared):,}): {_some(sorted(shared))}; "
            "scores on such splits mean nothing, so correct the lists."
        )


def on_disk(folder: Path, paths: Iterable[str]) -> list[str | None]:
    """Each path relative to the folder as spelled on disk, or None where there is no such file.

    Only the case of the file's own name may differ: view1_frontal.JPG is view1_frontal.jpg.
    """
    listed: dict[str, dict[str, str]] = {}
    found: list[str | None] = []
    for path in paths:
        if not os.path.exists(f"{folder}/{path}"):
            parent, slash, name = path.rpartition("/")
            if parent not in listed:
                listed[parent] = list_names(f"{folder}/{parent}")
            actual = listed[parent].get(name.lower())
            path = None if actual is None else parent + slash + actual
        found.append(path)
    return found


def list_names(directory: str | Path) -> dict[str, str]:
    """Lower-cased name -> name of all that a directory holds; empty where there is none."""
    try:
        return {name.lower(): name for name in os.listdir(directory)}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DataError(f"The folder {directory} cannot be read: {error.strerror}.") from error


def finish(
    frame: pd.DataFrame,
    found: Sequence[str | None],
    names: pd.Series,
    folder: Path,
    label_files: Sequence[Path],
    allow_missing: bool,
    **attrs,
) -> pd.DataFrame:
    """The reader's frame: paths as found, patients checked, missing images refused or dropped."""
    # drawn images must be known as such, whichever folder of theirs is given
    around = {folder.absolute().parent, *(path.absolute().parent for path in label_files)}
    check_patients(frame)
    frame.insert(0, "image_path", pd.Series(list(found), dtype=object))
    missing = names[frame["image_path"].isna().to_numpy()].tolist()
    if missing:
        report = f"{len(missing):,} of {len(frame):,} images are missing below {folder}: "
        report += f"{_some(missing)}."
        archives = [name for name in os.listdir(folder) if name.lower().endswith(_ARCHIVES)]
        if archives:
            report += f" Extract {_some(sorted(archives))} first."
        if len(missing) == len(frame):
            raise DataError(report + " Without any image there is nothing to run on.")
        if not allow_missing:
            raise DataError(report + " Get them, or pass --allow-missing to go on without them.")
        frame = frame[frame["image_path"].notna()].reset_index(drop=True)
        attrs["complete"] = False
    frame["image_path"] = frame["image_path"].astype(str)
    frame.attrs = attrs | {
        "label_files": {path.name: sha256(path) for path in label_files},
        "images": len(frame),
        "missing": missing,
        "phantom": any(any(place.glob("phantom*.json")) for place in (folder, *around)),
    }
    return frame


def sha256(path: Path) -> str:
    """The hash of a file's bytes, as recorded with every run."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown + (f", … ({len(names) - most:,} more)" if len(names) > most else "")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
