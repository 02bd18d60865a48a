"""Pham 2019's numbers from finished runs: by study, beside the radiologists, Figures 4 and 5.

A study with several images has one score, the mean of theirs; studies.md shows the results of
taking the largest instead, and of scoring every image by itself. The test set of 500 studies was
hidden in 2019; today anyone can count how many of its three radiologists are below a ROC curve.

In the tables, conditional training as printed has the printed row's name, and our repair of it is
"(repaired)". claims.md judges the former, claims-ours.md the latter.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import safefiles
from data import DataError, chexpert, label_tree, policies
from data.datasets import DATASETS
from data.labels import CHEXPERT
from data.labels import CHEXPERT_COMPETITION as FIVE
from evaluation import Names, figures, metrics, predictions, published, tables
from evaluation.predictions import Predictions
from reproduce.engine.options import Options
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import failed_rows, paper_folder
from reproduce.tables import consistency, heatmaps, radiologists, row_details, scoring
from reproduce.tables.scoring import Scored

TITLE = "Pham et al. 2019, Figure"
# Parts of the names of rows
CLOSED = " (closed labels)"  # flat, with the labels that the repaired CT sees
AS_PRINTED, REPAIRED = " (as printed)", " (repaired)"
STEP_1, TTA, ENSEMBLE = " (step 1)", " (TTA)", "ensemble"
ALSO = {"Pleural Effusion": "Effusion"}  # the same finding in ChestX-ray14
NO_POLICIES = "no label is uncertain in {}"


def five_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the five labels of the competition, as a dataset with these labels calls them."""
    return tuple(label if label in names else ALSO[label] for label in FIVE)


def groups(names: Sequence[str]) -> Sequence[metrics.Group]:
    """Return the mean over the five labels, and those of them that have another name here."""
    five = five_of(names)
    renamed = [
        metrics.Group(as_, (own,)) for as_, own in zip(FIVE, five, strict=True) if as_ != own
    ]
    return [metrics.Group("mean", five), *renamed]


def write(
    runs: Sequence[Run[Any]], data: Data, options: Options, *, single: str, split: str
) -> None:
    """Write every table and figure.

    `single` is the printed row of the best single network; `split` names the split of a dataset
    that has several.
    """
    finals = [run for run in runs if not run.row.name.endswith(STEP_1)]
    folder = paper_folder("pham2019", options, data)
    failed = {**failed_rows(finals)}
    of_images = data.dataset != "chexpert"
    view: Callable[[Predictions], Predictions] = scoring.as_predicted
    study_of: dict[str, str] = {}
    if not of_images:
        study_of = dict(zip(data.frame["image_path"], data.frame["study_id"], strict=True))
        view = functools.partial(by_study, study_of=study_of)
    score = functools.partial(scoring.score, finals, groups, options.resamples, view=view)
    scored = with_images_of_step_1(score("predictions"), runs, data)
    aliases = {"Ours": ENSEMBLE + TTA}
    absent = dict.fromkeys(printed_rows("Table 2"), "quoted from another paper, not run here")
    if of_images:
        title = DATASETS[data.dataset].title
        aliases[single] = "Ignore+CT"
        no_policies = NO_POLICIES.format(title)
        absent |= {row: no_policies for row in printed_rows() if not row.startswith("Ignore")}
        absent[single + TTA] = no_policies
        absent["Ours (test)"] = "of CheXpert's test set alone"
        left_out = "so the rows of other policies are left out, and"
        notes = [f"{no_policies}, {left_out} {single} is Ignore+CT"]
        if not (options.split_file or data.note):
            notes.append(f"{title}, {split} split")
        for note in notes:
            scored = {name: scoring.with_note(row, note) for name, row in scored.items()}
    if not scored:
        scoring.write("pham2019", folder, scored, data, failed=of_reading(failed, AS_PRINTED))
        return
    names = [ENSEMBLE + AS_PRINTED + TTA, ENSEMBLE + AS_PRINTED, single + AS_PRINTED]
    best = next(name for name in (*names, *scored) if name in scored)
    tabled = in_tables(scored)
    if (data.frame["split"] == "public").any():
        public = score("predictions-public")
        readers = chexpert.radiologists(data.folder)
        table = beside_radiologists(folder, public, best, readers, options.resamples, data.phantom)
        if best == names[0]:
            mean = table[table["group"] == "mean"]
            mean = mean[mean["metric"].isin(("AUC", radiologists.BELOW))]
            tabled["Ours (test)"] = public[best]._replace(table=mean)
    scoring.write(
        "pham2019", folder, tabled, data, aliases, failed=in_tables(failed), absent=absent
    )
    claims_of_repair(folder, scored, data, failed, aliases, absent)
    row_details.write(folder, finals, data, options)
    consistency.write(folder, in_tables(scored))
    if not of_images:
        write_closing(folder, data)
        claims_with_closed_labels(folder, scored, data, failed, aliases, absent)
        views(folder, [run for run in finals if run.finished], study_of)
    predicted = only_five(scored[best].predictions[0])
    figures.roc_curves(
        folder / "figure-4.svg",
        predicted.targets,
        predicted.mean,
        predicted.labels,
        title=f"{TITLE} 4: {best}",
        phantom=data.phantom,
    )
    run = next(run for run in finals if run.finished and run.row.name == best)
    five = five_of(list(scored[best].predictions[0].labels))
    heatmaps.examples(folder / "figure-5.svg", run, data, five, f"{TITLE} 5: {best}")


