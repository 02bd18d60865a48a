"""Match predictions and truth by image id and by label name.

Whatever cannot be matched with certainty is an error; whatever is left out is counted in a warning.
Column names match without regard to case, spaces and underscores. A predicted label may be called
`prob_LABEL`, `LABEL_pred` and the like, a true one `LABEL_GT`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from data import labels as label_names
from evaluation import EvaluationError
from reproduce.rescore import lists, reading, row_audit
from reproduce.rescore.reading import BLANK, PATIENTS, Sheet, examples, key

PREDICTED = {
    *("prob", "probs", "proba", "probability", "p", "pred", "preds", "predicted", "prediction"),
    *("score", "scores", "logit", "logits"),
}
TRUE = {"gt", "true", "truth", "target", "label"}
ABOUT = {  # columns of the truth that describe an image and are no label
    "sex": ("patient gender", "patient sex", "gender", "sex"),
    "age": ("patient age", "age"),
    "view": ("view position", "ap/pa", "view"),
}


@dataclass
class Matched:
    """Truth and the predictions of one or two models, in the order of the truth's rows."""

    labels: list[str]
    patients: np.ndarray | None  # None: not known
    targets: np.ndarray  # (images, labels), NaN where unknown
    models: list[np.ndarray]  # one or two (members, images, labels); a network is a member
    warnings: list[str]
    ids: list[str]
    about: dict[str, list[str]]  # sex, age, view of each image, if the truth has them
    remarks: list[str] = field(default_factory=list)

    def only(self, keep: Sequence[bool]) -> "Matched":
        """Return the truth and the predictions of some labels."""
        names = [name for name, kept in zip(self.labels, keep, strict=True) if kept]
        models = [model[..., keep] for model in self.models]
        return replace(self, labels=names, targets=self.targets[:, keep], models=models)


class Label(NamedTuple):
    """One label and its column in each file."""

    name: str
    true: str
    predicted: list[str]  # per model


def match(
    predictions: Path | Sequence[Path],
    truth: Path | None = None,
    compare: Path | None = None,
    *,
    id_column: str | None = None,
    patient_column: str | None = None,
    labels: Sequence[str] | None = None,
    ids_file: Path | None = None,
) -> Matched:
    """Read the files and match their rows and columns.

    Several files of `predictions` are the networks of an ensemble: the members of the first model.
    """
    files = [predictions] if isinstance(predictions, Path) else [*predictions]
    networks = len(files)
    sheets = [
        reading.read(path, id_column, ids=ids_file, wanted=labels)
        for path in (*files, compare)
        if path
    ]
    if truth is None and not sheets[0].is_run and not _has_truth(sheets[0]):
        raise EvaluationError(f"{files[0]} holds no truth; name its file with --truth.")
    true = reading.read(truth or files[0], id_column, truth=True)
    remarks: list[str] = []
    warnings = [*true.warnings, *(text for sheet in sheets for text in sheet.warnings)]
    sheets = [_by_file_name(sheet, true, warnings) for sheet in sheets]
    _check_same_images(sheets[:networks])
    shared = _shared_labels(true, sheets, labels, patient_column, warnings)
    names = [label.name for label in shared]
    ids = _shared_ids(true, sheets, warnings)
    whole = np.stack([true.true(label.true) for label in shared], axis=-1)
    rows = true.ids.get_indexer(ids)
    targets = whole[rows]
    patients = _patients(true, sheets[0], patient_column, ids, warnings, remarks)
    _check_targets(true, targets, names, warnings)
    models = []
    for model, sheet in enumerate(sheets):
        if truth is None and sheet.is_run:
            _check_same_truth(true, sheet, shared, ids)
        columns = [label.predicted[model] for label in shared]
        models.append(_probabilities(sheet, columns, ids, names, warnings))
        in_file_order = ids.get_indexer(sheet.ids[sheet.ids.isin(ids)])
        scores = models[-1].mean(axis=0)[in_file_order]
        if text := row_audit.sentence(scores, targets[in_file_order], [*true.ids], whole):
            warnings.append(f"{sheet.path}: {text}")
    if networks > 1:
        models[:networks] = [_ensemble(sheets[:networks], models[:networks])]
    about = {
        name: true.table[column].iloc[rows].astype(str).tolist()
        for name, columns in ABOUT.items()
        for column in columns
        if column in true.table
    }
    return Matched(names, patients, targets, models, warnings, [*ids], about, remarks)


