"""Radiologists' own labels of ChestX-ray14's images beside the text-mined ones: a second truth.

Two released sets: `all findings` (the 14 labels, five readers an image) and `four findings` (three
readers an image, of which three findings are labels here). Both truths are scored on the same
images with the same resamples, so their difference is paired.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from data import labels
from evaluation import EvaluationError, agreement, bootstrap, metrics, tables
from reproduce.tables import authors
from reproduce.tables.sample import Sample

YES_NO = {"YES": 1.0, "NO": 0.0}  # HEDGE, uncertain, is left out
READERS_NOTE = (
    "The readers' own votes went into the experts' labels, which flatters them; a reader has one "
    "operating point, counted on the images that he read."
)


class ExpertSet(NamedTuple):
    """One released set of experts' labels."""

    name: str
    truth: pd.DataFrame  # image -> findings, 1, 0 or NaN
    readings: pd.DataFrame  # image, reader, findings
    same_as: dict[str, tuple[str, ...]]  # finding -> labels of ChestX-ray14


def read(folder: Path) -> list[ExpertSet]:
    """Both sets from the files anywhere below a folder."""
    all_truth, all_readings, *four, four_readings = authors.find("experts", folder)
    spelt: dict[str, tuple[str, ...]] = {name: (name,) for name in labels.CHESTXRAY14}
    return [
        ExpertSet("all findings", *_tables([all_truth], all_readings, spelt), spelt),
        ExpertSet(
            "four findings",
            *_tables(four, four_readings, labels.FOUR_FINDINGS),
            labels.FOUR_FINDINGS,
        ),
    ]


def _tables(truth: list[Path], readings: Path, findings) -> tuple[pd.DataFrame, pd.DataFrame]:
    frames = [_answers(pd.read_csv(path, dtype=str), findings) for path in truth]
    read_by = pd.read_csv(readings, dtype=str)
    answers = _answers(read_by, findings)
    answers.insert(0, "reader", read_by["Reader ID"].to_numpy())
    # who read an image twice counts with the first reading
    answers = answers[~pd.MultiIndex.from_arrays([answers.index, answers["reader"]]).duplicated()]
    return pd.concat(frames), answers


def _answers(table: pd.DataFrame, findings) -> pd.DataFrame:
    """Image -> 1, 0 or NaN for each finding, whatever the spelling of its column."""
    plain = {_plain(column): column for column in table.columns}
    columns = {name: table[plain[_plain(name)]].map(YES_NO) for name in findings}
    image = table["Image ID" if "Image ID" in table else "Image Index"]
    return pd.DataFrame(columns).set_axis(image.to_numpy(), axis=0)


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("/", " or ").casefold()


class OnBoth(NamedTuple):
    """A sample's images that one set of experts has read, under the findings of that set."""

    findings: list[str]
    ids: list[str]
    nih: np.ndarray  # (images, findings)
    experts: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray | None


def shared(sample: Sample, expert_set: ExpertSet) -> OnBoth | None:
    """The images and findings that both have; None where there are none.

    A finding that several labels name is present where one of them is, and its probability is the
    largest of theirs.
    """
    column = {name.replace(" ", "_"): place for place, name in enumerate(sample.labels)}
    same_as = {
        finding: [column[name] for name in names]
        for finding, names in expert_set.same_as.items()
        if all(name in column for name in names)
    }
    row_of = {name.rsplit("/", 1)[-1]: row for row, name in enumerate(sample.ids)}
    ids = [name for name in expert_set.truth.index if name in row_of]
    if not ids or not same_as:
        return None
    rows = [row_of[name] for name in ids]

    def largest(values: np.ndarray) -> np.ndarray:
        return np.stack([values[rows][:, each].max(axis=1) for each in same_as.values()], axis=-1)

    return OnBoth(
        list(same_as),
        ids,
        largest(sample.targets),
        expert_set.truth.loc[ids, list(same_as)].to_numpy(),
        largest(sample.probabilities),
        None if sample.patients is None else np.asarray(sample.patients)[rows],
    )


