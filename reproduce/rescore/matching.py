"""Anyone's predictions and truth, matched by id and by label name.

What cannot be matched for certain is an error; what is left out is counted in a warning. Column
names match without regard to case, spaces and underscores; a predicted label may be called
`prob_LABEL`, `LABEL_pred` and the like, a true one `LABEL_GT`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation import EvaluationError
from reproduce.rescore import reading, row_audit
from reproduce.rescore.reading import BLANK, PATIENTS, Sheet, examples, key, numbers

PREDICTED = {
    *("prob", "probs", "proba", "probability", "p", "pred", "preds", "predicted", "prediction"),
    *("score", "scores", "logit", "logits"),
}
ABOUT = {  # columns about an image that are no label
    "sex": ("patient gender", "patient sex", "gender", "sex"),
    "age": ("patient age", "age"),
    "view": ("view position", "ap/pa", "view"),
}
TRUE = {"gt", "true", "truth", "target", "label"}


class Matched(NamedTuple):
    """Truth and the predictions of one or two models, in the order of the truth's rows."""

    labels: list[str]
    patients: np.ndarray | None  # None: not known
    targets: np.ndarray  # (images, labels), NaN where unknown
    models: list[np.ndarray]  # one or two (members, images, labels)
    warnings: list[str]
    ids: list[str]
    about: dict[str, list[str]]  # sex, age, view of each image, where the truth has them


class Label(NamedTuple):
    name: str
    true: str  # its column in the truth
    predicted: list[str]  # its column in the predictions of each model


def match(
    predictions: Path,
    truth: Path | None = None,
    compare: Path | None = None,
    *,
    id_column: str | None = None,
    patient_column: str | None = None,
    labels: Sequence[str] | None = None,
) -> Matched:
    """Read the files and match their rows and columns."""
    true = reading.read(truth or predictions, id_column, truth=True)
    sheets = [reading.read(path, id_column) for path in (predictions, compare) if path]
    if truth is None and predictions.suffix != ".npz" and not _has_truth(sheets[0]):
        raise EvaluationError(f"{predictions} holds no truth; name its file with --truth.")
    warnings = [*true.warnings]
    sheets = [_by_file_name(sheet, true, warnings) for sheet in sheets]
    shared = _shared_labels(true, sheets, labels, patient_column, warnings)
    ids = _shared_ids(true, sheets, warnings)
    wanted = {*ids}
    scored = np.array([name in wanted for name in true.ids])  # `ids` has the order of the truth
    targets = np.stack([numbers(true, label.true)[0, scored] for label in shared], axis=-1)
    patients = _patients(true, sheets[0], patient_column, scored, warnings)
    names = [label.name for label in shared]
    _check_targets(true, targets, names, warnings)
    if truth is None and compare and compare.suffix == ".npz":
        _check_same_truth(true, reading.read(compare, id_column, truth=True), shared, ids)
    models = [
        _probabilities(sheet, [label.predicted[model] for label in shared], ids, names, warnings)
        for model, sheet in enumerate(sheets)
    ]
    row_of = {name: row for row, name in enumerate(ids)}
    in_file_order = [row_of[name] for name in sheets[0].ids if name in row_of]
    whole = np.stack([numbers(true, label.true)[0] for label in shared], axis=-1)
    scores = models[0].mean(axis=0)
    misplaced = row_audit.sentence(scores[in_file_order], targets[in_file_order], true.ids, whole)
    if misplaced:
        warnings.append(f"{predictions}: {misplaced}")
    about = {
        name: [str(true.columns[column][int(row)]) for row in np.flatnonzero(scored)]
        for name, columns in ABOUT.items()
        for column in columns
        if column in true.columns
    }
    return Matched(names, patients, targets, models, warnings, ids=ids, about=about)


def _by_file_name(sheet: Sheet, true: Sheet, warnings: list[str]) -> Sheet:
    """Ids without their folders where only so both files share some: images/1.png and 1.png."""
    known = {*true.ids}
    if not known.isdisjoint(sheet.ids):
        return sheet
    names = [name.rsplit("/", 1)[-1] for name in sheet.ids]
    if len({*names}) < len(names) or known.isdisjoint(names):
        return sheet
    warnings.append(f"{sheet.path}: ids matched without their folders ({examples(sheet.ids, 1)})")
    return sheet._replace(ids=names)


# Labels


def _bare(column: str, words: set[str]) -> str:
    """A column's key without a first or last word that says what the column holds."""
    first, _, rest = column.partition(" ")
    if rest and first in words:
        return rest
    rest, _, last = column.rpartition(" ")
    return rest if rest and last in words else column


def _has_truth(sheet: Sheet) -> bool:
    """Whether a CSV of predictions has the truth beside them: LABEL_GT and LABEL_Pred."""
    predicted = {_bare(name, PREDICTED) for name in sheet.names}
    bare = {name: _bare(name, TRUE) for name in sheet.names}
    return any(label != name and label in predicted for name, label in bare.items())


