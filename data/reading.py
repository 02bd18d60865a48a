"""Shared parts of the readers: strict CSV files, files on disk, and errors that say what to do."""

import csv
import gzip
import io
import itertools
import os
import re
import shlex
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import safefiles
from data import DataError

# With pyarrow, pandas would keep texts in it, which refuses file names that are not UTF-8.
pd.set_option("mode.string_storage", "python")
_GZIP = b"\x1f\x8b"  # begins a gzip file
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_EXTRACT = {  # how to extract all archives of a kind, where that is one command
    ".tar.gz": 'for each in *.tar.gz; do tar -xzf "$each"; done',
    ".zip": 'for each in *.zip; do unzip -q "$each"; done',
}


def open_folder(folder: str | Path) -> Path:
    """Return the folder as a path; raise a DataError if it is missing, a file or unreadable."""
    path = Path(folder).expanduser()
    if not path.exists():
        raise DataError(f"There is no folder {path}; check the path.")
    if not path.is_dir():
        advice = "extract it and pass" if path.name.lower().endswith(_ARCHIVES) else "pass"
        raise DataError(f"{path} is a file: {advice} the folder that holds the dataset.")
    list_names(path)
    return path


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly inside, links to folders included, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if is_folder(entry))


def is_folder(entry: os.DirEntry) -> bool:
    """Return True for a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def layout_error(
    folder: Path, dataset: str, lacking: str, expected: Sequence[str], marks: Sequence[str]
) -> DataError:
    """Return the error for a wrong folder: the expected layout beside the files that are there.

    A folder nearby that holds one of the names in `marks` is suggested.
    """
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    message = f"{folder} does not look like {dataset}: it has no {lacking}."
    archives = [entry.name for entry in entries if entry.name.lower().endswith(_ARCHIVES)]
    if archives:
        message += _extract(folder, archives)
    for candidate in [*subfolders(folder), folder.absolute().parent]:
        if any((candidate / mark).exists() for mark in marks):
            message += f" Did you mean {candidate}?"
            break
    present = [entry.name + "/" * is_folder(entry) for entry in entries] or ["(nothing)"]
    rows = max(len(expected), 6)
    if len(present) > rows:
        present[rows - 1 :] = [f"… and {len(present) - rows + 1:,} more"]
    width = max(map(len, expected))
    table = itertools.zip_longest(["expected", *expected], ["found", *present], fillvalue="")
    for left, right in table:
        message += f"\n  {left:<{width}}   {right}".rstrip()
    return DataError(message)


def _extract(folder: Path, archives: Sequence[str]) -> str:
    """Return the sentence that says how to extract archives."""
    kinds = [kind for kind in _EXTRACT if all(name.lower().endswith(kind) for name in archives)]
    command = f": cd {shlex.quote(str(folder))} && {_EXTRACT[kinds[0]]}" if kinds else "."
    return f" Extract {_some(archives)} first{command}"


def read_table(
    path: Path, text: Sequence[str], values: Sequence[str] = (), optional: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the named columns of a CSV, plain or gzipped, in any order and among others.

    `text` and `optional` columns stay as written; `values` become numbers where possible. The index
    holds the line of each row. Raise a DataError if a row has another number of fields than the
    header, because its values would stand under the wrong names.
    """
    content = _read_text(path)
    written = _rows(path, content)
    header_line, header = next(written)
    rows = [(line, len(fields), fields[-1]) for line, fields in written]
    _check_widths(path, header, rows)
    names = [name.strip() for name in header]
    wanted = {*text, *values, *optional}
    if lacking := [name for name in (*text, *values) if name not in names]:
        raise DataError(
            f"{path} has no column {_some(lacking)}; its columns are {_some(header, 30)}."
        )
    if repeated := sorted({name for name in names if name in wanted and names.count(name) > 1}):
        raise DataError(
            f"{path} has the column {_some(repeated)} more than once; delete the one that is wrong."
        )
    if not rows:
        raise DataError(f"{path} has no rows; get it again.")
    lines, width = [line for line, *_ in rows], rows[0][1]
    positions = [position for position, name in enumerate(names) if name in wanted]
    try:
        table = pd.read_csv(
            io.StringIO(content),
            usecols=positions,
            header=None,
            skiprows=header_line,
            names=range(width),
            dtype={position: str for position in positions if names[position] not in values},
            index_col=False,
            low_memory=False,  # reading in chunks would warn about an odd value before our error
        )
    except pd.errors.ParserError as error:
        raise DataError(f"{path} is not a complete CSV ({_line(error)}); get it again.") from error
    table.columns = pd.Index([names[position] for position in positions])
    if len(table) != len(lines):
        raise DataError(f"{path} has lines that hold only blanks; delete them.")
    return table.set_axis(pd.Index(lines, name="line"))


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return (line, fields) of the header and of every row of a strict CSV, plain or gzipped.

    Raise a DataError if a row has another number of fields than the header.
    """
    (header_line, header), *rows = _rows(path, _read_text(path))
    _check_widths(path, header, [(line, len(fields), fields[-1]) for line, fields in rows])
    return [(header_line, header), *rows]


def _read_text(path: Path) -> str:
    """Return the text of a file, plain or gzipped, without a byte-order mark."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz" or content.startswith(_GZIP):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as a UTF-8 CSV.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is not a complete gzip file ({_line(error)}); get it again."
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or _line(error)}): make it readable, or get "
            "it again."
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path} has a NUL byte in line {line:,}; get it again.")
    return text


