"""Compute every table of a paper from its finished runs' predictions.npz, without a network.

results/chen2019/plco/    table.csv, table.md     the printed tables with our numbers
                          values.csv              every label and group of every row
                          claims.csv, claims.md   the paper's claims, judged by its and our numbers
results/chen2019/plco/HLCP/seed-0-1a2b3c4d/metrics.csv     one run's labels and groups
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import gammaincinv

import safefiles
from evaluation import bootstrap, claims, metrics, published, tables
from evaluation.metrics import METRICS, Group
from evaluation.predictions import Predictions
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import load_predictions, readable_record

KEYS = ["group", "metric"]
VALUES = [*KEYS, "value", "low", "high", "positives", "images", "note"]
ONE_SEED = "one seed: the interval covers other patients, not other seeds"
COLLAPSED = "collapsed: (nearly) the same probabilities for every image"

Groups = Callable[[Sequence[str]], Sequence[Group]]  # from the labels of a row


class Scored(NamedTuple):
    """A row's numbers, averaged over its seeds, and the resampled values behind each of them."""

    table: pd.DataFrame  # group, metric, value, low, high, positives, images, note
    draws: pd.DataFrame  # (group, metric) x resamples of patients and seeds
    predictions: Sequence[Predictions]  # of every seed
    folders: Sequence[Path] = ()  # of the same runs


def labels_and_mean(_: Sequence[str]) -> Sequence[Group]:
    """Return each label and the mean over all labels."""
    return metrics.MEAN


def as_predicted(predictions: Predictions) -> Predictions:
    """Return predictions unchanged."""
    return predictions


def score(
    runs: Sequence[Run[Any]],
    groups: Groups,
    resamples: int,
    stem: str = "predictions",
    view: Callable[[Predictions], Predictions] = as_predicted,
) -> dict[str, Scored]:
    """Return each row's numbers with bootstrap intervals, averaged over its seeds.

    `stem` names the predictions file of each run. `view` changes what is scored, for instance
    from images to studies.

    Every row is resampled with the same patients, so that two rows' draws are paired. The interval
    of one seed covers other patients; that of several seeds covers other seeds too (`over_seeds`).
    """
    finished = [run for run in runs if (run.folder / f"{stem}.npz").exists()]
    by_row = itertools.groupby(finished, key=lambda run: run.row.name)
    return {name: _score_row(list(seeds), groups, resamples, stem, view) for name, seeds in by_row}


def _score_row(
    runs: Sequence[Run[Any]],
    groups: Groups,
    resamples: int,
    stem: str,
    view: Callable[[Predictions], Predictions],
) -> Scored:
    """Score the seeds of one row; write the numbers of each seed into its run's folder."""
    predictions, tables_by_seed, draws_by_seed = [], [], []
    for run in runs:
        predicted = view(load_predictions(run.folder, run.digest, f"{stem}.npz"))
        table, draws = measure(predicted, groups, resamples)
        metrics_csv = run.folder / f"{stem.replace('predictions', 'metrics')}.csv"
        tables.to_csv(bootstrap.with_intervals(table, draws), metrics_csv)
        predictions.append(predicted)
        tables_by_seed.append(table)
        draws_by_seed.append(draws)
    points = np.array([each["value"] for each in tables_by_seed], float)
    draws = over_seeds(np.stack(draws_by_seed), points, [run.seed for run in runs])
    table = bootstrap.with_intervals(_mean_table(tables_by_seed, counted(runs)), draws)
    bounded = table["metric"].isin(METRICS)  # draws over seeds may leave [0, 1]
    table.loc[bounded, ["low", "high"]] = table.loc[bounded, ["low", "high"]].clip(0, 1)
    chosen = [(readable_record(run.folder) or {}).get("chosen", "") for run in runs]
    scored = Scored(table, by_key(draws, table), predictions, [run.folder for run in runs])
    for note in (collapse_note(runs, predictions), runs[0].row.note, *chosen):
        scored = with_note(scored, note)
    return scored


