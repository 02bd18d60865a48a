"""Reads files of predictions and of truth as people have them, each into one `Sheet`.

A CSV (also .csv.gz) has an id column, the first unless named, and a column a label. The official
label file of ChestX-ray14 has all findings of an image in one column, `Finding Labels`. A
predictions.npz of this suite holds ids, patients, truth and probabilities.
"""

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import labels
from evaluation import EvaluationError
from evaluation.predictions import load

BLANK = {"", "nan", "na", "n/a", "null", "none"}
YES_NO = {"yes": "1", "no": "0", "true": "1", "false": "0"}
FINDINGS = "finding labels"  # the column of the official file: findings separated by |
PATIENTS = "patient id"  # a column of this name holds patients without being named
EXAMPLES = 3  # in a message


class Sheet(NamedTuple):
    """A file's rows: text from a CSV, numbers from a predictions file."""

    path: Path
    ids: list[str]
    names: dict[str, str]  # key -> column name as written
    columns: Mapping[str, Sequence | np.ndarray]  # key -> a value a row, or (members, rows)
    patients: Sequence[str] | None = None  # where the file has them without a flag
    warnings: Sequence[str] = ()


def words(name: str) -> list[str]:
    """The words of a column's name, which spaces, `_`, `-` or `.` separate."""
    return [word for word in re.split(r"[\s_.\-]+", name) if word]


def key(name: str) -> str:
    """A column's name as it is compared: its words without case, one space between them."""
    return " ".join(words(name)).casefold()


def examples(values: Iterable, most: int = EXAMPLES) -> str:
    """The first few values, for a message."""
    values = [str(value) for value in values]
    return ", ".join(values[:most]) + ", …" * (len(values) > most)


def read(path: Path, id_column: str | None, truth: bool = False) -> Sheet:
    """A file's ids and columns; EvaluationError where they cannot be told apart."""
    if not path.is_file():
        what = "; it is a folder" if path.is_dir() else ""
        raise EvaluationError(f"There is no file {path}{what}: check the path.")
    sheet = _read_npz(path, truth) if path.suffix == ".npz" else _read_csv(path, id_column, truth)
    if not sheet.ids:
        raise EvaluationError(f"{path} has no rows.")
    twice = [name for name, count in Counter(sheet.ids).items() if count > 1]
    if twice:
        raise EvaluationError(
            f"{path} holds {len(twice)} ids more than once ({examples(twice)}); keep one row an "
            "id, or name the column that tells the rows apart with --id-column."
        )
    return sheet


def _read_npz(path: Path, truth: bool) -> Sheet:
    predictions = load(path)
    written = [str(name) for name in predictions.labels]
    _refuse_equal_names(path, written)
    values = predictions.targets[None] if truth else predictions.probabilities
    keys = [key(name) for name in written]
    return Sheet(
        path,
        [str(name) for name in predictions.ids],
        dict(zip(keys, written, strict=True)),
        {name: values[..., column] for column, name in enumerate(keys)},
        [str(name) for name in predictions.patients],
    )


def _refuse_equal_names(path: Path, written: Sequence[str]) -> None:
    by_key: dict[str, list[str]] = {}
    for name in written:
        by_key.setdefault(key(name), []).append(name.strip())
    for name, alike in by_key.items():
        if name and len(alike) > 1:
            same = " and ".join(repr(each) for each in dict.fromkeys(alike))
            raise EvaluationError(
                f"{path} has {same} as a column more than once (names are compared without case, "
                "spaces and underscores); keep one, or rename the others."
            )


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, values) of every line that is not blank."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        return [(reader.line_num, line) for line in reader if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} is no CSV file in UTF-8; save it as one.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise EvaluationError(f"{path} is no whole .gz file ({error}); get it again.") from error


