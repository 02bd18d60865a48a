"""Compute operating points, calibration and subgroups of one model's predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import safefiles
from evaluation import EvaluationError, operating_points, subgroups, tables, uncertainty
from evaluation.operating_points import Rule
from evaluation.predictions import Predictions

ON_TEST = (
    "Thresholds were chosen on the scored images themselves, so sensitivity and specificity look "
    "better than on new images."
)
ON_VALIDATION = "Thresholds were chosen on validation images, not on the scored ones."
CSVS = (
    *("operating-points", "subgroups", "gaps", "reliability", "calibration", "experts", "readers"),
)
MOST_GAPS = 12  # shown; gaps.csv has all


class Sample(NamedTuple):
    """The predictions of one model, from a CSV, a run or the authors' own files."""

    labels: Sequence[str]
    targets: np.ndarray  # (images, labels), NaN where unknown
    probabilities: np.ndarray  # (images, labels), the mean over members
    patients: np.ndarray | None  # None: every image counts as another patient
    ids: Sequence[str]
    about: dict[str, list[str]]  # sex, age, view of each image, if known


def of_predictions(scored: Predictions, about: dict[str, list[str]]) -> Sample:
    """Return the sample of a predictions file."""
    names = [str(name) for name in scored.labels]
    ids = [str(each) for each in scored.ids]
    return Sample(names, scored.targets, scored.mean, scored.patients, ids, about)


def with_intervals(
    table: pd.DataFrame, value: str = "value", prefix: str = "", digits: int = 3
) -> list[str]:
    """Return one cell per row, such as `.873 [.861, .884]`; `prefix` begins the bounds' names."""
    numbers = table[[value, f"{prefix}low", f"{prefix}high"]].to_numpy(float)
    return [tables.with_interval(middle, low, high, digits) for middle, low, high in numbers]


def thresholds(sample: Sample, rule: Rule, validation: Sample | None) -> tuple[np.ndarray, str]:
    """Choose a threshold per label; return them, and a sentence about the images used."""
    if validation is None:
        return operating_points.choose(sample.targets, sample.probabilities, rule), ON_TEST
    chosen = operating_points.choose(validation.targets, validation.probabilities, rule)
    return chosen, ON_VALIDATION


def points_for_people(points: pd.DataFrame) -> pd.DataFrame:
    """Return one row per label: threshold, then each measure with its interval."""
    cells = points.assign(cell=with_intervals(points))
    cells = cells.pivot(index="group", columns="metric", values="cell")
    labels = points["group"].unique()
    cells = cells.reindex(index=labels, columns=list(operating_points.MEASURES))
    first = points.drop_duplicates("group").set_index("group").loc[labels]
    threshold = [tables.number(value, 4) for value in first["threshold"]]
    cells.insert(0, "threshold", threshold)
    return cells.join(first[list(operating_points.COUNTS)]).rename_axis(index=None, columns=None)


def groups_for_people(values: pd.DataFrame) -> pd.DataFrame:
    """Return one row per group: AUC, FNR and FPR as means over labels, and the images."""
    mean = values[values["group"] == subgroups.AVERAGE]
    cells = mean.assign(cell=with_intervals(mean), name=mean["by"] + ": " + mean["subgroup"])
    wide = cells.pivot(index="name", columns="metric", values="cell")
    wide = wide.reindex(index=cells["name"].unique(), columns=["AUC", *subgroups.RATES])
    images = cells.drop_duplicates("name").set_index("name")["images"]
    return wide.join(images).rename_axis(index=None, columns=None)


def common_labels(left_out: Mapping[str, Sequence[str]], labels: int) -> list[str]:
    """Say how many labels the means of subgroups are over, and which they leave out."""
    return [
        f"Means by {attribute} are over {labels - len(names)} of {labels} labels, without "
        f"{', '.join(names)}: a group has fewer than {subgroups.COMMON} images with or without it."
        for attribute, names in left_out.items()
        if names
    ]


def gaps_for_people(gaps: pd.DataFrame, most: int = MOST_GAPS) -> pd.DataFrame:
    """Return the gaps with the smallest p, second group minus first."""
    shown = gaps.dropna(subset=["p"]).sort_values("p", kind="stable").head(most)
    frame = pd.DataFrame(
        {
            "groups": shown["second"] + " − " + shown["first"],
            "label": shown["group"],
            "metric": shown["metric"],
            "difference": with_intervals(shown, "difference"),
            "p": [f"{p:.2g}" for p in shown["p"]],
            "Holm": [f"{p:.2g}" for p in shown["p_holm"]],
        }
    )
    return frame.set_index("groups").rename_axis(index=None)


