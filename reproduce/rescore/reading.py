"""Read a file of predictions or of truth into one `Sheet`.

A CSV (or .csv.gz) has an id column, the first unless one is named, and one column per label. In the
official label file of ChestX-ray14 the column `Finding Labels` lists all findings of an image. A
predictions.npz of a run holds ids, patients, truth and probabilities. The truth may also be an .npz
of ChestMNIST, whose test images have their row as id, and predictions may be in MedMNIST's form: no
header, `row,p0,…,p13` in each line.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

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


def read(path: Path, id_column: str | None = None, *, truth: bool = False) -> Sheet:
    """Read a CSV or a predictions.npz; raise EvaluationError if its ids are not unique."""
    if not path.is_file():
        what = "; it is a folder" if path.is_dir() else ""
        raise EvaluationError(f"There is no file {path}{what}: check the path.")
    if path.suffix != ".npz":
        sheet = _read_csv(path, id_column)
    else:
        sheet = _read_chestmnist(path) if truth and chestmnist.holds(path) else _read_run(path)
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
        raise EvaluationError(f"{path} has no column {id_column!r}, which --id-column names.")
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
        raise EvaluationError(f"{path}: line {blank.idxmax()} has no id.")
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
    """Add a column of 0 and 1 for each of the 14 findings of the official label file.

    Files of expert labels repeat the official column beside label columns of their own, which are
    used instead.
    """
    names = {key(name): name for name in labels.CHESTXRAY14}
    if own := [sheet.names[name] for name in names if name in sheet.table]:
        text = f"{sheet.path}: {sheet.names[FINDINGS]} is not used beside {examples(own)}"
        return replace(sheet, warnings=(text,))
    cells = sheet.table[FINDINGS]
    listed = cells.str.split("|").explode().map(key)
    none = key(labels.NO_FINDING)
    wrong = ~listed.isin([*names, none]) | ((listed == none) & listed.index.duplicated(keep=False))
    if wrong.any():
        image = wrong.idxmax()
        raise EvaluationError(
            f"{sheet.path}: {sheet.names[FINDINGS]} of {image} is {cells[image]!r}; it must be "
            f"{labels.NO_FINDING}, or findings of ChestX-ray14 separated by |."
        )
    targets = pd.get_dummies(listed, dtype=float).groupby(level=0, sort=False).max()
    targets = targets.reindex(index=sheet.ids, columns=list(names), fill_value=0.0)
    return replace(sheet, table=targets.join(sheet.table), names=names)