def _read_csv(path: Path, id_column: str | None, truth: bool) -> Sheet:
    if not (all_lines := _lines(path)):
        raise EvaluationError(f"{path} is empty; get it again.")
    (_, header), *lines = all_lines
    if len(header) < 2:
        raise EvaluationError(
            f"{path} needs an id column and label columns, separated by commas; its first line is "
            f"{','.join(header)[:60]!r}."
        )
    for number, line in lines:
        if len(line) != len(header):
            raise EvaluationError(
                f"{path}: line {number} has {len(line)} values, but there are {len(header)} "
                "columns; mend that line."
            )
    _refuse_equal_names(path, header)
    keys = [key(name) for name in header]
    column = 0 if id_column is None else find_column(path, keys, id_column, "--id-column")
    if not keys[column] or keys[column].startswith("unnamed:"):
        raise EvaluationError(
            f"{path}: the first column has no name, so it may hold row numbers, which would match "
            "by accident; name the column that identifies images with --id-column."
        )
    ids = [line[column].strip() for _, line in lines]
    if "" in ids:
        raise EvaluationError(f"{path}: line {lines[ids.index('')][0]} has no id.")
    values = zip(*(line for _, line in lines), strict=True) if lines else ((),) * len(keys)
    columns: dict[str, Sequence] = {
        name: cells for name, cells in zip(keys, values, strict=True) if name
    }
    del columns[keys[column]]
    names = {name: header[keys.index(name)].strip() for name in columns}
    sheet = Sheet(path, ids, names, columns, columns.get(PATIENTS))
    return _with_findings(sheet) if truth and FINDINGS in columns else sheet


def _with_findings(sheet: Sheet) -> Sheet:
    """The official label file with a column of 0 and 1 for each of its 14 findings.

    Files of expert labels repeat the official column beside columns of their own, which count.
    """
    by_key = {key(name): name for name in labels.CHESTXRAY14}
    if own := [sheet.names[name] for name in by_key if name in sheet.columns]:
        text = f"{sheet.path}: {sheet.names[FINDINGS]} is not used beside {examples(own)}"
        return sheet._replace(warnings=(text,))
    targets = np.zeros((len(by_key), len(sheet.ids)))
    row_of = {name: row for row, name in enumerate(by_key)} | {key(labels.NO_FINDING): None}
    for image, cell in enumerate(sheet.columns[FINDINGS]):
        findings = [key(name) for name in cell.split("|")]
        for finding in findings:
            if finding not in row_of or (len(findings) > 1 and row_of[finding] is None):
                raise EvaluationError(
                    f"{sheet.path}: {sheet.names[FINDINGS]} of {sheet.ids[image]} is {cell!r}; it "
                    f"must be {labels.NO_FINDING}, or findings of ChestX-ray14 separated by |."
                )
            if (row := row_of[finding]) is not None:
                targets[row, image] = 1
    found = {name: targets[[row]] for row, name in enumerate(by_key)}
    return sheet._replace(names=by_key, columns={**found, **sheet.columns})


def find_column(path: Path, keys: Sequence[str], name: str, flag: str) -> int:
    """Where a column is that a flag names."""
    if key(name) not in keys:
        raise EvaluationError(f"{path} has no column {name!r}, which {flag} names.")
    return list(keys).index(key(name))


def numbers(sheet: Sheet, column: str) -> np.ndarray:
    """A column as (members, rows) float64, NaN where it is blank."""
    values = sheet.columns[column]
    if isinstance(values, np.ndarray):
        return values.astype(float)
    converted = np.empty(len(values))
    for row, text in enumerate(values):
        try:
            word = text.strip().casefold()
            word = YES_NO.get(word, word)
            converted[row] = np.nan if word in BLANK else float(word.replace("_", "?"))
        except ValueError:
            raise EvaluationError(
                f"{sheet.path}: {sheet.names[column]!r} of {sheet.ids[row]} is {text!r}, which is "
                "no number; if the column is no label, name the labels with --labels."
            ) from None
    return converted[None]
