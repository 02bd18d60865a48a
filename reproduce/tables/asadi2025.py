"""Asadi 2025's numbers from finished runs: the tables, what a penalty changed, Figures 2 and 3."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data import label_tree, labels
from evaluation import figures, hierarchy, metrics, tables, uncertainty
from evaluation.metrics import Group
from evaluation.predictions import Predictions
from reproduce import RunError
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import failed_rows, paper_folder
from reproduce.tables import authors as released
from reproduce.tables import heatmaps, row_details, scoring
from reproduce.tables.scoring import Scored

ORIGINAL = labels.ASADI[:14]
OF_14 = (
    Group("mean of the 14 CheXpert labels", ORIGINAL),
    Group("weighted mean of the 14 CheXpert labels", ORIGINAL, mean="positives"),
)


def groups(names: Sequence[str]) -> tuple[Group, ...]:
    """Means over 21 and over 14 labels; a network with 14 outputs has only the latter."""
    return (*metrics.ASADI, *OF_14) if len(names) == len(labels.ASADI) else OF_14


def authors(data: Data, config, options) -> list[Run]:
    """The authors' predictions as a run, where --released names them: beside real images alone."""
    if config.released == "none":
        return []
    place = Path(config.released)
    if data.phantom:
        raise RunError(
            "--released: the authors' predictions are of radiographs and stand beside no drawn "
            "ones; give --data-dir as well, or score them alone with python -m reproduce.rescore "
            f"asadi2025 --released {place}."
        )
    theirs = paper_folder("asadi2025", options, data) / "released-predictions" / "seed-0"
    return [released.as_run("asadi2025", place, theirs, "HBCE (authors' predictions)")]


def write(
    runs: Sequence[Run], data: Data, options, *, baseline: str, paper: str, dropped: str
) -> None:
    """Every table and figure; the rows of plain BCE, of the paper, and of that with MC dropout."""
    folder = paper_folder("asadi2025", options, data)
    scored = scoring.score(runs, groups, options.resamples)
    scoring.write("asadi2025", folder, scored, data, {"HBCE": paper}, failed=failed_rows(runs))
    row_details.write(folder, runs, data, options)
    means = [group.name for group in (*metrics.ASADI, *OF_14)]
    parents = label_tree.parent_matrix(label_tree.ASADI)
    write_penalty_tables(
        folder, scored, labels.ASADI, parents, means, baseline=baseline, dropped=(dropped, paper)
    )
    phantom = data.phantom
    if paper in scored:
        found = scored[paper].predictions[0]
        title = f"Asadi et al. 2025, Figure 2: {paper}, scale 0.5"
        curves = found.targets, found.mean, found.labels
        figures.roc_curves(folder / "figure-2.svg", *curves, title=title, phantom=phantom)
    if dropped in scored:
        title = f"Asadi et al. 2025, Figure 3: {paper}; labels that are true are bold"
        heatmaps.of_one_image(
            folder / "figure-3.png",
            scored[dropped].folders[0],
            Path(data.folder),
            [*range(15, 21), 14, *range(14)],  # as printed: high-level labels and Uncertain on top
            ORIGINAL,
            f"{title} ({figures.PHANTOM_WARNING})" if phantom else title,
        )


# Consistency, what a penalty changed, what uncertainty tells: from predictions and histories


def broken(scored: dict[str, Scored], names: Sequence[str], parents: np.ndarray) -> pd.DataFrame:
    """Parent-child violations at 0.5 of every row that predicts the whole hierarchy."""
    frames = []
    for row, of_row in scored.items():
        for seed, found in enumerate(of_row.predictions):
            if list(found.labels) == list(names):
                of_seed = hierarchy.violations(found.mean, parents, names)
                frames.append(of_seed.assign(row=row, run=seed))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def summary(scored: dict[str, Scored], groups: Sequence[str], violations: pd.DataFrame):
    """A line a row: its mean AUCs, and contradictions (child > .5, parent not) a hundred images."""
    lines = {}
    for row, of_row in scored.items():
        table = of_row.table[of_row.table["metric"] == "AUC"].set_index("group")
        cells = {}
        for group in groups:
            if group in table.index:
                cells[group] = tables.interval(*table.loc[group, ["value", "low", "high"]])
        own = violations[violations["row"] == row] if len(violations) else violations
        if len(own):
            images = own.groupby("run")["images"].first().sum()
            cells["contradictions / 100"] = f"{100 * own['contradictions'].sum() / images:.1f}"
            cells["child > parent / 100"] = f"{100 * own['exceeding'].sum() / images:.0f}"
        lines[row] = cells
    return pd.DataFrame.from_dict(lines, "index").fillna("").rename_axis("row").reset_index()