def _rows(path: Path, content: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, fields) of every line that is not blank; raise a DataError if there is none."""
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    line, empty = 0, True
    try:
        for fields in reader:
            if reader.line_num > line + 1:
                raise csv.Error(f"a quotation begins there and ends in line {reader.line_num:,}")
            line = reader.line_num
            if fields:
                empty = False
                yield line, fields
    except csv.Error as error:
        reason = _line(error).replace("unexpected end of data", "a quotation begins and never ends")
        raise DataError(
            f"{path} has a stray quotation mark or byte in line {line + 1:,} ({reason}); "
            "correct that line, or get the file again."
        ) from error
    if empty:
        raise DataError(f"{path} is empty; get it again.")


def _check_widths(path: Path, header: list[str], rows: list[tuple[int, int, str]]) -> None:
    """Raise a DataError at the first row with another number of fields than the header.

    `rows` are (line, number of fields, last field). A comma may end every line, the header alone,
    or every line but the header.
    """
    widths = {width for _, width, _ in rows}
    if widths == {len(header) + 1} and not any(last.strip() for *_, last in rows):
        return
    narrower = len(widths) == 1 and max(widths) <= len(header)
    if narrower and not any(name.strip() for name in header[max(widths) :]):
        return
    for line, width, _ in rows:
        if width != len(header):
            count = "1 field" if width == 1 else f"{width} fields"
            raise DataError(
                f"{path} has {count} in line {line:,}, but its header has {len(header)}; "
                "correct that line, or get the file again."
            )


def read_list(path: Path) -> list[str]:
    """Return the non-blank lines of a text file; raise a DataError if a name is listed twice."""
    lines = [line.strip() for line in _read_text(path).split("\n")]
    names = [line for line in lines if line]
    if not names:
        raise DataError(f"{path} is empty; get it again.")
    if len(set(names)) < len(names):
        numbers: dict[str, int] = {}
        for number, name in enumerate(lines, 1):
            if name and name in numbers:
                raise DataError(
                    f"{path} lists {name} in line {numbers[name]:,} and again in line {number:,}; "
                    "delete one of them, or get the list again."
                )
            numbers[name] = number
    return names


def texts(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """Return a text column, stripped; raise a DataError at a blank or a stray quotation mark."""
    blank = table[column].isna().to_numpy()
    if blank.any():
        raise DataError(
            f"{path} has no {column} in {blank.sum():,} of {len(table):,} rows, first in line "
            f"{table.index[int(blank.argmax())]:,}."
        )
    column_texts = table[column].astype(str).str.strip()
    stray = first_true(column_texts.str.contains('"', regex=False))
    if stray is not None:
        raise DataError(
            f"{path} has a stray quotation mark in column {column}, line "
            f"{table.index[stray]:,}: {column_texts.iloc[stray]}."
        )
    return column_texts


def first_true(rows: pd.Series | np.ndarray) -> int | None:
    """Return the position of the first true value; None if there is none."""
    values = np.asarray(rows, bool)
    return int(values.argmax()) if values.any() else None


def label_values(
    table: pd.DataFrame, names: Sequence[str], allowed: Sequence[float], path: Path
) -> np.ndarray:
    """Return (rows, names) float32; raise a DataError at a value that is not allowed.

    NaN among the allowed values stands for a blank.
    """
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
                f"{path} has values other than {choices} in column {name}: {_some(strange)}, "
                f"first in line {table.index[int(wrong.argmax())]:,}; correct the file."
            )
        values[:, column] = numbers
    return values


def check_unique(names: pd.Series, path: Path) -> None:
    """Raise a DataError if an image is listed more than once."""
    repeated = names[names.duplicated()]
    if len(repeated):
        where = f", again in line {repeated.index[0]:,}" if repeated.index.name == "line" else ""
        different = repeated.unique().tolist()
        raise DataError(
            f"{path} lists images more than once ({len(different):,}): {_some(different)}{where}; "
            "keep one row per image."
        )


def check_patients(frame: pd.DataFrame, where: str | Path = "the split") -> None:
    """Raise a DataError if a patient is in two splits, or has an id in two spellings."""
    pairs = frame[["patient_id", "split"]].drop_duplicates()
    shared = pairs.loc[pairs["patient_id"].duplicated(), "patient_id"].unique().tolist()
    if shared:
        raise DataError(
            f"Patients are in more than one split ({len(shared):,}): {_some(sorted(shared))}; "
            "scores on such splits are meaningless; correct the lists."
        )
    spellings: dict[str, str] = {}
    for patient in pairs["patient_id"]:
        plain = re.sub(r"0*(\d+)", r"\1", re.sub(r"\.0*$", "", patient)).casefold()
        if spellings.setdefault(plain, patient) != patient:
            raise DataError(
                f"The patient ids {spellings[plain]} and {patient} in {where} look like one "
                "patient in two spellings, who could then be in two sets; use one spelling."
            )


def on_disk(folder: Path, paths: Iterable[str]) -> list[str | None]:
    """Return each relative path as spelled on disk, or None if there is no such file.

    Only the case of the file's name may differ: view1_frontal.JPG is view1_frontal.jpg.
    """
    listed: dict[str, dict[str, str]] = {}
    spelled: list[str | None] = []
    for path in paths:
        if not os.path.exists(f"{folder}/{path}"):
            parent, slash, name = path.rpartition("/")
            if parent not in listed:
                listed[parent] = list_names(f"{folder}/{parent}")
            actual = listed[parent].get(name.lower())
            spelled.append(None if actual is None else parent + slash + actual)
        else:
            spelled.append(path)
    return spelled


def list_names(directory: str | Path) -> dict[str, str]:
    """Return lower-cased name -> name of a folder's entries; {} if the folder does not exist.

    A link to a missing file counts as missing.
    """
    try:
        with os.scandir(directory) as entries:
            names = [
                entry.name
                for entry in entries
                if not entry.is_symlink() or os.path.exists(entry.path)
            ]
        return {name.lower(): name for name in sorted(names)}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise unreadable_folder(directory, error) from error


def unreadable_folder(directory: str | Path, error: OSError) -> DataError:
    """Return the error for a folder that cannot be listed."""
    return DataError(
        f"The folder {directory} cannot be read ({error.strerror}): make it readable, or delete it "
        "if it is a link that leads nowhere."
    )


def finish(
    frame: pd.DataFrame,
    paths: Sequence[str | None],
    names: pd.Series,
    folder: Path,
    label_files: Sequence[Path],
    allow_missing: bool,
    **attrs: Any,
) -> pd.DataFrame:
    """Return the reader's frame with patients checked, missing images handled and rows sorted.

    `paths` are the images' paths on disk, or None where missing; `names` are their released names.
    Rows are sorted by `frame`'s column `block`, then by name, whatever the order in the label
    files. Missing images raise a DataError, or are dropped with `allow_missing`.
    """
    check_patients(frame, ", ".join(path.name for path in label_files))
    frame.insert(0, "image_path", pd.Series(list(paths), dtype=object))
    order = np.lexsort([names.to_numpy(str), frame.pop("block").to_numpy()])
    frame, names = frame.iloc[order].reset_index(drop=True), names.iloc[order]
    missing = names[frame["image_path"].isna().to_numpy()].tolist()
    if missing:
        report = f"{len(missing):,} of {len(frame):,} images are missing below {folder}, or are "
        report += f"links to missing files: {_some(missing)}."
        archives = [name for name in os.listdir(folder) if name.lower().endswith(_ARCHIVES)]
        if archives:
            report += _extract(folder, sorted(archives))
        if len(missing) == len(frame):
            raise DataError(report + " No image is left to run on.")
        if not allow_missing:
            raise DataError(report + " Get them, or pass --allow-missing to go on without them.")
        frame = frame[frame["image_path"].notna()].reset_index(drop=True)
        attrs["complete"] = False
    frame["image_path"] = frame["image_path"].astype(str)
    # phantoms must be recognised whichever of their folders is given
    folders = {folder, folder.absolute().parent, *(path.absolute().parent for path in label_files)}
    frame.attrs.clear()
    frame.attrs |= attrs | {
        "label_files": {path.name: safefiles.sha256(path) for path in label_files},
        "images": len(frame),
        "missing": missing,
        "phantom": any(any(each.glob("phantom*.json")) for each in folders),
    }
    return frame


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown + (f", … ({len(names) - most:,} more)" if len(names) > most else "")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
