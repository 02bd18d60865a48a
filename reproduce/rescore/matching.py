"""Anyone's predictions and truth, matched by id: what does not fit is an error or is counted.

A CSV has an id column (the first, unless named) and one column a label; a predictions.npz of this
suite holds its own truth. Names match without regard to case, spaces and underscores.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation import EvaluationError
from evaluation.predictions import load

BLANK = {"", "nan", "na", "n/a", "null", "none"}
SHOWN = 3  # examples in a message


class Aligned(NamedTuple):
    labels: list[str]
    patients: np.ndarray | None  # None: not known
    targets: np.ndarray  # (images, labels), NaN where unknown
    models: list[np.ndarray]  # one or two (members, images, labels)
    warnings: list[str]


class Sheet(NamedTuple):
    """A file's rows: text from a CSV, numbers from a predictions file."""

    path: Path
    ids: list[str]
    names: dict[str, str]  # key -> column name as written
    columns: dict[str, Sequence]  # key -> one value a row; predictions: (members, rows)


def key(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def align(
    predictions: Path,
    truth: Path | None = None,
    compare: Path | None = None,
    id_column: str | None = None,
    patient_column: str | None = None,
    labels: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> Aligned:
    """Targets and the probabilities of one or two models, in the order of the truth's rows."""
    warnings: list[str] = []
    if truth is None and predictions.suffix != ".npz":
        raise EvaluationError(f"{predictions} holds no truth; name its file with --truth.")
    true = _read(truth or predictions, id_column, truth=True)
    sheets = [_read(path, id_column) for path in (predictions, compare) if path]
    keys = _shared_labels(true, sheets, labels, patient_column, warnings)
    rows = _shared_rows(true, sheets, allow_missing, warnings)
    scored = np.isin(true.ids, rows)  # rows are in the order of the truth
    targets = np.stack([_numbers(true, name)[0, scored] for name in keys], axis=-1)
    patients = _patients(true, sheets[0], patient_column, scored, warnings)
    names = [true.names[name] for name in keys]
    _check_targets(true, targets, names, warnings)
    if truth is None and compare and compare.suffix == ".npz":
        _check_same_truth(true, _read(compare, id_column, truth=True), keys, rows)
    models = [_probabilities(sheet, keys, rows, names, warnings) for sheet in sheets]
    return Aligned(names, patients, targets, models, warnings)


def _read(path: Path, id_column: str | None, truth: bool = False) -> Sheet:
    if not path.is_file():
        raise EvaluationError(f"There is no file {path}; check the path.")
    sheet = _read_npz(path, truth) if path.suffix == ".npz" else _read_csv(path, id_column)
    if not sheet.ids:
        raise EvaluationError(f"{path} has no rows.")
    twice = [name for name, count in Counter(sheet.ids).items() if count > 1]
    if twice:
        raise EvaluationError(
            f"{path} holds {len(twice)} ids more than once ({_some(twice)}); keep one row an id, "
            "or name the column that tells the rows apart with --id-column."
        )
    return sheet


def _read_npz(path: Path, truth: bool) -> Sheet:
    found = load(path)
    values = found.targets[None] if truth else found.probabilities
    names = {key(name): str(name) for name in found.labels}
    columns = {name: values[..., place] for place, name in enumerate(names)}
    if truth:
        columns[""] = found.patients  # no CSV column has an empty name
    return Sheet(path, [str(name) for name in found.ids], names, columns)


def _read_csv(path: Path, id_column: str | None) -> Sheet:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *lines = [line for line in csv.reader(file) if line] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} is no CSV file in UTF-8 ({error}).") from error
    if len(header) < 2:
        raise EvaluationError(
            f"{path} needs an id column and label columns, separated by commas; its first line is "
            f"{','.join(header)[:60]!r}."
        )
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise EvaluationError(
                f"{path}: row {number} has {len(line)} values, but there are {len(header)} columns."
            )
    keys = [key(name) for name in header]
    if twice := [name for name, count in Counter(keys).items() if count > 1 and name]:
        raise EvaluationError(f"{path} has {twice[0]!r} as a column more than once; keep one.")
    place = 0 if id_column is None else _place(path, keys, id_column, "--id-column")
    if not keys[place] or keys[place].startswith("unnamed:"):
        raise EvaluationError(
            f"{path}: the first column has no name, so it may hold row numbers, which would match "
            "by accident; name the column that identifies images with --id-column."
        )
    ids = [line[place].strip() for line in lines]
    if "" in ids:
        raise EvaluationError(f"{path}: row {ids.index('') + 2} has no id.")
    columns = dict(zip(keys, zip(*lines, strict=True), strict=True)) if lines else {}
    columns.pop(keys[place], None)
    names = {name: written.strip() for name, written in zip(keys, header, strict=True)}
    return Sheet(path, ids, {name: names[name] for name in columns if name}, columns)


def _place(path: Path, keys: list[str], wanted: str, flag: str) -> int:
    if key(wanted) not in keys:
        raise EvaluationError(f"{path} has no column {wanted!r}, which {flag} names.")
    return keys.index(key(wanted))


def _shared_labels(
    true: Sheet,
    sheets: list[Sheet],
    labels: Sequence[str] | None,
    patient_column: str | None,
    warnings: list[str],
) -> list[str]:
    patient = key(patient_column) if patient_column else None
    keys = [name for name in true.names if name != patient]
    if labels is not None:
        keys = [key(name) for name in labels]
        for sheet in (true, *sheets):
            for name in labels:
                _place(sheet.path, list(sheet.names), name, "--labels")
    shared = [name for name in keys if all(name in sheet.names for sheet in sheets)]
    if not shared:
        raise EvaluationError(
            f"{true.path} and {sheets[0].path} share no label column: "
            f"{_some(true.names.values())} against {_some(sheets[0].names.values())}."
        )
    for sheet in (true, *sheets):
        left = [sheet.names[name] for name in sheet.names if name not in (*shared, patient)]
        if left and labels is None:
            warnings.append(f"{sheet.path}: {len(left)} columns not scored ({_some(left, 20)})")
        renamed = [sheet.names[name] for name in shared if sheet.names[name] != true.names[name]]
        if renamed:
            warnings.append(f"{sheet.path}: columns matched by similar names ({_some(renamed)})")
    return shared


def _shared_rows(
    true: Sheet, sheets: list[Sheet], allow_missing: bool, warnings: list[str]
) -> list[str]:
    rows = true.ids
    for sheet in sheets:
        predicted = {*sheet.ids}
        missing = [name for name in rows if name not in predicted]
        if len(missing) == len(rows):
            raise EvaluationError(
                f"{sheet.path} and {true.path} share no id: {_some(sheet.ids)} against "
                f"{_some(true.ids)}. Choose the column with --id-column, or write ids alike."
            )
        if missing and not allow_missing:
            raise EvaluationError(
                f"{sheet.path} lacks {len(missing)} of {len(true.ids)} images of {true.path} "
                f"({_some(missing)}); predict them too, or score the others with --allow-missing."
            )
        if missing:
            warnings.append(f"{sheet.path}: {len(missing)} images have no prediction, left out")
        known = {*true.ids}
        extra = [name for name in sheet.ids if name not in known]
        if extra:
            warnings.append(f"{sheet.path}: {len(extra)} rows without truth, left out")
        rows = [name for name in rows if name in predicted]
        if [name for name in sheet.ids if name in known] != rows:
            warnings.append(f"{sheet.path}: rows in another order than the truth, matched by id")
    if not rows:
        raise EvaluationError(f"{sheets[0].path} and {sheets[1].path} share no id.")
    return rows


def _patients(
    true: Sheet, predicted: Sheet, column: str | None, scored: np.ndarray, warnings: list[str]
) -> np.ndarray | None:
    if column is None and true.path.suffix == ".npz":
        return np.asarray(true.columns[""], str)[scored]
    if column is None:
        warnings.append(
            "no --patient-column: every image counts as another patient, which makes intervals "
            "too narrow where patients have several"
        )
        return None
    if key(column) in true.columns:
        patients = [str(name).strip() for name in true.columns[key(column)]]
    elif key(column) in predicted.columns:
        place = dict(zip(predicted.ids, predicted.columns[key(column)], strict=True))
        patients = [str(place.get(name, "")).strip() for name in true.ids]
    else:
        raise EvaluationError(
            f"Neither file has a column {column!r}, which --patient-column names."
        )
    patients = [name for name, wanted in zip(patients, scored, strict=True) if wanted]
    if unknown := sum(name.casefold() in BLANK for name in patients):
        raise EvaluationError(f"{unknown} images have no {column!r}; fill it in for all of them.")
    return np.array(patients)


def _numbers(sheet: Sheet, name: str) -> np.ndarray:
    """A column as (members, rows) float64, NaN where it is blank."""
    values = sheet.columns[name]
    if isinstance(values, np.ndarray):
        return values.astype(float)
    numbers = np.empty(len(values))
    for row, text in enumerate(values):
        try:
            number = text.strip().casefold()
            numbers[row] = np.nan if number in BLANK else float(number.replace("_", "?"))
        except ValueError:
            raise EvaluationError(
                f"{sheet.path}: {sheet.names[name]!r} of {sheet.ids[row]} is {text!r}, which is no "
                "number; if the column is no label, name the labels with --labels."
            ) from None
    return numbers[None]


def _check_same_truth(true: Sheet, other: Sheet, keys: list[str], rows: list[str]) -> None:
    for name in keys:
        one, two = (
            dict(zip(sheet.ids, _numbers(sheet, name)[0], strict=True)) for sheet in (true, other)
        )
        differ = [row for row in rows if not np.array_equal(one[row], two[row], equal_nan=True)]
        if differ:
            raise EvaluationError(
                f"{true.path} and {other.path} hold different truths, first for "
                f"{true.names[name]!r} of {differ[0]}; say which counts with --truth."
            )


def _check_targets(true: Sheet, targets: np.ndarray, names: list[str], warnings: list[str]) -> None:
    odd = ~((targets == 0) | (targets == 1) | np.isnan(targets))
    if odd.any():
        row, column = np.argwhere(odd)[0]
        value = targets[row, column]
        what = "settle uncertain labels, or blank them." if value == -1 else "is it a label?"
        raise EvaluationError(
            f"{true.path}: {names[column]!r} holds {value:g} among {odd.sum()} values that are not "
            f"0, 1 or blank: {what} Name the labels to score with --labels."
        )
    if unknown := int(np.isnan(targets).sum()):
        warnings.append(f"{true.path}: {unknown} unknown (blank) targets, left out of their label")
    for column, name in enumerate(names):
        known = targets[~np.isnan(targets[:, column]), column]
        if len({*known}) < 2:
            warnings.append(f"{name}: the truth has one class only, so AUC and AP are n/a")


def _probabilities(
    sheet: Sheet, keys: list[str], rows: list[str], names: list[str], warnings: list[str]
) -> np.ndarray:
    place = {name: row for row, name in enumerate(sheet.ids)}
    order = [place[name] for name in rows]
    values = np.stack([_numbers(sheet, name) for name in keys], axis=-1)[:, order]
    if not np.isfinite(values).all():
        _, row, column = np.argwhere(~np.isfinite(values))[0]
        raise EvaluationError(
            f"{sheet.path}: {(~np.isfinite(values)).sum()} predictions are blank, NaN or infinite, "
            f"the first {names[column]!r} of {rows[row]}; predict them again."
        )
    outside = (values < 0) | (values > 1)
    if outside.any():
        warnings.append(
            f"{sheet.path}: {outside.sum()} predictions lie outside [0, 1] ({values.min():g} to "
            f"{values.max():g}); they are ranked as they are, without calibration"
        )
    for column, name in enumerate(names):
        if len(rows) > 1 and np.ptp(values.mean(axis=0)[:, column]) == 0:
            warnings.append(f"{sheet.path}: {name} is constant, so its AUC is .5 and says nothing")
    return values


def _some(values, shown: int = SHOWN) -> str:
    values = [str(value) for value in values]
    return ", ".join(values[:shown]) + ", …" * (len(values) > shown)
