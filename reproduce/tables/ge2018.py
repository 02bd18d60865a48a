"""Ge 2018's numbers from finished runs: Tables 1 to 3, the claims, and which split was scored."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from data import labels
from evaluation import metrics, published, tables
from reproduce.engine.options import Options
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import failed_rows, paper_folder
from reproduce.tables import released_rows, row_details, scoring

PRINTED_NAMES = {  # Table 2
    "R18-F-MSML Local": "R18 + R18-F-MSML Local alone",
    "R18-F-MSML Local-Fixed": "R18 + R18-F-MSML Local-Fixed alone",
    "R18-F-MSML Global": "R18 + R18-F-MSML",
}


def columns(_: Sequence[str], shares: Mapping[str, float]) -> Sequence[metrics.Group]:
    """Return Table 1's columns, which are the same for all rows."""
    return metrics.ge(shares)


def write(runs: Sequence[Run[Any]], data: Data, options: Options) -> None:
    """Write every table. W-AUC's weights are the labels' shares of the whole dataset."""
    names = list(labels.CHESTXRAY14)
    groups = functools.partial(columns, shares=metrics.shares(data.frame[names], names))
    runs = sorted(runs, key=row_order(runs))
    scored = scoring.score(runs, groups, options.resamples)
    scored, released = released_rows.add(scored, data, options, groups)
    folder, failed = paper_folder("ge2018", options, data), failed_rows(runs)
    scoring.write("ge2018", folder, scored, data, PRINTED_NAMES, failed=failed, released=released)
    if not scored:
        return
    row_details.write(folder, of_first_split(runs), data, options)
    shares = normal_shares(scored)
    tables.write(shares.reset_index(), folder, "normal-share")
    heading = (
        "Share of normal images among a label's negatives: (AUC - D) / (N - D), and counted here"
    )
    print(tables.titled(heading, tables.to_text(shares)))


def row_order(runs: Sequence[Run[Any]]) -> Callable[[Run[Any]], int]:
    """Return the key that sorts runs by row, in the order of the table, whatever their split."""
    rows = {name: rank for rank, name in enumerate(dict.fromkeys(run.row.name for run in runs))}
    return lambda run: rows[run.row.name]


def of_first_split(runs: Sequence[Run[Any]]) -> list[Run[Any]]:
    """Return the runs on the first of several splits."""
    first = runs[0].settings["data"]["split"]
    return [run for run in runs if run.settings["data"]["split"] == first]


def normal_shares(scored: Mapping[str, scoring.Scored]) -> pd.DataFrame:
    """Return the share of normal images among negatives, implied by each row's AUC, D and N.

    The AUC is a mixture over both kinds of negatives, so the share tells which split was scored.
    """
    printed = published.load("ge2018").query("table == 'Table 1'")
    ours = scoring.values(scored).query("metric == 'AUC'")
    by_source = {
        "published": printed.pivot(index="row", columns="column", values="number"),
        "ours": ours.pivot(index="row", columns="group", values="value"),
    }
    rows = pd.Index(list(scored), name="row")
    table = pd.DataFrame(index=rows)
    for name, auc in by_source.items():
        auc = auc.reindex(rows)
        table[name] = metrics.normal_share(auc["mean"], auc["D"], auc["N"])
    counted = [
        metrics.macro_mean(metrics.actual_normal_share(predicted.targets))
        for predicted in next(iter(scored.values())).predictions
    ]
    return table.assign(counted=np.mean(counted))
