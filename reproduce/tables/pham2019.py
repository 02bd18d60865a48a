"""Pham 2019's numbers from finished runs: by study, beside the radiologists, Figures 4 and 5.

A study with several images has one score, the mean of theirs; studies.md shows what the largest, or
every image by itself, would give. The test set of 500 studies was hidden in 2019; today anyone can
count how many of its three radiologists lie below a ROC curve.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import safefiles
from data import DataError, chexpert, label_tree, policies
from data.labels import CHEXPERT
from data.labels import CHEXPERT_COMPETITION as FIVE
from evaluation import Names, figures, metrics, predictions, published, tables
from evaluation.predictions import Predictions
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import failed_rows, paper_folder
from reproduce.tables import heatmaps, radiologists, row_details, scoring

TITLE = "Pham et al. 2019, Figure"
CLOSED = " (closed labels)"  # ends the names of flat rows with the labels that CT sees


def write(runs: Sequence[Run], data: Data, options, *, best_first: Sequence[str]) -> None:
    """Every table and figure; `best_first` are the final model and the next best, a single last."""
    folder = paper_folder("pham2019", options, data)
    phantom = data.phantom
    study_of = dict(zip(data.frame["image_path"], data.frame["study_id"], strict=True))

    def score(of: str) -> dict[str, scoring.Scored]:
        return scoring.score(
            runs,
            lambda names: [metrics.Group("mean", FIVE)],
            options.resamples,
            of,
            lambda found: by_study(found, study_of),
        )

    scored, beside, failed = score("predictions"), {}, failed_rows(runs)
    if not scored:
        scoring.write("pham2019", folder, scored, data, failed=failed)
        return
    best = next(name for name in (*best_first, *scored) if name in scored)
    if (data.frame["split"] == "public").any():
        public = score("predictions-public")
        readers = chexpert.radiologists(data.folder)
        table = beside_radiologists(folder, public, best, readers, options.resamples, phantom)
        if best == best_first[0]:
            printed = ("AUC", radiologists.BELOW)
            table = table[(table["group"] == "mean") & table["metric"].isin(printed)]
            beside["Ours (test)"] = public[best]._replace(table=table)
    aliases = {"Ours": best_first[0]}
    scoring.write("pham2019", folder, scored | beside, data, aliases, failed=failed)
    row_details.write(folder, runs, data, options)
    named = scored | {name: scored[row] for name, row in aliases.items() if row in scored}
    write_closing(folder, data)
    claims_with_closed_labels(folder, named, data, failed)
    views(folder, [run for run in runs if run.finished], study_of)
    found = only_five(scored[best].predictions[0])
    curves = found.targets, found.mean, FIVE
    title = f"{TITLE} 4: {best}"
    figures.roc_curves(folder / "figure-4.svg", *curves, title=title, phantom=phantom)
    single = next((run for run in runs if run.row.name == best_first[-1]), None)
    if single and single.finished:
        title = f"{TITLE} 5: {single.row.name}"
        heatmaps.of_examples(folder / "figure-5.svg", single, data, FIVE, title)


def claims_with_closed_labels(
    folder: Path, scored: dict, data: Data, failed: dict[str, str]
) -> None:
    """The claims with every flat row of Table 1 replaced by its control on the labels that CT sees.

    A flat row without a control is left out: claims on it are "not run".
    """
    if not any(name.endswith(CLOSED) for name in scored):
        return
    printed = published.load("pham2019")
    flat = {row for row in printed["row"][printed["table"] == "Table 1"] if "+CT" not in row}

    def with_controls(by_row: dict) -> dict:
        others = {name: each for name, each in by_row.items() if name not in flat}
        return {name.removesuffix(CLOSED): each for name, each in others.items()}

    scoring.write_claims(
        "pham2019",
        folder,
        with_controls(scored),
        data,
        "claims-closed",
        "Claims with flat rows trained on the labels that CT sees",
        failed=with_controls(failed),
    )


def write_closing(folder: Path, data: Data) -> None:
    """closing.csv: how many explicit negatives closing the whole tree would turn positive."""
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


def by_study(found: Predictions, study_of: dict[str, str], pool=np.mean):
    """One prediction a study from those of its images."""
    return predictions.pooled(found, [study_of[image] for image in found.ids], pool)


def only_five(found: Predictions) -> Predictions:
    """The labels of the competition."""
    columns = [list(found.labels).index(label) for label in FIVE]
    return found._replace(
        labels=np.array(FIVE),
        targets=found.targets[:, columns],
        probabilities=found.probabilities[..., columns],
    )


def views(folder: Path, runs: Sequence[Run], study_of: dict[str, str]) -> None:
    """studies.md: the mean AUC of the five by what is made of several images of a study."""

    def mean_auc(found: Predictions) -> float:
        return float(metrics.macro_mean(metrics.auroc(found.targets, found.mean)))

    lines = {}
    for run in runs:
        found = only_five(predictions.load(run.folder / "predictions.npz"))
        mean, largest = (by_study(found, study_of, pool) for pool in (np.mean, np.max))
        lines[f"{run.row.name}, seed {run.seed}"] = {
            "mean of the images": mean_auc(mean),
            "largest": mean_auc(largest),
            "every image": mean_auc(found),
        }
    table = pd.DataFrame(lines).T
    title = f"Mean AUC, {len(found.ids):,} images of {len(mean.ids):,} studies"
    text = f"### {title}\n\n{tables.to_markdown(table)}"
    safefiles.write(folder / "studies.md", text)
    if len(found.ids) > len(mean.ids):
        print("\n" + tables.titled(title, tables.to_text(table)))


def beside_radiologists(
    folder: Path,
    scored: dict[str, scoring.Scored],
    best: str,
    readers: dict[str, pd.DataFrame],
    resamples: int,
    phantom: bool,
) -> pd.DataFrame:
    """The `best` row and the radiologists: public.md, two CSVs and a figure; its table.

    Radiologists have an AUC of their own, and lie below the row's curve or not.

    `readers` are decisions by study; of several seeds, the first is set beside them.
    """
    found = only_five(scored[best].predictions[0])
    decisions = {
        name: of_studies(name, of_reader, found.ids) for name, of_reader in readers.items()
    }
    curves = found.targets, found.mean
    table = scored[best].table
    table = table[table["metric"] == "AUC"].set_index("group").loc[[*FIVE, "mean"]].reset_index()
    if decisions:
        below = radiologists.below_curve(found, decisions, resamples, seed=0)
        each = radiologists.auc_of_each(found, decisions, resamples, seed=0)
        table = pd.concat([table, below, each])
        tables.to_csv(pd.concat([below, each]), folder / "public-radiologists.csv")
    title = f"Public test set, {len(found.ids):,} studies: {best}"
    heading = title + f" ({figures.PHANTOM_WARNING})" * phantom
    note = f"\n{radiologists.AUC_NOTE}\n" if decisions else ""
    page = f"### {heading}\n\n{tables.to_markdown(radiologists.one_line_each(table))}{note}"
    safefiles.write(folder / "public.md", page)
    tables.to_csv(scoring.values(scored), folder / "public.csv")
    print("\n" + tables.titled(heading, tables.to_text(radiologists.one_line_each(table))) + note)
    path = folder / "figure-4-public.svg"
    figures.roc_curves(path, *curves, FIVE, decisions, title=title, phantom=phantom)
    return table


def of_studies(name: str, decisions: pd.DataFrame, studies: Names) -> np.ndarray:
    """A radiologist's decisions on the five labels, in the order of the studies."""
    missing = [study for study in studies if study not in decisions.index]
    if missing:
        raise DataError(
            f"{name}.csv lacks {len(missing):,} of the {len(studies):,} test studies, such "
            f"as {missing[0]}; take the file that belongs to this test set."
        )
    return decisions.loc[list(studies), list(FIVE)].to_numpy()