def apart(data: Matched) -> tuple[Matched, Matched | None]:
    """Separate ChestX-ray14's label No Finding from its findings, over which means are taken.

    The second part is None without it. Labels of other datasets stay together.
    """
    none = key(label_names.NO_FINDING)
    keep = [key(name) != none for name in data.labels]
    known = {none, *map(key, label_names.CHESTXRAY14)}
    if all(keep) or not any(keep) or not {*map(key, data.labels)} <= known:
        return data, None
    return data.only(keep), data.only([not kept for kept in keep])


# Ensembles


def _check_same_images(networks: list[Sheet]) -> None:
    """Refuse networks of an ensemble that predict other images."""
    first, *others = networks
    for other in others:
        one, two = first.ids.difference(other.ids), other.ids.difference(first.ids)
        if len(one) or len(two):
            raise EvaluationError(
                f"{first.path} and {other.path} hold predictions of other images: {len(one):,} "
                f"only in the first, {len(two):,} only in the second, such as "
                f"{[*one, *two][0]}. An ensemble needs the same images in every file."
            )


def _ensemble(networks: list[Sheet], predicted: list[np.ndarray]) -> np.ndarray:
    """Return the networks as members, (networks, images, labels); refuse to mix scales."""
    logits = [bool(((each < 0) | (each > 1)).any()) for each in predicted]
    if any(logits) and not all(logits):
        raise EvaluationError(
            f"{networks[logits.index(False)].path} holds probabilities, but "
            f"{networks[logits.index(True)].path} numbers outside [0, 1], so they have no common "
            "mean; apply the sigmoid to logits first."
        )
    return np.stack([each.mean(axis=0) for each in predicted])


def _by_file_name(sheet: Sheet, true: Sheet, warnings: list[str]) -> Sheet:
    """Drop folders from the ids if only then both files share some: images/1.png and 1.png."""
    names = sheet.ids.str.rsplit("/", n=1).str[-1]
    if sheet.ids.isin(true.ids).any() or names.has_duplicates or not names.isin(true.ids).any():
        return sheet
    warnings.append(f"{sheet.path}: ids matched without their folders ({examples(sheet.ids, 1)})")
    return replace(sheet, table=sheet.table.set_axis(names))


# Labels


def _bare(column: str, marks: set[str]) -> str:
    """Remove a first or last word that says what the column holds, such as `prob`."""
    first, _, rest = column.partition(" ")
    if rest and first in marks:
        return rest
    rest, _, last = column.rpartition(" ")
    return rest if rest and last in marks else column


def _has_truth(sheet: Sheet) -> bool:
    """Return if a CSV of predictions holds the truth as well: LABEL_GT beside LABEL_Pred."""
    predicted = {_bare(name, PREDICTED) for name in sheet.names}
    return any(_bare(name, TRUE) in predicted - {name} for name in sheet.names)


def _same_csv(one: Sheet, other: Sheet) -> bool:
    return not one.is_run and one.path.samefile(other.path)


def _predicted_column(sheet: Sheet, true: Sheet, column: str) -> str | None:
    """Return the column of a model's file that predicts a column of the truth, if there is one."""
    for name in dict.fromkeys([column, _bare(column, TRUE)]):
        marked = [each for each in sheet.names if _bare(each, PREDICTED) == name != each]
        if len(marked) > 1:
            both = " and ".join(repr(sheet.names[each]) for each in marked)
            raise EvaluationError(f"{sheet.path}: {both} both predict {name!r}; keep one of them.")
        if marked:
            return marked[0]
        is_truth_itself = name == column and _same_csv(sheet, true)
        if name in sheet.names and not is_truth_itself:
            return name
    return None


