"""Pham 2019's numbers from finished runs: by study, beside the radiologists, Figures 4 and 5.

A study with several images has one score, the mean of theirs; studies.md shows the results of
taking the largest instead, and of scoring every image by itself. The test set of 500 studies was
hidden in 2019; today anyone can count how many of its three radiologists are below a ROC curve.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import safefiles
from data import DataError, chexpert, label_tree, policies
from data.labels import CHEXPERT
from data.labels import CHEXPERT_COMPETITION as FIVE
from evaluation import Names, figures, metrics, predictions, published, tables
from evaluation.predictions import Predictions
from reproduce.engine.options import Options
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import failed_rows, paper_folder
from reproduce.tables import heatmaps, radiologists, row_details, scoring
from reproduce.tables.scoring import Scored

TITLE = "Pham et al. 2019, Figure"
CLOSED = " (closed labels)"  # ends the names of flat rows with the labels that CT sees


def mean_of_five(_: Sequence[str]) -> Sequence[metrics.Group]:
    """Return the mean over the five labels of the competition."""
    return [metrics.Group("mean", FIVE)]


def write(
    runs: Sequence[Run[Any]], data: Data, options: Options, *, best_first: Sequence[str]
) -> None:
    """Write every table and figure; `best_first` are rows from the final model to a single one."""
    folder, failed = paper_folder("pham2019", options, data), failed_rows(runs)
    study_of = dict(zip(data.frame["image_path"], data.frame["study_id"], strict=True))
    pool = functools.partial(by_study, study_of=study_of)
    score = functools.partial(scoring.score, runs, mean_of_five, options.resamples, view=pool)
    scored = score("predictions")
    if not scored:
        scoring.write("pham2019", folder, scored, data, failed=failed)
        return
    best = next(name for name in (*best_first, *scored) if name in scored)
    tabled, aliases = dict(scored), {"Ours": best_first[0]}
    if (data.frame["split"] == "public").any():
        public = score("predictions-public")
        readers = chexpert.radiologists(data.folder)
        table = beside_radiologists(folder, public, best, readers, options.resamples, data.phantom)
        if best == best_first[0]:
            mean = table[table["group"] == "mean"]
            mean = mean[mean["metric"].isin(("AUC", radiologists.BELOW))]
            tabled["Ours (test)"] = public[best]._replace(table=mean)
    scoring.write("pham2019", folder, tabled, data, aliases, failed=failed)
    row_details.write(folder, runs, data, options)
    write_closing(folder, data)
    claims_with_closed_labels(folder, scoring.with_aliases(scored, aliases), data, failed)
    finished = [run for run in runs if run.finished]
    views(folder, finished, study_of)
    predicted = only_five(scored[best].predictions[0])
    figures.roc_curves(
        folder / "figure-4.svg",
        predicted.targets,
        predicted.mean,
        FIVE,
        title=f"{TITLE} 4: {best}",
        phantom=data.phantom,
    )
    single = next((run for run in finished if run.row.name == best_first[-1]), None)
    if single:
        title = f"{TITLE} 5: {single.row.name}"
        heatmaps.examples(folder / "figure-5.svg", single, data, FIVE, title)


def claims_with_closed_labels(
    folder: Path, scored: dict[str, Scored], data: Data, failed: dict[str, str]
) -> None:
    """Judge the claims with every flat row replaced by its control on the labels that CT sees.

    A flat row without a control is left out, so that claims on it are "not run".
    """
    if any(name.endswith(CLOSED) for name in scored):
        scoring.write_claims(
            "pham2019",
            folder,
            with_controls(scored),
            data,
            "claims-closed",
            "Claims with flat rows trained on the labels that CT sees",
            failed=with_controls(failed),
        )


def with_controls(by_row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows with every flat row of Table 1 replaced by its control."""
    printed = published.load("pham2019")
    flat = {row for row in printed["row"][printed["table"] == "Table 1"] if "+CT" not in row}
    kept = {name: value for name, value in by_row.items() if name not in flat}
    return {name.removesuffix(CLOSED): value for name, value in kept.items()}


