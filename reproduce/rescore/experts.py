"""Score predictions on ChestX-ray14 against radiologists' own labels as well.

The official labels were mined from reports. Radiologists' labels were released in two sets: `all
findings` (the 14 labels, five readers per image) and `four findings` (three readers per image;
three of them are labels here). Both truths are scored on the same images with the same resamples,
so their difference is paired.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from data import labels
from evaluation import EvaluationError, agreement, bootstrap, metrics
from reproduce.tables import authors, details
from reproduce.tables.details import Sample

YES_NO = {"YES": 1.0, "NO": 0.0}  # HEDGE, uncertain, becomes NaN
TRUTHS = ("nih", "expert")
ENOUGH = 6  # cases by both truths: labels with fewer say little, and enter only the mean of all
MEAN = f"mean, {ENOUGH} or more cases"
READERS_NOTE = (
    "The experts' labels include each reader's own vote, which favours the readers. A reader has "
    "one operating point, computed on the images that this reader read."
)


class ExpertSet(NamedTuple):
    """One released set of experts' labels."""

    name: str
    truth: pd.DataFrame  # image -> findings, 1, 0 or NaN
    readings: pd.DataFrame  # image -> reader, findings
    same_as: Mapping[str, tuple[str, ...]]  # finding -> labels of ChestX-ray14


class OnBoth(NamedTuple):
    """The images of a sample that one set of experts has read, with the findings of that set."""

    findings: list[str]
    ids: list[str]
    nih: np.ndarray  # (images, findings)
    experts: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray | None


def read(folder: Path) -> list[ExpertSet]:
    """Read both sets from the files anywhere below a folder."""
    all_truth, all_readings, *four_truths, four_readings = authors.find("experts", folder)
    alone = {name: (name,) for name in labels.CHESTXRAY14}
    return [
        _read_set("all findings", [all_truth], all_readings, alone),
        _read_set("four findings", four_truths, four_readings, labels.FOUR_FINDINGS),
    ]


def _read_set(
    name: str, truths: list[Path], readings: Path, same_as: Mapping[str, tuple[str, ...]]
) -> ExpertSet:
    truth = pd.concat([_answers(pd.read_csv(path, dtype=str), same_as) for path in truths])
    table = pd.read_csv(readings, dtype=str)
    answers = _answers(table, same_as)
    answers.insert(0, "reader", table["Reader ID"].to_numpy())
    # only the first of several readings of an image by one reader counts
    repeated = pd.MultiIndex.from_arrays([answers.index, answers["reader"]]).duplicated()
    return ExpertSet(name, truth, answers[~repeated], same_as)