def calibration(sample: Sample, validation: Sample | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Brier score and ECE per label, and reliability bins.

    The temperature is fitted on validation images; without them nothing is scaled.
    """
    if sample.probabilities.min() < 0 or sample.probabilities.max() > 1:
        raise EvaluationError(
            "Calibration needs probabilities in [0, 1]; apply the sigmoid to logits first."
        )
    variants = {"as predicted": sample.probabilities}
    if validation is not None:
        temperature = uncertainty.temperature(validation.targets, validation.probabilities)
        cooled = uncertainty.cooled(sample.probabilities, temperature)
        variants[f"temperature {temperature:.3f}"] = cooled
    errors, bins = {}, []
    for variant, probabilities in variants.items():
        errors[f"Brier, {variant}"] = uncertainty.brier(sample.targets, probabilities)
        errors[f"ECE, {variant}"] = uncertainty.calibration_error(sample.targets, probabilities)
        for column, label in enumerate(sample.labels):
            curve = uncertainty.reliability(sample.targets[:, column], probabilities[:, column])
            frame = pd.DataFrame(dict(zip(("observed", "predicted", "images"), curve, strict=True)))
            bins.append(frame.assign(group=label, variant=variant))
    table = pd.DataFrame(errors, index=pd.Index(sample.labels, name="group"))
    return table.reset_index(), pd.concat(bins, ignore_index=True)


def calibration_for_people(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per label: Brier score and ECE, before and after scaling."""
    shown = table.set_index("group").rename_axis(index=None)
    return shown.map(lambda value: tables.number(value, 4))


def analyse(
    sample: Sample,
    validation: Sample | None,
    *,
    rule: Rule | None,
    by: Sequence[str],
    calibrate: bool,
    given: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], list[str]]:
    """Run the wanted analyses; return frames for CSVs, tables for people by title, and remarks.

    Operating points are computed at the thresholds that are `given`, or if there is a `rule` or
    `by` names subgroups (then by Youden's).
    """
    frames: dict[str, pd.DataFrame] = {}
    parts: dict[str, pd.DataFrame] = {}
    notes: list[str] = []
    arrays = sample.targets, sample.probabilities, sample.labels
    if rule or by or given is not None:
        if given is not None:
            chosen, title, where = given, "given thresholds", "Thresholds were given, not chosen."
        else:
            rule = rule or Rule(operating_points.YOUDEN)
            chosen, where = thresholds(sample, rule, validation)
            title = str(rule)
        points = operating_points.table(
            *arrays, chosen, sample.patients, resamples=resamples, seed=seed
        )
        frames["operating-points"] = points
        parts[f"Operating points: {title}"] = points_for_people(points)
        notes.append(where)
        if np.isnan(chosen).any():
            names = [str(name) for name in np.asarray(sample.labels)[np.isnan(chosen)]]
            notes.append(f"No threshold, because one class is missing: {', '.join(names)}.")
    if by:
        groups = _groups(sample, by)
        values, gaps, left_out = subgroups.compare(
            *arrays, chosen, groups, sample.patients, resamples=resamples, seed=seed
        )
        frames["subgroups"], frames["gaps"] = values, gaps
        parts["Subgroups: mean over labels"] = groups_for_people(values)
        parts["Largest gaps between subgroups"] = gaps_for_people(gaps)
        notes += [*common_labels(left_out, len(sample.labels)), subgroups.multiplicity(gaps)]
    if calibrate:
        frames["calibration"], frames["reliability"] = calibration(sample, validation)
        parts["Calibration"] = calibration_for_people(frames["calibration"])
        if validation is None:
            notes.append("No temperature was fitted: that needs validation images.")
    return frames, parts, notes


def _groups(sample: Sample, by: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the subgroup of every image for each attribute of --by."""
    if missing := [name for name in by if name not in sample.about]:
        raise EvaluationError(
            f"Nothing says the {', '.join(missing)} of these images. --by reads Patient Gender or "
            "Sex, Patient Age or Age, and View Position or AP/PA from the file of --truth; for a "
            "run it reads images.csv.gz, which the paper's script wrote beside its tables."
        )
    return {name: subgroups.ATTRIBUTES[name](sample.about[name]) for name in by}


def write(
    frames: dict[str, pd.DataFrame],
    parts: dict[str, pd.DataFrame],
    remarks: Sequence[str],
    folder: Path,
    *,
    title: str,
    phantom: bool = False,
) -> None:
    """Write each frame as CSV, the figures, and the printed tables as details.md."""
    if not frames:
        return
    for name, frame in frames.items():
        tables.to_csv(frame, folder / f"{name}.csv")
    pages = [f"## {heading}\n\n{tables.to_markdown(part)}" for heading, part in parts.items()]
    listed = "".join(f"- {remark}\n" for remark in remarks)
    safefiles.write(folder / "details.md", "\n".join([f"# {title}\n", *pages, listed]))
    draw(frames, folder, title, phantom)


def draw(frames: dict[str, pd.DataFrame], folder: Path, title: str, phantom: bool = False) -> None:
    """Write the figures of the frames that have one."""
    from evaluation import figures  # Matplotlib takes half a second

    if "reliability" in frames:
        figures.reliability(folder / "reliability.svg", frames["reliability"], title, phantom)
    if "subgroups" in frames:
        figures.subgroups(folder / "subgroups.svg", frames["subgroups"], title, phantom)
