"""Pham 2019's numbers from finished runs: by study, beside the radiologists, Figures 4 and 5.

A study with several images has one score, the mean of theirs; studies.md shows what the largest, or
every image by itself, would give. The test set of 500 studies was hidden in 2019; today anyone can
count how many of its three radiologists lie below a ROC curve.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data import DataError, chexpert
from data.labels import CHEXPERT_COMPETITION as FIVE
from evaluation import figures, metrics, predict, tables
from reproduce import examples, rescore, results
from reproduce.released import Released
from reproduce.run import Data, Run, paper_folder

TITLE = "Pham et al. 2019, Figure"


def report(runs: Sequence[Run], data: Data, config, options, home: str, rows: Sequence[str]):
    """Every table and figure; `rows` are the final model's and the next best's, the single last."""
    folder = paper_folder("pham2019", options, data)
    phantom = data.phantom
    study_of = dict(zip(data.frame["image_path"], data.frame["study_id"], strict=True))

    def score(of: str) -> dict[str, results.Scored]:
        return results.score(
            runs,
            lambda names: [metrics.Group("mean", FIVE)],
            options.resamples,
            of,
            lambda found: by_study(found, study_of),
        )

    scored, beside = score("predictions"), {}
    best = next(name for name in (*rows, *scored) if name in scored)
    if (data.frame["split"] == "public").any():
        public = score("predictions-public")
        readers = chexpert.radiologists(home)
        table = beside_radiologists(folder, public, best, readers, options.resamples, phantom)
        if best == rows[0]:
            table = table[table["group"] == "mean"]
            beside["Ours (test)"] = public[best]._replace(table=table)
    results.report("pham2019", folder, scored | beside, data.not_comparable, {"Ours": rows[0]})
    views(folder, runs, study_of)
    found = only_five(scored[best].predictions[0])
    curves = found.targets, found.mean, FIVE
    figures.roc_curves(folder / "figure-4.svg", *curves, None, f"{TITLE} 4: {best}", phantom)
    single = next((run for run in runs if run.row.name == rows[-1]), None)
    if single:
        title = f"{TITLE} 5: {single.row.name}"
        examples.draw(folder / "figure-5.svg", single, data, config, options, FIVE, title)


def by_study(found: predict.Predictions, study_of: dict[str, str], pool=np.mean):
    """One prediction a study from those of its images."""
    return predict.pooled(found, [study_of[image] for image in found.ids], pool)


def only_five(found: predict.Predictions) -> predict.Predictions:
    """The labels of the competition."""
    columns = [list(found.labels).index(label) for label in FIVE]
    return found._replace(
        labels=np.array(FIVE),
        targets=found.targets[:, columns],
        probabilities=found.probabilities[..., columns],
    )


def views(folder: Path, runs: Sequence[Run], study_of: dict[str, str]) -> None:
    """studies.md: the mean AUC of the five by what is made of several images of a study."""

    def mean_auc(found: predict.Predictions) -> float:
        return float(metrics.macro_mean(metrics.auroc(found.targets, found.mean)))

    lines = {}
    for run in runs:
        found = only_five(predict.load(run.folder / "predictions.npz"))
        mean, largest = (by_study(found, study_of, pool) for pool in (np.mean, np.max))
        lines[f"{run.row.name}, seed {run.seed}"] = {
            "mean of the images": mean_auc(mean),
            "largest": mean_auc(largest),
            "every image": mean_auc(found),
        }
    table = pd.DataFrame(lines).T
    title = f"Mean AUC, {len(found.ids):,} images of {len(mean.ids):,} studies"
    text = f"### {title}\n\n{tables.to_markdown(table)}"
    (folder / "studies.md").write_text(text, encoding="utf-8")
    if len(found.ids) > len(mean.ids):
        print("\n" + tables.titled(title, tables.to_text(table)))


def beside_radiologists(
    folder: Path,
    scored: dict[str, results.Scored],
    best: str,
    readers: dict[str, pd.DataFrame],
    resamples: int,
    phantom: bool,
) -> pd.DataFrame:
    """AUC and radiologists below the curve of the `best` row; public.md, public.csv, a figure.

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
        shown = Released(FIVE, found.patients, *curves, decisions)
        table = pd.concat([table, rescore.readers_below(shown, resamples, seed=0)])
    title = f"Public test set, {len(found.ids):,} studies: {best}"
    heading = title + f" ({figures.PHANTOM_WARNING})" * phantom
    page = f"### {heading}\n\n{tables.to_markdown(rescore.wide(table))}"
    (folder / "public.md").write_text(page, encoding="utf-8")
    tables.to_csv(results.values(scored), folder / "public.csv")
    print("\n" + tables.titled(heading, tables.to_text(rescore.wide(table))))
    figures.roc_curves(folder / "figure-4-public.svg", *curves, FIVE, decisions, title, phantom)
    return table


def of_studies(name: str, decisions: pd.DataFrame, studies: Sequence[str]) -> np.ndarray:
    """A radiologist's decisions on the five labels, in the order of the studies."""
    missing = [study for study in studies if study not in decisions.index]
    if missing:
        raise DataError(
            f"{name}.csv lacks {len(missing):,} of the {len(studies):,} test studies, such "
            f"as {missing[0]}; take the file that belongs to this test set."
        )
    return decisions.loc[list(studies), list(FIVE)].to_numpy()