def _same_csv(one: Sheet, other: Sheet) -> bool:
    return one.path.suffix != ".npz" and one.path.samefile(other.path)


def _predicted_column(sheet: Sheet, true: Sheet, column: str) -> str | None:
    """The column of a model's file that predicts a column of the truth."""
    label = _bare(column, TRUE)
    for name in dict.fromkeys([column, label]):
        marked = [each for each in sheet.names if _bare(each, PREDICTED) == name != each]
        if len(marked) > 1:
            both = " and ".join(repr(sheet.names[each]) for each in marked)
            raise EvaluationError(f"{sheet.path}: {both} both predict {name!r}; keep one of them.")
        if marked:
            return marked[0]
        # in a file that holds truth and predictions, a column of truth predicts nothing
        same_column = name == column and _same_csv(sheet, true)
        if name in sheet.names and not same_column:
            return name
    return None


def _shared_labels(
    true: Sheet,
    sheets: list[Sheet],
    wanted: Sequence[str] | None,
    patient_column: str | None,
    warnings: list[str],
) -> list[Label]:
    """The labels of all files, in the order of the truth's columns or of --labels."""
    not_labels = {PATIENTS, key(patient_column or PATIENTS)}
    columns = [name for name in true.names if name not in not_labels]
    if wanted is not None:
        columns = [_named_label(true, columns, name) for name in wanted]
        if twice := [name for name in columns if columns.count(name) > 1]:
            raise EvaluationError(f"--labels names {true.names[twice[0]]!r} twice; name it once.")
    shared = []
    for place, column in enumerate(columns):
        predicted = [_predicted_column(sheet, true, column) for sheet in sheets]
        used = [name for name in predicted if name is not None]
        if len(used) == len(sheets):
            shared.append(Label(_shown(true.names[column], column, used), column, used))
        elif wanted is not None:
            lacking = sheets[predicted.index(None)].path
            raise EvaluationError(
                f"{lacking} has no column {wanted[place]!r}, which --labels names."
            )
    if not shared:
        raise EvaluationError(
            f"{true.path} and {sheets[0].path} share no label column: "
            f"{examples(true.names.values())} against {examples(sheets[0].names.values())}."
        )
    names = [label.name for label in shared]
    if same := [label for label in shared if names.count(label.name) > 1]:
        both = " and ".join(repr(true.names[label.true]) for label in same[:2])
        raise EvaluationError(f"{true.path}: {both} are both the truth of one label; keep one.")
    _warn_of_columns(true, sheets, shared, None if wanted else not_labels, warnings)
    return shared


def _warn_of_columns(
    true: Sheet,
    sheets: list[Sheet],
    shared: list[Label],
    not_labels: set[str] | None,
    warnings: list[str],
) -> None:
    """Columns that match in another spelling; those that are not scored, unless --labels chose."""
    true_columns = [label.true for label in shared]
    by_model = [[label.predicted[model] for label in shared] for model in range(len(sheets))]
    for sheet, used in zip([true, *sheets], [true_columns, *by_model], strict=True):
        if sheet is true or not _same_csv(sheet, true):
            both = {*used, *(by_model[0] if _same_csv(sheets[0], sheet) else ())}
            skipped = both | (not_labels or {*sheet.names})
            unused = [written for name, written in sheet.names.items() if name not in skipped]
            if unused:
                text = f"{len(unused)} columns not scored ({examples(unused, 20)})"
                warnings.append(f"{sheet.path}: {text}")
        renamed = [
            sheet.names[name]
            for name in used
            if sheet is not true and name in true.names and sheet.names[name] != true.names[name]
        ]
        if renamed:
            warnings.append(f"{sheet.path}: columns matched by similar names ({examples(renamed)})")


def _named_label(true: Sheet, columns: Sequence[str], name: str) -> str:
    """The column of the truth that --labels names, with or without the word that marks truth."""
    for column in columns:
        if key(name) in (column, _bare(column, TRUE)):
            return column
    raise EvaluationError(f"{true.path} has no column {name!r}, which --labels names.")


def _shown(written: str, column: str, predicted: Sequence[str]) -> str:
    """A label as its truth writes it; LABEL where the truth's column is LABEL_GT."""
    if column in predicted or _bare(column, TRUE) == column:
        return written
    words = reading.words(written)
    return " ".join(words[1:] if key(words[0]) in TRUE else words[:-1])


# Images