def _shared_labels(
    true: Sheet,
    sheets: list[Sheet],
    wanted: Sequence[str] | None,
    patient_column: str | None,
    warnings: list[str],
) -> list[Label]:
    """Return the labels of all files, in the order of the truth's columns or of --labels."""
    not_labels = {PATIENTS, key(patient_column or PATIENTS)}
    columns = [name for name in true.names if name not in not_labels]
    if wanted is not None:
        columns = _named_columns(true, columns, wanted)
    shared = []
    for i, column in enumerate(columns):
        predicted: list[str] = []
        for sheet in sheets:
            match_in_sheet = _predicted_column(sheet, true, column)
            if match_in_sheet is not None:
                predicted.append(match_in_sheet)
            elif wanted is not None:
                raise EvaluationError(
                    f"{sheet.path} has no column {wanted[i]!r}, which --labels names."
                )
        if len(predicted) == len(sheets):
            name = _label_name(true.names[column], column, predicted)
            shared.append(Label(name, column, predicted))
    if not shared:
        raise EvaluationError(
            f"{true.path} and {sheets[0].path} share no label column: "
            f"{examples(true.names.values())} against {examples(sheets[0].names.values())}."
        )
    names = [label.name for label in shared]
    if same := [label for label in shared if names.count(label.name) > 1]:
        both = " and ".join(repr(true.names[label.true]) for label in same[:2])
        raise EvaluationError(f"{true.path}: {both} are both the truth of one label; keep one.")
    if wanted is None:
        _warn_of_unused(true, sheets, shared, not_labels, warnings)
    for model, sheet in enumerate(sheets):
        written = [sheet.names[label.predicted[model]] for label in shared]
        exact = {*true.names.values()}
        similar = [name for name in written if key(name) in true.names and name not in exact]
        if similar:
            warnings.append(f"{sheet.path}: columns matched by similar names ({examples(similar)})")
    return shared


def _warn_of_unused(
    true: Sheet,
    sheets: list[Sheet],
    shared: list[Label],
    not_labels: set[str],
    warnings: list[str],
) -> None:
    """Warn of columns that are not scored; a file of truth and predictions is named once."""
    used = {true.path: not_labels | {label.true for label in shared}}
    if reading.FINDINGS in true.table:  # No Finding follows from the findings
        used[true.path].add(key(label_names.NO_FINDING))
    names = {true.path: true.names}
    for model, sheet in enumerate(sheets):
        path = true.path if _same_csv(sheet, true) else sheet.path
        names.setdefault(path, sheet.names)
        used[path] = used.get(path, not_labels) | {label.predicted[model] for label in shared}
    for path, columns in names.items():
        unused = [written for name, written in columns.items() if name not in used[path]]
        if unused:
            listed = examples(unused, 20)
            warnings.append(f"{path}: {len(unused)} columns not scored ({listed})")


def _named_columns(true: Sheet, columns: list[str], wanted: Sequence[str]) -> list[str]:
    """Return the columns of the truth that --labels names, with or without a mark such as GT."""
    named = []
    for name in wanted:
        matches = [each for each in columns if key(name) in (each, _bare(each, TRUE))]
        if not matches:
            raise EvaluationError(f"{true.path} has no column {name!r}, which --labels names.")
        if matches[0] in named:
            raise EvaluationError(f"--labels names {true.names[matches[0]]!r} twice; name it once.")
        named.append(matches[0])
    return named


def _label_name(written: str, column: str, predicted: Sequence[str]) -> str:
    """Return the label as the truth writes it; LABEL if the truth's column is LABEL_GT."""
    if column in predicted or _bare(column, TRUE) == column:
        return written
    words = reading.words(written)
    return " ".join(words[1:] if key(words[0]) in TRUE else words[:-1])


# Images


def _shared_ids(true: Sheet, sheets: list[Sheet], warnings: list[str]) -> pd.Index:
    """Return the images of all files, in the order of the truth; warn of those left out."""
    ids = true.ids
    for sheet in sheets:
        predicted = true.ids[true.ids.isin(sheet.ids)]
        known = sheet.ids[sheet.ids.isin(true.ids)]
        if predicted.empty:
            raise EvaluationError(
                f"{sheet.path} and {true.path} share no id: {examples(sheet.ids)} against "
                f"{examples(true.ids)}. Choose the column with --id-column, or write ids alike."
            )
        if missing := len(true.ids) - len(predicted):
            warnings.append(
                f"{sheet.path}: without a prediction, and left out: {missing:,}; scored on "
                f"{len(predicted)} of the {len(true.ids)} images of {true.path}"
            )
        if extra := len(sheet.ids) - len(known):
            warnings.append(f"{sheet.path}: {extra} rows without truth, left out")
        if not known.equals(predicted):
            warnings.append(f"{sheet.path}: rows in another order than the truth, matched by id")
        ids = ids[ids.isin(predicted)]
    if ids.empty:
        raise EvaluationError(f"{sheets[0].path} and {sheets[1].path} share no id.")
    return ids


