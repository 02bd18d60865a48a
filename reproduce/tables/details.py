"""Compute operating points, calibration and subgroups of one model's predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import safefiles
from evaluation import EvaluationError, operating_points, subgroups, tables, uncertainty
from evaluation.operating_points import Rule
from reproduce.tables.sample import Sample

ON_TEST = (
    "Thresholds were chosen on the scored images themselves, so sensitivity and specificity look "
    "better than on new images."
)
ON_VALIDATION = "Thresholds were chosen on validation images, not on the scored ones."
CSVS = (
    *("operating-points", "subgroups", "gaps", "reliability", "calibration", "experts", "readers"),
)
MOST_GAPS = 12  # shown; gaps.csv has all


class Wanted(NamedTuple):
    """The analyses to run, and their settings."""

    rule: Rule | None = None  # None: no operating points
    by: tuple[str, ...] = ()
    calibrate: bool = False
    resamples: int = 1000
    seed: int = 0


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


def at_operating_points(
    sample: Sample, chosen: np.ndarray, resamples: int, seed: int
) -> pd.DataFrame:
    """Return each label's measures at its threshold, with intervals."""
    return operating_points.table(
        sample.targets,
        sample.probabilities,
        sample.labels,
        chosen,
        sample.patients,
        resamples=resamples,
        seed=seed,
    )


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


def by_subgroup(
    sample: Sample, wanted: Sequence[str], chosen: np.ndarray, resamples: int, seed: int
) -> subgroups.Subgroups:
    """Return the values of every group of the wanted attributes, and the gaps between groups."""
    if missing := [name for name in wanted if name not in sample.about]:
        raise EvaluationError(
            f"Nothing says the {', '.join(missing)} of these images. --by reads Patient Gender or "
            "Sex, Patient Age or Age, and View Position or AP/PA from the file of --truth; for a "
            "run it reads images.csv.gz, which the paper's script wrote beside its tables."
        )
    by = {name: subgroups.ATTRIBUTES[name](sample.about[name]) for name in wanted}
    return subgroups.compare(
        sample.targets,
        sample.probabilities,
        sample.labels,
        chosen,
        by,
        sample.patients,
        resamples=resamples,
        seed=seed,
    )


def groups_for_people(values: pd.DataFrame) -> pd.DataFrame:
    """Return one row per group: AUC, FNR and FPR as means over labels, and the images."""
    mean = values[values["group"] == subgroups.AVERAGE]
    cells = mean.assign(cell=with_intervals(mean), name=mean["by"] + ": " + mean["subgroup"])
    wide = cells.pivot(index="name", columns="metric", values="cell")
    wide = wide.reindex(index=cells["name"].unique(), columns=["AUC", *subgroups.RATES])
    images = cells.drop_duplicates("name").set_index("name")["images"]
    return wide.join(images).rename_axis(index=None, columns=None)


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


def calibration(
    sample: Sample, validation: Sample | None
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray | None]:
    """Return Brier score and ECE per label, reliability bins, and the scaled probabilities.

    The temperature is fitted on validation images; without them nothing is scaled.
    """
    if sample.probabilities.min() < 0 or sample.probabilities.max() > 1:
        raise EvaluationError(
            "Calibration needs probabilities in [0, 1]; apply the sigmoid to logits first."
        )
    variants, cooled = {"as predicted": sample.probabilities}, None
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
    return table.reset_index(), pd.concat(bins, ignore_index=True), cooled


def calibration_for_people(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per label: Brier score and ECE, before and after scaling."""
    shown = table.set_index("group").rename_axis(index=None)
    return shown.map(lambda value: tables.number(value, 4))


def analyse(
    sample: Sample, wanted: Wanted, validation: Sample | None
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], list[str]]:
    """Run the wanted analyses; return frames for CSVs, tables for people by title, and remarks."""
    frames: dict[str, pd.DataFrame] = {}
    parts: dict[str, pd.DataFrame] = {}
    notes: list[str] = []
    resamples, seed = wanted.resamples, wanted.seed
    if wanted.rule or wanted.by:
        rule = wanted.rule or Rule(operating_points.YOUDEN)
        chosen, where = thresholds(sample, rule, validation)
        frames["operating-points"] = at_operating_points(sample, chosen, resamples, seed)
        parts[f"Operating points: {rule}"] = points_for_people(frames["operating-points"])
        notes.append(where)
        if np.isnan(chosen).any():
            names = [str(name) for name in np.asarray(sample.labels)[np.isnan(chosen)]]
            notes.append(f"No threshold, because one class is missing: {', '.join(names)}.")
        if wanted.by:
            made = by_subgroup(sample, wanted.by, chosen, resamples, seed)
            frames["subgroups"], frames["gaps"] = made
            parts["Subgroups: mean over labels"] = groups_for_people(made.values)
            parts["Largest gaps between subgroups"] = gaps_for_people(made.gaps)
            notes.append(subgroups.multiplicity(made.gaps))
    if wanted.calibrate:
        frames["calibration"], frames["reliability"], _ = calibration(sample, validation)
        parts["Calibration"] = calibration_for_people(frames["calibration"])
        if validation is None:
            notes.append("No temperature was fitted: that needs validation images.")
    return frames, parts, notes


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
