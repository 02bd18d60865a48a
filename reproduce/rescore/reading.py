"""Read a file of predictions or of truth into one `Sheet`.

A CSV (or .csv.gz) has an id column, the first unless one is named, and one column per label. In the
official label file of ChestX-ray14 the column `Finding Labels` lists all findings of an image. A
predictions.npz of a run holds ids, patients, truth and probabilities. Any other .npy or .npz of
predictions is an array (images, labels) whose ids are in a file of their own. The truth may also be
an .npz of ChestMNIST, whose test images have their row as id, and predictions may be in MedMNIST's
form: no header, `row,p0,…,p13` in each line.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

import safefiles
from data import chestmnist, labels, reading
from evaluation import EvaluationError
from evaluation.predictions import load

BLANK = {"", "nan", "na", "n/a", "null", "none"}
YES_NO = {"yes": "1", "no": "0", "true": "1", "false": "0"}
FINDINGS = "finding labels"  # column of the official file: findings separated by |
PATIENTS = "patient id"  # this column holds patients even if --patient-column is not given
EXAMPLES = 3  # in a message


@dataclass(frozen=True)
class Sheet:
    """The rows of a file. Columns are named by their `key`, rows by their id."""

    path: Path
    table: pd.DataFrame  # texts of a CSV; the truth and the patients of a run
    names: dict[str, str]  # key -> column name as it is written
    members: dict[str, np.ndarray] = field(default_factory=dict)  # of a run: (members, rows)
    warnings: tuple[str, ...] = ()

    @property
    def ids(self) -> pd.Index:
        return self.table.index

    @property
    def is_run(self) -> bool:
        return bool(self.members)

    def true(self, column: str) -> np.ndarray:
        """Return a column as (rows,) float64, NaN where it is blank."""
        cells = self.table[column]
        if cells.dtype == float:
            return cells.to_numpy()
        return np.array([self._number(column, *item) for item in cells.items()])

    def predicted(self, column: str) -> np.ndarray:
        """Return a column as (members, rows) float64, NaN where it is blank."""
        return self.members[column] if self.is_run else self.true(column)[None]

    def _number(self, column: str, row: str, cell: str) -> float:
        word = cell.strip().casefold()
        if word in BLANK:
            return np.nan
        try:
            return float(YES_NO.get(word, word).replace("_", "?"))
        except ValueError:
            raise EvaluationError(
                f"{self.path}: {self.names[column]!r} of {row} is {cell!r}, which is no number; if "
                "the column is no label, name the labels with --labels."
            ) from None


def words(name: str) -> list[str]:
    """Split a column name at spaces, `_`, `-` and `.`."""
    return [word for word in re.split(r"[\s_.\-]+", name) if word]


def key(name: str) -> str:
    """Return a column name in the form in which names are compared: lower case, single spaces."""
    return " ".join(words(name)).casefold()


def examples(values: Iterable, most: int = EXAMPLES) -> str:
    """List the first few values for a message."""
    values = [str(value) for value in values]
    return ", ".join(values[:most]) + ", …" * (len(values) > most)


def read(
    path: Path,
    id_column: str | None = None,
    *,
    truth: bool = False,
    ids: Path | None = None,
    wanted: Sequence[str] | None = None,
) -> Sheet:
    """Read a CSV, a predictions.npz or an array; raise EvaluationError if its ids are not unique.

    `ids` is the file with the ids of an array's rows, `wanted` are the labels that are named.
    """
    if not path.is_file():
        what = "; it is a folder" if path.is_dir() else ""
        raise EvaluationError(f"There is no file {path}{what}: check the path.")
    if truth and path.suffix == ".npz" and chestmnist.holds(path):
        sheet = _read_chestmnist(path)
    elif not truth and is_array(path):
        sheet = _read_array(path, id_column, ids, wanted or ())
    else:
        sheet = _read_run(path) if path.suffix == ".npz" else _read_csv(path, id_column)
    repeated = sheet.ids[sheet.ids.duplicated()].unique()
    if len(repeated):
        raise EvaluationError(
            f"{path} holds {len(repeated)} ids more than once ({examples(repeated)}); keep one row "
            "per id, or name the column that tells the rows apart with --id-column."
        )
    return _with_findings(sheet) if truth and FINDINGS in sheet.table else sheet


def _read_run(path: Path) -> Sheet:
    predictions = load(path)
    written = [str(name) for name in predictions.labels]
    _check_distinct(path, written)
    keys = [key(name) for name in written]
    table = pd.DataFrame(predictions.targets.astype(float), predictions.ids, keys)
    members = {name: predictions.probabilities[..., i] for i, name in enumerate(keys)}
    table[PATIENTS] = predictions.patients
    return Sheet(path, table, dict(zip(keys, written, strict=True)), members)


def is_array(path: Path) -> bool:
    """Return True for an .npy, or an .npz without ids and labels."""
    if path.suffix != ".npz":
        return path.suffix == ".npy"
    try:
        with np.load(path) as arrays:
            return not {"ids", "labels"} & {*arrays.files}
    except safefiles.DAMAGED_ARCHIVE:
        return False


def _read_array(
    path: Path, id_column: str | None, ids: Path | None, wanted: Sequence[str]
) -> Sheet:
    """Return an array (images, labels), with the ids of a file and the labels that are named."""
    try:
        array = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            with array as arrays:
                if len(arrays.files) != 1:
                    held = ", ".join(arrays.files) or "none"
                    raise EvaluationError(f"{path} must hold one array of predictions, not {held}.")
                array = arrays[arrays.files[0]]
    except safefiles.DAMAGED_ARCHIVE as error:
        raise EvaluationError(
            f"{path} is damaged, or no array of numbers ({str(error).splitlines()[0]}); write it "
            "again with numpy.save."
        ) from error
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.size:
        raise EvaluationError(
            f"{path} must hold numbers of the shape (images, labels), but its array is "
            f"{array.dtype} of the shape {array.shape}."
        )
    if ids is None:
        raise EvaluationError(
            f"{path} says nothing of its images: give their ids with --ids FILE, one per line in "
            "the order of its rows, or write a CSV with ids."
        )
    written, warnings = _labels_of_columns(path, array.shape[1], wanted)
    keys = [key(name) for name in written]
    _check_distinct(path, written)
    index = _ids_of_rows(path, len(array), ids, id_column)
    table = pd.DataFrame(array.astype(float), index, keys)
    return Sheet(path, table, dict(zip(keys, written, strict=True)), warnings=warnings)


def _labels_of_columns(
    path: Path, count: int, wanted: Sequence[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Return the labels of an array's columns, and a warning if their order is assumed."""
    if len(wanted) == count:
        return [*wanted], ()
    assumed = [*labels.CHESTXRAY14, labels.NO_FINDING][:count]
    if count in (14, 15) and {*map(key, wanted)} <= {*map(key, assumed)}:
        text = (
            f"{path}: its {count} columns are taken as ChestX-ray14's labels in the order of Wang "
            f"et al. 2017, {', '.join(assumed)}; name another order with --labels"
        )
        return assumed, (text,)
    named = f"--labels names {len(wanted)}" if wanted else "nothing says their labels"
    raise EvaluationError(
        f"{path} has {count} columns, but {named}: name all of them, in order, with --labels A,B."
    )