def second_truth(both: OnBoth, name: str, resamples: int, seed: int) -> pd.DataFrame:
    """AUC against both truths, their paired difference, and how far the labels agree."""
    known = ~np.isnan(both.nih) & ~np.isnan(both.experts)
    truths = [np.where(known, each, np.nan) for each in (both.nih, both.experts)]
    values = [metrics.auroc(each, both.probabilities) for each in truths]
    draws = [
        bootstrap.scores(each, both.probabilities, both.patients, resamples, seed).auc
        for each in truths
    ]
    defined = ~np.isnan(values[0] + values[1])  # the mean is over labels that both truths have
    values = [_with_mean(np.where(defined, each, np.nan)) for each in values]
    draws = [_with_mean(np.where(defined, each, np.nan)) for each in draws]
    positives = [np.nansum(each, axis=0) for each in truths]
    agreed = agreement.table(truths[0], truths[1], both.findings, both.patients, resamples, seed)
    kappas = agreed.set_index("group")[["kappa", "low", "high"]]
    rows = []
    for column, finding in enumerate([*both.findings, "mean"]):
        row: dict[str, Any] = {"experts": name, "group": finding}
        for truth, value, drawn in zip(("nih", "expert"), values, draws, strict=True):
            low, high = bootstrap.interval(drawn[:, column])
            row |= {truth: value[column], f"{truth}_low": low, f"{truth}_high": high}
        low, high = bootstrap.interval(draws[1][:, column] - draws[0][:, column])
        row |= {"difference": values[1][column] - values[0][column], "low": low, "high": high}
        mean = finding == "mean"
        counts = [int(each.sum() if mean else each[column]) for each in positives]
        row |= dict(zip(("nih_positives", "expert_positives"), counts, strict=True))
        row["images"] = len(both.ids) if mean else int(known[:, column].sum())
        kappa = (np.nan,) * 3 if mean else kappas.loc[finding]
        rows.append(row | dict(zip(("kappa", "kappa_low", "kappa_high"), kappa, strict=True)))
    return pd.DataFrame(rows)


def _with_mean(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, metrics.macro_mean(values)[..., None]], axis=-1)


def readers(both: OnBoth, expert_set: ExpertSet) -> pd.DataFrame:
    """Each reader's sensitivity and specificity, and whether the point lies below the curve."""
    rows = []
    for reader, read_by in expert_set.readings.groupby("reader", sort=True):
        answers = read_by.reindex(both.ids)[both.findings].to_numpy(float)
        truth = np.where(np.isnan(answers), np.nan, both.experts)
        decisions = np.nan_to_num(answers)
        below = metrics.under_curve(truth, both.probabilities, decisions[None])[0]
        alarms, sensitivity = metrics.operating_points(truth, decisions)
        for column, finding in enumerate(both.findings):
            known = truth[:, column][~np.isnan(truth[:, column])]
            row: dict[str, Any] = {"experts": expert_set.name, "group": finding, "reader": reader}
            row |= {"sensitivity": sensitivity[column], "specificity": 1 - alarms[column]}
            counts = {"positives": int(known.sum()), "images": len(known)}
            rows.append(row | {"below_curve": below[column]} | counts)
    return pd.DataFrame(rows)


def for_people(table: pd.DataFrame, read_by: pd.DataFrame) -> pd.DataFrame:
    """One line a finding: both AUCs, their difference, kappa, counts, readers below the curve."""
    counted = read_by.dropna(subset=["below_curve"]).groupby(["experts", "group"])["below_curve"]
    below = {
        key: f"{values.sum():.0f} of {len(values)}" for key, values in counted
    }  # readers of images with and without the finding
    lines = {}
    for row in table.itertuples():
        lines[row.group] = {
            "AUC, NIH's labels": tables.interval(row.nih, row.nih_low, row.nih_high),
            "AUC, experts' labels": tables.interval(row.expert, row.expert_low, row.expert_high),
            "difference": tables.interval(row.difference, row.low, row.high),
            "kappa": tables.interval(row.kappa, row.kappa_low, row.kappa_high, 2)
            if row.group != "mean"
            else "",
            "positives, NIH": row.nih_positives,
            "positives, experts": row.expert_positives,
            "images": row.images,
            "readers below the curve": below.get((row.experts, row.group), ""),
        }
    return pd.DataFrame(lines).T


def analyse(sample: Sample, folder: Path, resamples: int, seed: int):
    """(frames for CSVs, tables for people by title) of both sets of experts' labels."""
    found, read_by, parts = [], [], {}
    for expert_set in read(folder):
        both = shared(sample, expert_set)
        if both is None or len(both.ids) < 2:
            continue
        found.append(second_truth(both, expert_set.name, resamples, seed))
        read_by.append(readers(both, expert_set))
        title = f"Experts' labels, {expert_set.name}: {len(both.ids):,} images"
        parts[title] = for_people(found[-1], read_by[-1])
    if not found:
        raise EvaluationError(
            "None of the scored images has experts' labels; those are images of ChestX-ray14 named "
            "like 00000013_005.png, mostly of its official test list."
        )
    return {"experts": pd.concat(found), "readers": pd.concat(read_by)}, parts