def _answers(table: pd.DataFrame, findings: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    """Return 1, 0 or NaN for each image and finding, whatever the spelling of its column."""
    columns = {_plain(column): column for column in table.columns}
    answers = {name: table[columns[_plain(name)]].map(YES_NO) for name in findings}
    images = table["Image ID" if "Image ID" in table else "Image Index"]
    return pd.DataFrame(answers).set_axis(images.to_numpy(), axis=0)


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("/", " or ").casefold()


def shared(sample: Sample, expert_set: ExpertSet) -> OnBoth | None:
    """Return the images and findings that both have, or None if there are none.

    A finding that several labels name is present if one of them is, and its probability is the
    largest of theirs.
    """
    column_of = {name.replace(" ", "_"): i for i, name in enumerate(sample.labels)}
    columns = {
        finding: [column_of[name] for name in names]
        for finding, names in expert_set.same_as.items()
        if all(name in column_of for name in names)
    }
    row_of = {name.rsplit("/", 1)[-1]: row for row, name in enumerate(sample.ids)}
    ids = [name for name in expert_set.truth.index if name in row_of]
    if not ids or not columns:
        return None
    rows = [row_of[name] for name in ids]

    def largest(values: np.ndarray) -> np.ndarray:
        merged = [values[rows][:, each].max(axis=1) for each in columns.values()]
        return np.stack(merged, axis=-1)

    return OnBoth(
        list(columns),
        ids,
        largest(sample.targets),
        expert_set.truth.loc[ids, list(columns)].to_numpy(),
        largest(sample.probabilities),
        None if sample.patients is None else np.asarray(sample.patients)[rows],
    )


def second_truth(both: OnBoth, name: str, resamples: int, seed: int) -> pd.DataFrame:
    """Return the AUC against both truths, their paired difference and the labels' agreement."""
    known = ~np.isnan(both.nih) & ~np.isnan(both.experts)
    targets = [np.where(known, each, np.nan) for each in (both.nih, both.experts)]
    values = [metrics.auroc(each, both.probabilities) for each in targets]
    arguments = both.probabilities, both.patients, resamples, seed
    draws = [bootstrap.scores(each, *arguments).auc for each in targets]
    cases = [bootstrap.patients_of(each, both.patients) for each in targets]
    positives = np.array([np.nansum(each, axis=0) for each in targets]).astype(int)
    defined = ~np.isnan(values[0] + values[1])  # the means are over labels that both truths have
    chosen = {"mean": defined}
    if len(both.findings) == len(labels.CHESTXRAY14):
        chosen[MEAN] = defined & (positives >= ENOUGH).all(axis=0)

    def means(of_labels: np.ndarray) -> list[np.ndarray]:
        return [metrics.macro_mean(np.where(each, of_labels, np.nan)) for each in chosen.values()]

    table: dict[str, Any] = {"experts": name, "group": [*both.findings, *chosen]}
    few = []
    for truth, value, drawn, patients in zip(TRUTHS, values, draws, cases, strict=True):
        columns = zip(drawn.T, value, patients, strict=True)
        few.append([bootstrap.few_cases(one, auc, "AUC", n) for one, auc, n in columns])
        table[truth] = [*value, *means(value)]
        table |= _bounds([*few[-1], *means(drawn)], f"{truth}_")
    fewest = np.minimum(*(each.min(axis=1) for each in cases))
    gaps = [
        bootstrap.stretch_few(other - one, int(count))
        for one, other, count in zip(*few, fewest, strict=True)
    ]
    gaps += means(draws[1] - draws[0])
    table["difference"] = np.subtract(table["expert"], table["nih"])
    table |= _bounds(gaps)
    for truth, each in zip(TRUTHS, positives, strict=True):
        table[f"{truth}_positives"] = [*each, *(each[kept].sum() for kept in chosen.values())]
    table["images"] = [*known.sum(axis=0), *[len(both.ids)] * len(chosen)]
    nih, experts = targets
    agreed = agreement.table(nih, experts, both.findings, both.patients, resamples, seed)
    kappas = agreed.set_index("group")[["kappa", "low", "high"]]
    kappas = kappas.add_prefix("kappa_").rename(columns={"kappa_kappa": "kappa"})
    return pd.DataFrame(table).join(kappas, on="group")  # no kappa of the mean


def _bounds(draws: Sequence[np.ndarray], prefix: str = "") -> dict[str, list[float]]:
    """Return the lower and upper bounds of each number's draws."""
    low, high = zip(*map(bootstrap.interval, draws), strict=True)
    return {f"{prefix}low": [*low], f"{prefix}high": [*high]}


def readers(both: OnBoth, expert_set: ExpertSet) -> pd.DataFrame:
    """Return each reader's sensitivity and specificity, and if the point lies below the curve."""
    frames = []
    for reader, readings in expert_set.readings.groupby("reader", sort=True):
        answers = readings.reindex(both.ids)[both.findings].to_numpy(float)
        truth = np.where(np.isnan(answers), np.nan, both.experts)
        decisions = np.nan_to_num(answers)
        alarms, sensitivity = metrics.operating_points(truth, decisions)
        columns = {
            "experts": expert_set.name,
            "group": both.findings,
            "reader": reader,
            "sensitivity": sensitivity,
            "specificity": 1 - alarms,
            "below_curve": metrics.under_curve(truth, both.probabilities, decisions[None])[0],
            "positives": np.nansum(truth, axis=0).astype(int),
            "images": (~np.isnan(truth)).sum(axis=0),
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def for_people(table: pd.DataFrame, by_reader: pd.DataFrame) -> pd.DataFrame:
    """Return one row per finding: AUCs, difference, kappa, counts, readers below the curve."""
    below = by_reader.dropna(subset=["below_curve"]).groupby("group")["below_curve"]
    below_curve = {name: f"{each.sum():.0f} of {len(each)}" for name, each in below}
    table = table.set_index("group").rename_axis(index=None)
    shown = {
        "AUC, NIH's labels": details.with_intervals(table, "nih", "nih_"),
        "AUC, experts' labels": details.with_intervals(table, "expert", "expert_"),
        "difference": details.with_intervals(table, "difference"),
        "kappa": details.with_intervals(table, "kappa", "kappa_", 2),
        "positives, NIH": table["nih_positives"],
        "positives, experts": table["expert_positives"],
        "images": table["images"],
        "readers below the curve": [below_curve.get(name, "") for name in table.index],
    }
    frame = pd.DataFrame(shown, table.index)
    frame.loc["mean", "kappa"] = ""
    return frame


def analyse(
    sample: Sample, folder: Path, resamples: int, seed: int
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Return frames for CSVs, and tables for people by title, of both sets of experts' labels."""
    scored, by_reader, parts = [], [], {}
    for expert_set in read(folder):
        both = shared(sample, expert_set)
        if both is None or len(both.ids) < 2:
            continue
        scored.append(second_truth(both, expert_set.name, resamples, seed))
        by_reader.append(readers(both, expert_set))
        title = f"Experts' labels, {expert_set.name}: {len(both.ids):,} images"
        parts[title] = for_people(scored[-1], by_reader[-1])
    if not scored:
        raise EvaluationError(
            "None of the scored images has experts' labels; those are images of ChestX-ray14 named "
            "like 00000013_005.png, mostly of its official test list."
        )
    return {"experts": pd.concat(scored), "readers": pd.concat(by_reader)}, parts