def measure(
    predicted: Predictions, groups: Groups, resamples: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the numbers of one network's predictions, and the resampled values of each."""
    labels = list(predicted.labels)
    arrays = predicted.targets, predicted.mean, labels, predicted.patients, groups(labels)
    return bootstrap.measure(*arrays, resamples=resamples)


def by_key(draws: np.ndarray, table: pd.DataFrame) -> pd.DataFrame:
    """Return resampled values indexed by the group and metric of each line of a table."""
    return pd.DataFrame(draws, index=pd.MultiIndex.from_frame(table[KEYS]))


def over_seeds(draws: np.ndarray, values: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """Return draws of the mean over seeds: (seeds, lines, resamples) -> (lines, resamples).

    `values` are the numbers that the draws belong to, (seeds, lines). A run on another random split
    counts as another seed.

    To the mean of the seeds' resampled values, each draw adds t * s / sqrt(S): s is the deviation
    of the S values, and t has Student's distribution with S - 1 degrees of freedom. It is made of S
    normal numbers g and a chi-square number, as sum(g * (value - mean)) / sqrt(S * chi-square).
    Rows with the same seeds get the same numbers, so their differences pair seeds as well as
    patients. The draws of a single seed are returned unchanged.
    """
    count, resamples = len(draws), draws.shape[-1]
    first: np.ndarray = draws[0]
    if count == 1:
        return first
    rng = np.random.default_rng([count, *seeds])
    normal = rng.standard_normal((count, resamples))
    even = (rng.permutation(resamples) + 0.5) / resamples  # random tails would vary too much
    chi_square = 2 * gammaincinv((count - 1) / 2, even)
    if count == 2:  # only the difference of both counts
        t = np.tan(np.pi * (even - 0.5)) / np.sqrt(2)
        normal, chi_square = np.stack([t, -t]), np.ones(resamples)
    by_seed = values - values.mean(axis=0)
    drawn: np.ndarray = draws.mean(axis=0) + by_seed.T @ normal / np.sqrt(count * chi_square)
    return drawn


def counted(runs: Sequence[Run[Any]]) -> str:
    """Say how many runs of a row there are, such as "3 seeds", "3 splits", "6 runs (2 splits)"."""
    splits = {run.settings.get("data", {}).get("split") for run in runs}
    if len(splits) == 1:
        return f"{len(runs)} seeds"
    if len(splits) == len(runs):
        return f"{len(runs)} splits"
    return f"{len(runs)} runs ({len(splits)} splits)"


def _mean_table(by_seed: Sequence[pd.DataFrame], counted: str) -> pd.DataFrame:
    """Average each value over runs; note how many there are and how they differ."""
    values = np.array([table["value"] for table in by_seed])
    mean = by_seed[0].assign(value=values.mean(axis=0))
    notes = [ONE_SEED] * len(mean)
    if len(by_seed) > 1:
        spread = values.std(axis=0, ddof=1)
        notes = [
            f"mean of {counted}" + ("" if np.isnan(each) else f", seed SD {each:.4f}")
            for each in spread
        ]
    return mean.assign(note=[*map(_joined, mean["note"], notes)])


def collapse_note(runs: Sequence[Run[Any]], predictions: Sequence[Predictions]) -> str:
    """Say which seeds of a row predict (nearly) the same for every image; empty if none does."""
    seeds = [
        str(run.seed)
        for run, predicted in zip(runs, predictions, strict=True)
        if metrics.collapsed(predicted.mean)
    ]
    if seeds and len(runs) > 1:
        return f"{COLLAPSED} (seed {', '.join(seeds)})"
    return COLLAPSED if seeds else ""


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def values(scored: Mapping[str, Scored]) -> pd.DataFrame:
    """Return the numbers of all rows in one frame."""
    if not scored:
        return pd.DataFrame(columns=[*VALUES, "row"]).astype({"value": float})
    frames = [row_scores.table.assign(row=name) for name, row_scores in scored.items()]
    return pd.concat(frames, ignore_index=True)


def differences(scored: Mapping[str, Scored]) -> pd.DataFrame:
    """Return the interval of every row minus every later row, from paired draws."""
    frames = []
    for (left, one), (right, other) in itertools.combinations(scored.items(), 2):
        ends = gap(one, other).quantile([0.025, 0.975], axis=1).T.set_axis(["low", "high"], axis=1)
        frames.append(ends.reset_index().assign(left_row=left, right_row=right))
    columns = ["left_row", "right_row", *KEYS, "low", "high"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


def paired_intervals(scored: Mapping[str, Scored]) -> claims.Intervals:
    """Return a function that gives the intervals of differences between rows, from their draws."""
    values_of = {name: row.table.set_index(KEYS)["value"] for name, row in scored.items()}

    @functools.cache
    def between(left: str, right: str) -> pd.DataFrame:
        return gap(scored[left], scored[right])

    def intervals(
        left: str, cells: Sequence[tuple[str, str, str]], level: float
    ) -> claims.Ends | None:
        known = left in scored and all(right in scored for right, *_ in cells)
        if not known or not all((*key,) in between(left, right).index for right, *key in cells):
            return None
        draws = np.array([between(left, right).loc[(*key,)] for right, *key in cells], float)
        points = np.array(
            [values_of[left][(*key,)] - values_of[right][(*key,)] for right, *key in cells]
        )
        low, high = np.array([bootstrap.interval(each, level) for each in draws]).T
        draws = np.where(np.isnan(draws), points[:, None], draws)
        return claims.Ends(low, high, *bootstrap.simultaneous(points, draws, level))

    return intervals


def gap(one: Scored, other: Scored) -> pd.DataFrame:
    """Return the paired draws of one row minus another."""
    paired = (one.draws - other.draws.reindex(one.draws.index)).dropna(how="all")
    return _stretched(paired, one)


def _stretched(paired: pd.DataFrame, one: Scored) -> pd.DataFrame:
    """Return the draws of a difference, stretched where a label has few positives or negatives."""
    counts = one.table.set_index(KEYS)
    fewest = np.minimum(counts["positives"], counts["images"] - counts["positives"])
    labels = {label for predicted in one.predictions for label in predicted.labels}
    few = fewest[fewest.index.get_level_values("group").isin(labels)]
    for key, cases in few[few < bootstrap.FEW].items():
        if key in paired.index:
            paired.loc[key] = bootstrap.stretch_few(paired.loc[key].to_numpy(), int(cases))
    return paired


def write(
    paper: str,
    folder: Path,
    scored: dict[str, Scored],
    data: Data,
    aliases: dict[str, str] | None = None,
    *,
    failed: dict[str, str] | None = None,
    judged: dict[str, dict[str, str]] | None = None,
    released: dict[str, Scored] | None = None,
    absent: dict[str, str] | None = None,
) -> None:
    """Write and print the paper's tables and claims.

    `aliases`: printed name -> our row.
    `failed`: row without predictions -> reason ("NaN in epoch 2", "needs HLCP").
    `judged`: verdicts that the paper's own tables give on claims (see `claims.check`).
    `released`: rows of other authors (see `released_rows`), shown in the tables, not in claims.
    `absent`: printed row that cannot be run on this dataset -> reason.
    """
    printed, aliases = published.load(paper), aliases or {}
    failed, released = failed or {}, released or {}
    scored = scored | {
        name: with_note(scored[name], f"another seed failed: {reason}")
        for name, reason in failed.items()
        if name in scored
    }
    missing = {name: reason for name, reason in failed.items() if name not in scored}
    if data.note:
        scored = {name: with_note(row_scores, data.note) for name, row_scores in scored.items()}
    named = with_aliases(scored, aliases)
    named_missing = missing | {
        name: missing[row] for name, row in aliases.items() if row in missing and name not in named
    }
    cells = _printed_cells(values(named | released), printed)
    side = published.compare(printed, cells, data.not_comparable, named_missing)
    side["verdict"] = side["verdict"].mask(side["row"].isin(released), published.RELEASED)
    runs = {  # the folders that each of our numbers comes from
        name: " ".join(each.relative_to(folder).as_posix() for each in row_scores.folders)
        for name, row_scores in named.items()
    }
    side["runs"] = side["row"].map(runs).where(side["ours"].notna(), "")
    tables.write(side, folder, "table")
    every = values(scored | released)
    own = pd.concat([every, _without_values(missing, scored, printed)], ignore_index=True)
    own["runs"] = [runs.get(row, "") for row in own["row"]]
    tables.to_csv(own, folder / "values.csv")
    print("\n" + tables.to_text(side))
    claimed = write_claims(
        paper, folder, named, data, failed=named_missing, judged=judged, absent=absent
    )
    pages = "table.md, values.csv" + ", claims.md" * claimed
    print(f"Written to {folder}: {pages} and, for each run, metrics.csv.")


def with_aliases(scored: dict[str, Scored], aliases: Mapping[str, str]) -> dict[str, Scored]:
    """Return the rows, and those with another printed name under that as well."""
    return scored | {name: scored[row] for name, row in aliases.items() if row in scored}


def with_note(row_scores: Scored, note: str) -> Scored:
    """Return a row with one more note on each of its numbers."""
    notes = [_joined(own, note) for own in row_scores.table["note"]]
    return row_scores._replace(table=row_scores.table.assign(note=notes))


def _without_values(
    failed: dict[str, str], scored: dict[str, Scored], printed: pd.DataFrame
) -> pd.DataFrame:
    """Return lines for values.csv of the rows that failed: every group and metric, no values."""
    if scored:
        keys = next(iter(scored.values())).table[KEYS]
    else:
        keys = printed.rename(columns={"column": "group"})[KEYS].drop_duplicates()
    empty = {"value": np.nan, "low": np.nan, "high": np.nan}
    frames = [
        keys.assign(**empty, note=published.FAILED + reason, row=row)
        for row, reason in failed.items()
    ]
    return pd.concat(frames) if frames else pd.DataFrame()


def write_claims(
    paper: str,
    folder: Path,
    scored: Mapping[str, Scored],
    data: Data,
    stem: str = "claims",
    heading: str = "Claims, judged by the paper's own numbers and by ours",
    *,
    left_row: str | None = None,
    failed: dict[str, str] | None = None,
    judged: dict[str, dict[str, str]] | None = None,
    absent: dict[str, str] | None = None,
) -> bool:
    """Write and print the paper's claims, or those on one row; return False if there are none.

    The rows in `scored` and `failed` have their printed names.
    """
    ours = values(scored), paired_intervals(scored)
    checked = claims.check(paper, *ours, failed=failed, judged=judged, absent=absent)
    checked = checked[(checked["left_row"] == left_row) | (left_row is None)]
    if checked.empty:
        return False
    reason = data.not_comparable
    tables.to_csv(checked.assign(not_comparable=reason or ""), folder / f"{stem}.csv")
    safefiles.write(
        folder / f"{stem}.md", tables.claims_page(checked, f"{paper}. {heading}", reason)
    )
    shown = checked[checked["ours"] != claims.NOT_RUN]
    if len(shown):
        columns = ["left_row", "right_row", "column", "metric", "published", "ours"]
        if shown["size"].any():
            columns.append("size")  # only its verdict; claims.md has all of it
            shown = shown.assign(size=shown["size"].str.partition(" (")[0])
        no_interval = shown["our_note"].str.startswith("no interval")
        shown = shown.assign(
            ours=shown["ours"] + no_interval.map({True: " (no interval)", False: ""})
        )
        text = tables.to_text(shown.set_index("claim")[columns], width=165)
        warning = f"*** {tables.warning(reason)} ***\n" if reason else ""
        print(tables.titled(heading, warning + text))
    return True


def _printed_cells(ours: pd.DataFrame, printed: pd.DataFrame) -> pd.DataFrame:
    """Return our numbers that belong in a printed table; values.csv has all of them.

    A row that the paper prints gets the columns of the tables that print it, any other row all.
    """
    columns = printed[["table", "column", "metric"]].drop_duplicates()
    printed_rows = printed[["table", "row"]].drop_duplicates().merge(columns, on="table")
    cells = pd.MultiIndex.from_frame(printed_rows[["row", "column", "metric"]])
    ran = pd.MultiIndex.from_frame(ours[["row", *KEYS]])
    ours_alone = ~ours["row"].isin(printed["row"]) & ran.droplevel("row").isin(cells.droplevel(0))
    return ours[ours_alone | ran.isin(cells)]
