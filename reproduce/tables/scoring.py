"""From finished runs to tables: every number is computed from predictions.npz, none by a network.

results/chen2019/plco/    table.csv, table.md     the printed tables with ours beside them
                          values.csv              every label and group of every row
                          claims.csv, claims.md   what the paper claims, and what ours say
results/chen2019/plco/HLCP/seed-0/metrics.csv     one run's labels and groups
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluation import bootstrap, claims, published, tables
from evaluation.metrics import Group
from evaluation.predictions import Predictions
from reproduce.engine import state
from reproduce.engine.rows import Data, Run

KEYS = ["group", "metric"]


class Scored(NamedTuple):
    """A row's numbers, the mean over its seeds, and the resampled values behind each of them."""

    table: pd.DataFrame  # group, metric, value, low, high, positives, images, note
    draws: pd.DataFrame  # (group, metric) x resamples
    predictions: Sequence[Predictions]  # of every seed
    folders: Sequence[Path] = ()  # of the same runs


def score(
    runs: Sequence[Run],
    groups: Callable[[Sequence[str]], Sequence[Group]],
    resamples: int,
    of: str = "predictions",
    view: Callable[[Predictions], Predictions] = lambda found: found,
) -> dict[str, Scored]:
    """Every row's numbers with patient-bootstrap intervals; `groups` are those of some labels.

    `view` is what is scored of the predictions, for instance studies instead of images.

    Rows are resampled alike, so their draws are paired. The interval of several seeds is that of
    their mean: it speaks of other patients, not of other seeds.
    """
    scored = {}
    for name, of_row in itertools.groupby(runs, key=lambda run: run.row.name):
        measured, draws, predictions, folders = [], [], [], []
        for run in of_row:
            found = view(state.load_predictions(run.folder, run.digest, f"{of}.npz"))
            labels = list(found.labels)
            one = bootstrap.measure(
                found.targets, found.mean, labels, found.patients, groups(labels), resamples
            )
            metrics_of = run.folder / f"{of.replace('predictions', 'metrics')}.csv"
            tables.to_csv(bootstrap.with_intervals(*one), metrics_of)
            measured.append(one[0])
            draws.append(one[1])
            predictions.append(found)
            folders.append(run.folder)
            said = run.row.note
        table = measured[0].assign(value=np.mean([each["value"] for each in measured], axis=0))
        if len(measured) > 1:
            spread = np.std([each["value"] for each in measured], axis=0, ddof=1)
            table["note"] = [
                f"{note}; " * bool(note)
                + f"mean of {len(measured)} seeds, deviation {of_seeds:.4f}"
                for note, of_seeds in zip(table["note"], spread, strict=True)
            ]
        if said:
            table["note"] = [f"{note}; {said}".strip("; ") for note in table["note"]]
        mean = np.mean(draws, axis=0)
        scored[name] = Scored(
            bootstrap.with_intervals(table, mean),
            pd.DataFrame(mean, index=pd.MultiIndex.from_frame(table[KEYS])),
            predictions,
            folders,
        )
    return scored


def values(scored: dict[str, Scored]) -> pd.DataFrame:
    """All rows in one frame."""
    return pd.concat(
        [of_row.table.assign(row=name) for name, of_row in scored.items()], ignore_index=True
    )


def differences(scored: dict[str, Scored]) -> pd.DataFrame:
    """Intervals of every row's lead over every other, from paired draws."""
    frames = []
    for (left, one), (right, other) in itertools.combinations(scored.items(), 2):
        gap = (one.draws - other.draws.reindex(one.draws.index)).dropna(how="all")
        ends = gap.quantile([0.025, 0.975], axis=1).T.set_axis(["low", "high"], axis=1)
        frames.append(ends.reset_index().assign(left_row=left, right_row=right))
    columns = ["left_row", "right_row", *KEYS, "low", "high"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


def write(
    paper: str,
    folder: Path,
    scored: dict[str, Scored],
    data: Data,
    aliases: dict[str, str] | None = None,
) -> None:
    """Write and print the paper's tables and claims; `aliases` are printed names of our rows."""
    printed = published.load(paper)
    named = scored | {name: scored[row] for name, row in (aliases or {}).items() if row in scored}
    ours = values(named)
    side = published.compare(printed, _printed_cells(ours, printed), data.not_comparable)
    runs = {
        name: " ".join(each.relative_to(folder).as_posix() for each in of_row.folders)
        for name, of_row in named.items()
    }  # where each of our numbers comes from
    side["runs"] = side["row"].map(runs).where(side["ours"].notna(), "")
    tables.write(side, folder, "table")
    own = values(scored)
    tables.to_csv(own.assign(runs=own["row"].map(runs)), folder / "values.csv")
    print("\n" + tables.to_text(side))
    write_claims(paper, folder, named)
    print(f"Written to {folder}: table.md, values.csv, claims.md and, for each run, metrics.csv.")


def write_claims(
    paper: str,
    folder: Path,
    scored: dict[str, Scored],
    stem: str = "claims",
    left_row: str | None = None,
    heading: str = "Claims: what the paper's own numbers say of each, and what ours do",
) -> None:
    """Write and print the paper's claims, or those on one row; rows go by their printed names."""
    checked = claims.check(paper, values(scored), differences(scored))
    checked = checked[(checked["left_row"] == left_row) | (left_row is None)]
    tables.write(checked, folder, stem)
    shown = checked[checked["ours"] != "not run"]
    if len(shown):
        columns = ["left_row", "right_row", "column", "metric", "published", "ours"]
        text = tables.to_text(shown.set_index("claim")[columns], width=150)
        print(tables.titled(heading, text))


def _printed_cells(ours: pd.DataFrame, printed: pd.DataFrame) -> pd.DataFrame:
    """Our numbers that have a place in some table of the paper; values.csv has all of them.

    A row that the paper prints has the columns of the tables that print it, any other has all.
    """
    columns = printed[["table", "column", "metric"]].drop_duplicates()
    places = printed[["table", "row"]].drop_duplicates().merge(columns, on="table")
    cells = pd.MultiIndex.from_frame(places[["row", "column", "metric"]])
    ran = pd.MultiIndex.from_frame(ours[["row", *KEYS]])
    ours_alone = ~ours["row"].isin(printed["row"]) & ran.droplevel("row").isin(cells.droplevel(0))
    return ours[ours_alone | ran.isin(cells)]