def _patients(
    true: Sheet,
    predicted: Sheet,
    column: str | None,
    ids: pd.Index,
    warnings: list[str],
    remarks: list[str],
) -> np.ndarray | None:
    """Return the patient of every scored image if known: from a file, or ChestX-ray14's names."""
    name = PATIENTS if column is None else key(column)
    stated = [_one_spelling(each, name)[ids] for each in (true, predicted) if name in each.table]
    if not stated and column is not None:
        raise EvaluationError(
            f"Neither file has a column {column!r}, which --patient-column names."
        )
    if not stated and (in_names := lists.patients([*ids])):
        remarks.append(f"Patients are those in the images' names: {in_names[0]} in {ids[0]}.")
        return np.array(in_names)
    if not stated:
        warnings.append(
            "no --patient-column: every image counts as another patient, which makes intervals "
            "too narrow if patients have several"
        )
        return None
    patients, others = stated[0], stated[-1]
    if (differ := patients != others).any():
        image = differ.idxmax()
        raise EvaluationError(
            f"{true.path} and {predicted.path} name different patients of {image}: "
            f"{patients[image]!r} and {others[image]!r}; correct one file, or delete its column of "
            "patients."
        )
    if unknown := int(patients.str.casefold().isin(BLANK).sum()):
        named = column or "Patient ID"
        raise EvaluationError(f"{unknown} images have no {named!r}; fill it in for all of them.")
    return patients.to_numpy(str)


def _one_spelling(sheet: Sheet, column: str) -> pd.Series:
    """Return patients with numbers in one form, without leading zeros and `.0`.

    Refuse a file that writes one patient in two ways, because each would count as a patient.
    """
    written = sheet.table[column].astype(str).str.strip()
    plain = written.str.replace(r"^0*([0-9]+)(\.0)?$", r"\1", regex=True)
    for number, texts in written.groupby(plain, sort=False).unique().items():
        if len(texts) > 1:
            raise EvaluationError(
                f"{sheet.path} writes patient {number} in two ways, {texts[0]!r} and {texts[1]!r}; "
                "write each patient in one way."
            )
    return plain


# Numbers


def _check_same_truth(true: Sheet, other: Sheet, shared: list[Label], ids: pd.Index) -> None:
    """Refuse two runs that hold different truths."""
    for label in shared:
        one, two = (pd.Series(sheet.true(label.true), sheet.ids)[ids] for sheet in (true, other))
        differ = (one != two) & ~(one.isna() & two.isna())
        if differ.any():
            raise EvaluationError(
                f"{true.path} and {other.path} hold different truths, first for {label.name!r} of "
                f"{differ.idxmax()}; name the one to use with --truth."
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
    one_class = ~((targets == 0).any(axis=0) & (targets == 1).any(axis=0))
    for column in np.flatnonzero(one_class):
        warnings.append(f"{names[column]}: the truth has one class only, so AUC and AP are n/a")


def _probabilities(
    sheet: Sheet, columns: list[str], ids: pd.Index, names: list[str], warnings: list[str]
) -> np.ndarray:
    """Return (members, images, labels) in the order of `ids`."""
    rows = sheet.ids.get_indexer(ids)
    values = np.stack([sheet.predicted(column) for column in columns], axis=-1)[:, rows]
    if not (finite := np.isfinite(values)).all():
        _, row, column = np.argwhere(~finite)[0]
        raise EvaluationError(
            f"{sheet.path}: {(~finite).sum()} predictions are blank, NaN or infinite, the first "
            f"{names[column]!r} of {ids[row]}; predict them again."
        )
    if outside := int(((values < 0) | (values > 1)).sum()):
        warnings.append(
            f"{sheet.path}: {outside} predictions lie outside [0, 1] ({values.min():g} to "
            f"{values.max():g}); they are ranked as they are, without calibration"
        )
    for column in np.flatnonzero(np.ptp(values.mean(axis=0), axis=0) == 0):
        if len(ids) > 1:
            warnings.append(
                f"{sheet.path}: {names[column]} is constant, so its AUC is .5 and says nothing"
            )
    return values
