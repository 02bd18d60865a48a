"""Asadi 2025's numbers from finished runs: the tables, what a penalty changed, Figures 2 and 3."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.datasets import DATASETS
from evaluation import figures, metrics, tables, uncertainty
from evaluation.metrics import Group
from evaluation.predictions import Predictions
from reproduce import RunError
from reproduce.engine.options import Options
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import failed_rows, paper_folder
from reproduce.tables import authors as released
from reproduce.tables import consistency, heatmaps, pointing, row_details, scoring
from reproduce.tables.scoring import Scored

SEVERAL = 3  # labels, of "several pathologies"


def groups(names: Sequence[str]) -> tuple[Group, ...]:
    """Return means over all and over 14 labels; a network with 14 outputs has only the latter."""
    original = tuple(names[:14])
    title = next(each.title for each in DATASETS.values() if {*each.labels} == {*original})
    of_14 = (
        Group(f"mean of the 14 {title} labels", original),
        Group(f"weighted mean of the 14 {title} labels", original, mean="positives"),
    )
    return (*metrics.ASADI, *of_14) if len(names) > len(original) else of_14


def authors(data: Data, options: Options) -> list[Run[Any]]:
    """Return the authors' predictions as a run if --released names them and images are real."""
    if options.released is None:
        return []
    source = options.released
    if data.phantom:
        raise RunError(
            "--released: the authors' predictions are of real radiographs, so they do not belong "
            "beside phantoms. Give --data-dir as well, or score them alone with python -m "
            f"reproduce.rescore asadi2025 --released {source}."
        )
    if data.dataset != "chexpert":
        raise RunError(
            "--released: the authors' predictions are of CheXpert's test set, so they do not "
            f"belong beside {data.dataset}: leave --released out."
        )
    theirs = paper_folder("asadi2025", options, data) / "released-predictions" / "seed-0"
    return [released.as_run("asadi2025", source, theirs, "HBCE (authors' predictions)")]


def write(
    runs: Sequence[Run[Any]],
    data: Data,
    options: Options,
    *,
    baseline: str,
    paper: str,
    ours: str,
    dropped: str,
    split: str = "",
) -> None:
    """Write every table and figure.

    `baseline` is the row of plain BCE, `paper` the paper's, `ours` that with a gradient, `dropped`
    that with dropout passes. `split` names the split of a dataset that has several.
    """
    folder, failed = paper_folder("asadi2025", options, data), failed_rows(runs)
    scored = scoring.score(runs, groups, options.resamples)
    if split:
        note = f"{DATASETS[data.dataset].title}, {split} split"
        scored = {name: scoring.with_note(row, note) for name, row in scored.items()}
    judged = {}
    if data.dataset != "chexpert" and {paper, baseline} <= scored.keys():
        judged = claims_on_other_labels(scored, paper, baseline)
    scoring.write("asadi2025", folder, scored, data, {"HBCE": paper}, failed=failed, judged=judged)
    row_details.write(folder, runs, data, options)
    write_penalty_tables(folder, scored, baseline=baseline, paper=paper, dropped=dropped)
    first = {run.row.name: run for run in reversed(runs) if run.finished}
    pointing.write(folder, [first[name] for name in (baseline, paper, ours) if name in first], data)
    if paper in scored:
        predicted = scored[paper].predictions[0]
        figures.roc_curves(
            folder / "figure-2.svg",
            predicted.targets,
            predicted.mean,
            predicted.labels,
            title=f"Asadi et al. 2025, Figure 2: {paper}, scale 0.5",
            phantom=data.phantom,
        )
    if dropped in scored:
        title = f"Asadi et al. 2025, Figure 3: {paper}; labels that are true are bold"
        names = [*scored[dropped].predictions[0].labels]
        above = sorted(range(14, len(names)), key=lambda label: names[label] == "Uncertain")
        heatmaps.one_image(
            folder / "figure-3.png",
            scored[dropped].folders[0],
            data,
            [*above, *range(14)],  # as printed: high-level labels and Uncertain on top
            names[:14],
            f"{title} ({figures.PHANTOM_WARNING})" if data.phantom else title,
        )


def claims_on_other_labels(
    scored: Mapping[str, Scored], paper: str, baseline: str
) -> dict[str, dict[str, str]]:
    """Judge the claims with the high-level labels and findings of a dataset other than CheXpert."""
    names = [*scored[paper].predictions[0].labels]
    gaps = scoring.differences({paper: scored[paper], baseline: scored[baseline]})
    gaps = gaps[gaps["metric"] == "AUC"].set_index("group")
    of_labels = {
        "data-driven-improves-high-level": (names[14:], len(names) - 14),
        "data-driven-improves-several": (names[:14], SEVERAL),
    }
    return {
        claim: judge_gains(gaps.reindex(among), needed)
        for claim, (among, needed) in of_labels.items()
    }


def judge_gains(gaps: pd.DataFrame, needed: int) -> dict[str, str]:
    """Judge whether the AUC of at least `needed` labels rises; `gaps` has low and high by label.

    A label with an undefined AUC has neither, and may have risen.
    """
    sure, possible = (gaps["low"] > 0).sum(), (~(gaps["high"] <= 0)).sum()
    named = ", ".join(gaps.index) if needed == len(gaps) else f"the {len(gaps)} findings"
    verdict = "holds" if sure >= needed else "within noise"
    return {
        "ours": verdict if possible >= needed else "does not hold",
        "margin": f"{sure} of {len(gaps)} rise in the whole interval",
        "our_note": f"judged by this dataset's own labels: {named}",
    }