def effect(scored: dict[str, Scored], baseline: str, group: str = "mean") -> pd.DataFrame:
    """What each row differs by from the baseline of the same seed, with the same labels.

    A penalty without a gradient can only change the learning rate, the end and the epoch kept:
    `same until` is the last epoch up to which both were trained at equal rates.
    """
    frames = []
    of_baseline = scored.get(baseline)
    for row, of_row in scored.items():
        if of_baseline is None or of_row is of_baseline:
            continue
        if len(of_row.folders) != len(of_baseline.folders):
            continue  # the authors' predictions are of one run, whatever --seeds says
        pairs = zip(of_row.predictions, of_baseline.predictions, strict=True)
        places = zip(of_row.folders, of_baseline.folders, strict=True)
        for (found, plain), (folder, beside) in zip(pairs, places, strict=True):
            own, others = _history(folder), _history(beside)
            if list(found.labels) != list(plain.labels) or own is None or others is None:
                continue
            kept = [int(each["val"].idxmax()) + 1 for each in (own, others)]
            auc = [metrics.macro_mean(metrics.auroc(p.targets, p.mean)) for p in (found, plain)]
            frames.append(
                {
                    "row": row,
                    "run": folder.name,
                    "same until": _same_until(own, others),
                    "epoch kept": kept[0],
                    f"{baseline} kept": kept[1],
                    "largest |Δp|": float(np.abs(found.mean - plain.mean).max()),
                    "Δ mean AUC": auc[0] - auc[1],
                }
            )
    return pd.DataFrame(frames)


def _history(folder: Path) -> pd.DataFrame | None:
    path = folder / "history.csv"
    return pd.read_csv(path) if path.exists() else None


def _same_until(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """Epochs trained at equal rates; the first always is."""
    shared = min(len(one), len(other))
    equal = one["learning_rate"].to_numpy()[:shared] == other["learning_rate"].to_numpy()[:shared]
    return shared if equal.all() else int(equal.argmin())


def of_passes(found: Predictions, plain: Predictions) -> pd.DataFrame:
    """How well the spread of dropout passes, and the entropy of their mean, find wrong predictions.

    `plain` is the same network without dropout. AUROC .5: the uncertainty says nothing of errors.
    """
    spread, entropy = uncertainty.spread(found.probabilities), uncertainty.entropy(found.mean)
    wrong = uncertainty.errors(found.targets, found.mean)
    columns = {
        "errors": np.nanmean(wrong, axis=0),
        "finds errors: spread": uncertainty.error_detection(found.targets, found.mean, spread),
        "finds errors: entropy": uncertainty.error_detection(found.targets, found.mean, entropy),
        "AURC: spread": uncertainty.risk_coverage_area(wrong, spread),
        "AURC: entropy": uncertainty.risk_coverage_area(wrong, entropy),
        "ECE": uncertainty.calibration_error(found.targets, found.mean),
        "ECE without dropout": uncertainty.calibration_error(plain.targets, plain.mean),
        "Brier": uncertainty.brier(found.targets, found.mean),
        "Brier without dropout": uncertainty.brier(plain.targets, plain.mean),
        "mean spread": spread.mean(axis=0),
    }
    table = pd.DataFrame(columns, index=pd.Index(found.labels, name="label"))
    return pd.concat([table, table.mean().to_frame("mean").T.rename_axis("label")]).reset_index()


def write_penalty_tables(
    folder: Path,
    scored: dict[str, Scored],
    names: Sequence[str],
    parents: np.ndarray,
    means: Sequence[str],
    *,
    baseline: str,
    dropped: tuple[str, str],
) -> None:
    """Write and print all of them; `dropped` are the rows with and without dropout passes."""
    violations = broken(scored, names, parents)
    tables.to_csv(violations, folder / "violations.csv")
    overview = summary(scored, means, violations)
    _show("Every row, and how often it contradicts the hierarchy at 0.5", overview, folder, "rows")
    if len(changed := effect(scored, baseline)):
        title = f"What each penalty changed, against {baseline} of the same seed"
        _show(title, changed, folder, "effect")
    if {*dropped} <= scored.keys():
        found, plain = (scored[name].predictions[0] for name in dropped)
        title = f"What the uncertainty of {len(found.probabilities)} dropout passes tells"
        _show(title, of_passes(found, plain), folder, "uncertainty")


def _show(title: str, table: pd.DataFrame, folder: Path, stem: str) -> None:
    """Write a table and print it."""
    tables.to_csv(table, folder / f"{stem}.csv")
    shown = table.copy()
    for name in shown.select_dtypes("float"):
        shown[name] = [
            "" if np.isnan(value) else f"{value:.3f}".replace("0.", ".", 1) for value in table[name]
        ]
    print(tables.titled(title, tables.to_text(shown, width=150)))