def _ids_of_rows(path: Path, rows: int, ids: Path, id_column: str | None) -> list[str]:
    """Return the ids in a column of a file, the first unless one is named, with or without name."""
    lines = reading.read_rows(ids)
    header, column = lines[0][1], 0
    if id_column is not None:
        keys = [key(name) for name in header]
        if key(id_column) not in keys:
            raise _no_such_column(ids, id_column, header)
        column = keys.index(key(id_column))
    stated = [fields[column].strip() for _, fields in lines]
    if len(stated) == rows + 1 or id_column is not None:
        stated = stated[1:]
    if len(stated) != rows:
        raise EvaluationError(
            f"{ids} holds {len(stated):,} ids, but {path} has {rows:,} rows; write one id per row, "
            "in the same order."
        )
    return stated


def _no_such_column(path: Path, column: str, header: Sequence[str]) -> EvaluationError:
    there = examples((name.strip() for name in header if name.strip()), 20)
    return EvaluationError(
        f"{path} has no column {column!r}, which --id-column names; its columns are {there}."
    )


def _read_chestmnist(path: Path) -> Sheet:
    """Return the labels of ChestMNIST's test images, and their patients if they are known."""
    frame = chestmnist.read(path)
    frame = frame[frame["split"] == "test"].reset_index(drop=True)
    keys = {key(name): name for name in labels.CHESTXRAY14}
    table = frame[[*keys.values()]].astype(float).set_axis([*keys], axis=1)
    table[PATIENTS] = frame["patient_id"]
    unknown = frame.attrs.get("patients_unknown")
    warnings = (f"{path}: patients unknown ({unknown}); intervals are over images",) * bool(unknown)
    return Sheet(path, table.set_axis(frame.index.astype(str)), keys, warnings=warnings)