def _shared_ids(true: Sheet, sheets: list[Sheet], warnings: list[str]) -> list[str]:
    """The images of all files, in the order of the truth; what is left out is counted."""
    ids, known = true.ids, {*true.ids}
    for sheet in sheets:
        predicted = {*sheet.ids}
        missing = [name for name in true.ids if name not in predicted]
        if len(missing) == len(true.ids):
            raise EvaluationError(
                f"{sheet.path} and {true.path} share no id: {examples(sheet.ids)} against "
                f"{examples(true.ids)}. Choose the column with --id-column, or write ids alike."
            )
        if missing:
            warnings.append(
                f"{sheet.path}: without a prediction, and left out: {len(missing):,}; scored on "
                f"{len(true.ids) - len(missing)} of the {len(true.ids)} images of {true.path}"
            )
        if extra := sum(name not in known for name in sheet.ids):
            warnings.append(f"{sheet.path}: {extra} rows without truth, left out")
        in_their_order = [name for name in sheet.ids if name in known]
        if in_their_order != [name for name in true.ids if name in predicted]:
            warnings.append(f"{sheet.path}: rows in another order than the truth, matched by id")
        ids = [name for name in ids if name in predicted]
    if not ids:
        raise EvaluationError(f"{sheets[0].path} and {sheets[1].path} share no id.")
    return ids


def _patients(
    true: Sheet, predicted: Sheet, column: str | None, scored: np.ndarray, warnings: list[str]
) -> np.ndarray | None:
    """The patient of every scored image, from the truth or the predictions; None if unknown."""
    by_sheet = []
    for sheet in (true, predicted):
        cells = sheet.patients if column is None else sheet.columns.get(key(column))
        if cells is not None:
            written = _one_spelling(sheet.path, [str(cell).strip() for cell in cells])
            by_sheet.append(dict(zip(sheet.ids, written, strict=True)))
    if not by_sheet and column is not None:
        raise EvaluationError(
            f"Neither file has a column {column!r}, which --patient-column names."
        )
    if not by_sheet:
        warnings.append(
            "no --patient-column: every image counts as another patient, which makes intervals "
            "too narrow where patients have several"
        )
        return None
    ids = [name for name, wanted in zip(true.ids, scored, strict=True) if wanted]
    patients = [by_sheet[0].get(name, "") for name in ids]
    for name, patient in zip(ids, patients, strict=True):
        if (other := by_sheet[-1].get(name, "")) != patient:
            raise EvaluationError(
                f"{true.path} and {predicted.path} name different patients of {name}: {patient!r} "
                f"and {other!r}; mend one file, or delete its column of patients."
            )
    if unknown := sum(name.casefold() in BLANK for name in patients):
        named = column or "Patient ID"
        raise EvaluationError(f"{unknown} images have no {named!r}; fill it in for all of them.")
    return np.array(patients)


def _one_spelling(path: Path, patients: list[str]) -> list[str]:
    """Numbers without leading zeros and `.0`, so that both files can be compared.

    A file that writes one patient in two ways is refused: each would count as a patient.
    """
    spelling: dict[str, str] = {}
    for text in dict.fromkeys(patients):
        number = text.removesuffix(".0")
        number = (number.lstrip("0") or "0") if number.isascii() and number.isdigit() else text
        if spelling.setdefault(number, text) != text:
            raise EvaluationError(
                f"{path} writes one patient in two ways, {spelling[number]!r} and {text!r}; write "
                "each patient in one way."
            )
    plain = {text: number for number, text in spelling.items()}
    return [plain[text] for text in patients]


# Numbers


def _check_same_truth(true: Sheet, other: Sheet, shared: list[Label], ids: list[str]) -> None:
    """Two predictions.npz that are compared must hold the same truth."""
    for label in shared:
        one, two = (
            dict(zip(sheet.ids, numbers(sheet, label.true)[0], strict=True))
            for sheet in (true, other)
        )
        differ = [name for name in ids if not np.array_equal(one[name], two[name], equal_nan=True)]
        if differ:
            raise EvaluationError(
                f"{true.path} and {other.path} hold different truths, first for "
                f"{label.name!r} of {differ[0]}; say which counts with --truth."
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
    sheet: Sheet, columns: list[str], ids: list[str], names: list[str], warnings: list[str]
) -> np.ndarray:
    """(members, images, labels) in the order of `ids`."""
    row_of = {name: row for row, name in enumerate(sheet.ids)}
    order = [row_of[name] for name in ids]
    values = np.stack([numbers(sheet, column) for column in columns], axis=-1)[:, order]
    if not np.isfinite(values).all():
        _, row, column = np.argwhere(~np.isfinite(values))[0]
        raise EvaluationError(
            f"{sheet.path}: {(~np.isfinite(values)).sum()} predictions are blank, NaN or infinite, "
            f"the first {names[column]!r} of {ids[row]}; predict them again."
        )
    outside = (values < 0) | (values > 1)
    if outside.any():
        warnings.append(
            f"{sheet.path}: {outside.sum()} predictions lie outside [0, 1] ({values.min():g} to "
            f"{values.max():g}); they are ranked as they are, without calibration"
        )
    for column, name in enumerate(names):
        if len(ids) > 1 and np.ptp(values.mean(axis=0)[:, column]) == 0:
            warnings.append(f"{sheet.path}: {name} is constant, so its AUC is .5 and says nothing")
    return values