def printed_rows(table: str = "Table 1") -> list[str]:
    """Return the rows of one of the printed tables."""
    printed = published.load("pham2019")
    return list(printed["row"][printed["table"] == table].unique())


def in_tables(by_row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows by their names in the tables: as printed has the printed name."""
    return {name.replace(AS_PRINTED, ""): value for name, value in by_row.items()}


def of_reading(by_row: Mapping[str, Any], reading: str) -> dict[str, Any]:
    """Return the rows of one reading of CT under the printed names, and all flat rows."""
    other = AS_PRINTED if reading == REPAIRED else REPAIRED
    return {name.replace(reading, ""): value for name, value in by_row.items() if other not in name}


def with_images_of_step_1(
    scored: Mapping[str, Scored], runs: Sequence[Run[Any]], data: Data
) -> dict[str, Scored]:
    """Return the rows; those of CT as printed say how many images taught their step 1."""
    noted = dict(scored)
    train = data.of_set("train")
    for row in {run.row.name: run.row for run in runs}.values():  # once for all seeds
        name = row.name.removesuffix(STEP_1)
        if name in noted and name != row.name and name.endswith(AS_PRINTED):
            seen = ~np.isnan(data.targets(row.task).learnt[train]).all(axis=1)
            note = f"as printed: step 1 saw {seen.sum():,} of {len(seen):,} training images"
            noted[name] = scoring.with_note(noted[name], note)
    return noted


def claims_of_repair(
    folder: Path,
    scored: Mapping[str, Scored],
    data: Data,
    failed: Mapping[str, str],
    aliases: Mapping[str, str],
    absent: dict[str, str],
) -> None:
    """Judge the claims with our repair of conditional training in the place of the printed one."""
    if any(REPAIRED in name for name in scored):
        scoring.write_claims(
            "pham2019",
            folder,
            scoring.with_aliases(of_reading(scored, REPAIRED), aliases),
            data,
            "claims-ours",
            "Claims, with our repair of conditional training in its place",
            failed=of_reading(failed, REPAIRED),
            absent=absent,
        )


def claims_with_closed_labels(
    folder: Path,
    scored: Mapping[str, Scored],
    data: Data,
    failed: Mapping[str, str],
    aliases: Mapping[str, str],
    absent: dict[str, str],
) -> None:
    """Judge the repaired rows against flat rows on the closed labels that the repair sees.

    A flat row without such a control is left out, so that claims on it are "not run".
    """
    if any(name.endswith(CLOSED) for name in scored):
        scoring.write_claims(
            "pham2019",
            folder,
            scoring.with_aliases(with_controls(of_reading(scored, REPAIRED)), aliases),
            data,
            "claims-closed",
            "Claims of our repair, with flat rows trained on the labels that it sees",
            failed=with_controls(of_reading(failed, REPAIRED)),
            absent=absent,
        )


def with_controls(by_row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows with every flat row of Table 1 replaced by its control."""
    flat = {row for row in printed_rows() if "+CT" not in row}
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
    five = five_of(list(predicted.labels))
    columns = [list(predicted.labels).index(label) for label in five]
    return predicted._replace(
        labels=np.array(five),
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
        strictly = f"Mean radiologists below the curve: {below['note'].iloc[-1]}."
        note = f"\n{radiologists.AUC_NOTE}\n\n{strictly}\n"
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