def _read_csv(path: Path, id_column: str | None) -> Sheet:
    (_, header), *rows = reading.read_rows(path)
    if len(header) == 1 + len(labels.CHESTXRAY14) and all(map(_is_number, header)):
        rows = [(1, header), *rows]  # MedMNIST's form has no header
        header = ["row", *labels.CHESTXRAY14]
    if len(header) < 2:
        raise EvaluationError(
            f"{path} needs an id column and label columns, separated by commas; its first line is "
            f"{','.join(header)[:60]!r}."
        )
    if not rows:
        raise EvaluationError(f"{path} has no rows.")
    _check_distinct(path, header)
    keys = [key(name) for name in header]
    ids = keys[0] if id_column is None else key(id_column)
    if ids not in keys:
        raise _no_such_column(path, str(id_column), header)
    if not ids or ids.startswith("unnamed:"):
        raise EvaluationError(
            f"{path}: the first column has no name, so it may hold row numbers, which would match "
            "by accident; name the column that identifies images with --id-column."
        )
    lines, fields = zip(*rows, strict=True)
    table = pd.DataFrame(fields, index=lines)
    table = table.iloc[:, : len(header)]  # without a blank last field, if a comma ends every row
    table.columns = pd.Index(keys[: table.shape[1]])
    table[ids] = table[ids].str.strip()
    if (blank := table[ids] == "").any():
        others = examples((name.strip() for name in header if key(name) not in ("", ids)), 20)
        raise EvaluationError(
            f"{path}: line {blank.idxmax()} has no id in column {header[keys.index(ids)]!r}; fill "
            f"it in, or name another column with --id-column NAME: {others}."
        )
    names = {key(name): name.strip() for name in header if key(name) not in ("", ids)}
    return Sheet(path, table.set_index(ids)[[*names]], names)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_distinct(path: Path, names: list[str]) -> None:
    counts = Counter(key(name) for name in names)
    for repeated in [name for name, count in counts.items() if name and count > 1]:
        alike = dict.fromkeys(name.strip() for name in names if key(name) == repeated)
        raise EvaluationError(
            f"{path} has {' and '.join(map(repr, alike))} as a column more than once (names are "
            "compared without case, spaces and underscores); keep one, or rename the others."
        )


def _with_findings(sheet: Sheet) -> Sheet:
    """Add a column of 0 and 1 for each of the 14 findings of the official label file, and for none.

    Files of expert labels repeat the official column beside label columns of their own, which are
    used instead.
    """
    names = {key(name): name for name in (*labels.CHESTXRAY14, labels.NO_FINDING)}
    if own := [sheet.names[name] for name in names if name in sheet.table]:
        text = f"{sheet.path}: {sheet.names[FINDINGS]} is not used beside {examples(own)}"
        return replace(sheet, warnings=(text,))
    cells = sheet.table[FINDINGS]
    listed = cells.str.split("|").explode().map(key)
    none = key(labels.NO_FINDING)
    wrong = ~listed.isin([*names]) | ((listed == none) & listed.index.duplicated(keep=False))
    if wrong.any():
        image = wrong.idxmax()
        raise EvaluationError(
            f"{sheet.path}: {sheet.names[FINDINGS]} of {image} is {cells[image]!r}; it must be "
            f"{labels.NO_FINDING}, or findings of ChestX-ray14 separated by |."
        )
    targets = pd.get_dummies(listed, dtype=float).groupby(level=0, sort=False).max()
    targets = targets.reindex(index=sheet.ids, columns=list(names), fill_value=0.0)
    return replace(sheet, table=targets.join(sheet.table), names=names)