def write_closing(folder: Path, data: Data) -> None:
    """Write closing.csv: how many explicit negatives would turn positive by closing the tree."""
    train = data.frame[data.frame["split"] == "train"]
    released = train[list(CHEXPERT)].to_numpy(np.float32)
    counts = {}
    for policy in ("ignore", "zeros", "ones"):
        targets = policies.apply(released, policy)
        counts[policy] = label_tree.overturned(targets, label_tree.CHEXPERT, released == 0)
    table = pd.DataFrame(counts, pd.Index(CHEXPERT, name="label"))
    table.insert(0, "negatives", (released == 0).sum(axis=0))
    table = table[table["ones"] > 0]
    tables.to_csv(table.reset_index(), folder / "closing.csv")
    title = f"Explicit negatives that --close all would turn positive, of {len(train):,} images"
    if len(table):
        print("\n" + tables.titled(title, tables.to_text(table)))


def by_study(
    images: Predictions, study_of: Mapping[str, str], pool: Callable[..., np.ndarray] = np.mean
) -> Predictions:
    """Return one prediction per study, pooled over its images."""
    return predictions.pooled(images, [study_of[image] for image in images.ids], pool)


def only_five(predicted: Predictions) -> Predictions:
    """Return the predictions of the five labels of the competition."""
    columns = [list(predicted.labels).index(label) for label in FIVE]
    return predicted._replace(
        labels=np.array(FIVE),
        targets=predicted.targets[:, columns],
        probabilities=predicted.probabilities[..., columns],
    )


def mean_auc(predicted: Predictions) -> float:
    """Return the mean AUC over all labels."""
    return float(metrics.macro_mean(metrics.auroc(predicted.targets, predicted.mean)))


def views(folder: Path, runs: Sequence[Run[Any]], study_of: Mapping[str, str]) -> None:
    """Write studies.md: each run's mean AUC by how the images of a study are pooled."""
    lines = {}
    for run in runs:
        images = only_five(predictions.load(run.folder / "predictions.npz"))
        studies = by_study(images, study_of)
        lines[run.name] = {
            "mean of the images": mean_auc(studies),
            "largest": mean_auc(by_study(images, study_of, np.max)),
            "every image": mean_auc(images),
        }
    table = pd.DataFrame(lines).T
    title = f"Mean AUC, {len(images.ids):,} images of {len(studies.ids):,} studies"
    safefiles.write(folder / "studies.md", f"### {title}\n\n{tables.to_markdown(table)}")
    if len(images.ids) > len(studies.ids):
        print("\n" + tables.titled(title, tables.to_text(table)))


def beside_radiologists(
    folder: Path,
    scored: dict[str, Scored],
    best: str,
    readers: Mapping[str, pd.DataFrame],
    resamples: int,
    phantom: bool,
) -> pd.DataFrame:
    """Compare the `best` row with the radiologists on the public test set; return the table.

    Write public.md, two CSVs and a figure. `readers` are each radiologist's decisions by study: an
    operating point that is below the row's curve or not, and an AUC. If the row has several seeds,
    the first one is compared.
    """
    predicted = only_five(scored[best].predictions[0])
    decisions = {
        name: of_studies(name, of_reader, predicted.ids) for name, of_reader in readers.items()
    }
    table = scored[best].table
    table = table[table["metric"] == "AUC"].set_index("group").loc[[*FIVE, "mean"]].reset_index()
    note = ""
    if decisions:
        below = radiologists.below_curve(predicted, decisions, resamples, seed=0)
        each = radiologists.auc_of_each(predicted, decisions, resamples, seed=0)
        table = pd.concat([table, below, each])
        tables.to_csv(pd.concat([below, each]), folder / "public-radiologists.csv")
        note = f"\n{radiologists.AUC_NOTE}\n"
    title = f"Public test set, {len(predicted.ids):,} studies: {best}"
    heading = title + f" ({figures.PHANTOM_WARNING})" * phantom
    shown = radiologists.one_line_each(table)
    safefiles.write(folder / "public.md", f"### {heading}\n\n{tables.to_markdown(shown)}{note}")
    tables.to_csv(scoring.values(scored), folder / "public.csv")
    print("\n" + tables.titled(heading, tables.to_text(shown)) + note)
    figures.roc_curves(
        folder / "figure-4-public.svg",
        predicted.targets,
        predicted.mean,
        FIVE,
        decisions,
        title=title,
        phantom=phantom,
    )
    return table


def of_studies(name: str, decisions: pd.DataFrame, studies: Names) -> np.ndarray:
    """Return a radiologist's decisions on the five labels, in the order of the studies."""
    missing = [study for study in studies if study not in decisions.index]
    if missing:
        raise DataError(
            f"{name}.csv lacks {len(missing):,} of the {len(studies):,} test studies, such "
            f"as {missing[0]}; take the file that belongs to this test set."
        )
    values: np.ndarray = decisions.loc[list(studies), list(FIVE)].to_numpy()
    return values