def write_penalty_tables(
    folder: Path, scored: Mapping[str, Scored], *, baseline: str, paper: str, dropped: str
) -> None:
    """Write and print consistency, what each penalty changed, and what uncertainty tells."""
    violations = consistency.violations(scored)
    tables.to_csv(violations, folder / "violations.csv")
    title = "Every row, and how often it contradicts the hierarchy at 0.5"
    _show(title, summary(scored, violations), folder, "rows")
    changed = effect(scored, baseline)
    if len(changed):
        title = f"What each penalty changed, against {baseline} of the same seed"
        _show(title, changed, folder, "effect")
    if {dropped, paper} <= scored.keys():
        with_dropout, without = (scored[name].predictions[0] for name in (dropped, paper))
        passes = len(with_dropout.probabilities)
        title = f"What the uncertainty of {passes} dropout passes tells"
        _show(title, of_passes(with_dropout, without), folder, "uncertainty")


def _show(title: str, table: pd.DataFrame, folder: Path, stem: str) -> None:
    """Write a table and print it, without values that are not known."""
    tables.to_csv(table, folder / f"{stem}.csv")
    shown = table.copy()
    for name in shown.select_dtypes("float"):
        shown[name] = ["" if np.isnan(value) else tables.number(value) for value in table[name]]
    print(tables.titled(title, tables.to_text(shown, width=150)))


# The numbers, from predictions and histories


def summary(scored: Mapping[str, Scored], violations: pd.DataFrame) -> pd.DataFrame:
    """Return one line per row: its mean AUCs, and its contradictions of the hierarchy."""
    of_rows = [groups([*each.predictions[0].labels]) for each in scored.values()]
    means = [group.name for group in max(of_rows, key=len, default=())]
    lines = {}
    for row, row_scores in scored.items():
        table = row_scores.table[row_scores.table["metric"] == "AUC"].set_index("group")
        cells = {}
        for group in means:
            if group in table.index:
                cells[group] = tables.with_interval(*table.loc[group, ["value", "low", "high"]])
        own = violations[violations["row"] == row] if len(violations) else violations
        if len(own):
            cells |= consistency.of_row(own)
        lines[row] = cells
    return pd.DataFrame.from_dict(lines, "index").fillna("").rename_axis("row").reset_index()


def effect(scored: Mapping[str, Scored], baseline: str) -> pd.DataFrame:
    """Compare each run with the baseline's run of the same seed, if both have the same labels.

    A penalty without a gradient can only change the learning rate, the end and the epoch kept:
    `same until` is the last epoch up to which both were trained at equal rates.
    """
    lines = []
    plain_row = scored.get(baseline)
    for row, row_scores in scored.items():
        if plain_row is None or row_scores is plain_row:
            continue
        if len(row_scores.folders) != len(plain_row.folders):
            continue  # the authors' predictions are one run, with any number of --seeds
        seeds = zip(
            row_scores.predictions,
            plain_row.predictions,
            map(_history, row_scores.folders),
            map(_history, plain_row.folders),
            row_scores.folders,
            strict=True,
        )
        for predicted, plain, history, plain_history, folder in seeds:
            if list(predicted.labels) != list(plain.labels):
                continue
            if history is None or plain_history is None:
                continue
            lines.append(
                {
                    "row": row,
                    "run": folder.name,
                    "same until": _same_until(history, plain_history),
                    "epoch kept": int(history["val"].idxmax()) + 1,
                    f"{baseline} kept": int(plain_history["val"].idxmax()) + 1,
                    "largest |Δp|": float(np.abs(predicted.mean - plain.mean).max()),
                    "Δ mean AUC": _mean_auc(predicted) - _mean_auc(plain),
                }
            )
    return pd.DataFrame(lines)


def _mean_auc(predicted: Predictions) -> float:
    return float(metrics.macro_mean(metrics.auroc(predicted.targets, predicted.mean)))


def _history(folder: Path) -> pd.DataFrame | None:
    path = folder / "history.csv"
    return pd.read_csv(path) if path.exists() else None


def _same_until(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """Return the number of epochs trained at equal rates; the first always is."""
    shared = min(len(one), len(other))
    equal = one["learning_rate"].to_numpy()[:shared] == other["learning_rate"].to_numpy()[:shared]
    return shared if equal.all() else int(equal.argmin())


def of_passes(dropped: Predictions, plain: Predictions) -> pd.DataFrame:
    """Measure how well two kinds of uncertainty find wrong predictions.

    They are the spread of dropout passes, and the entropy of their mean; `plain` is the same
    network without dropout. At an AUROC of .5, the uncertainty says nothing about errors.
    """
    spread, entropy = uncertainty.spread(dropped.probabilities), uncertainty.entropy(dropped.mean)
    arrays = dropped.targets, dropped.mean
    wrong = uncertainty.errors(*arrays)
    columns = {
        "errors": np.nanmean(wrong, axis=0),
        "finds errors: spread": uncertainty.error_detection(*arrays, spread),
        "finds errors: entropy": uncertainty.error_detection(*arrays, entropy),
        "AURC: spread": uncertainty.risk_coverage_area(wrong, spread),
        "AURC: entropy": uncertainty.risk_coverage_area(wrong, entropy),
        "ECE": uncertainty.calibration_error(*arrays),
        "ECE without dropout": uncertainty.calibration_error(plain.targets, plain.mean),
        "Brier": uncertainty.brier(*arrays),
        "Brier without dropout": uncertainty.brier(plain.targets, plain.mean),
        "mean spread": spread.mean(axis=0),
    }
    table = pd.DataFrame(columns, index=pd.Index(dropped.labels, name="label"))
    return pd.concat([table, table.mean().to_frame("mean").T.rename_axis("label")]).reset_index()
