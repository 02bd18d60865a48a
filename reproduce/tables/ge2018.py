"""Ge 2018's numbers from finished runs: Tables 1 to 3, the claims, and which split was scored."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

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


def groups(_: Sequence[str]) -> Sequence[metrics.Group]:
    """Return Table 1's columns, which are the same for all labels."""
    return metrics.GE


def write(runs: Sequence[Run[Any]], data: Data, options: Options) -> None:
    """Write every table."""
    scored = scoring.score(runs, groups, options.resamples)
    scored, released = released_rows.add(scored, data, options, groups)
    folder, failed = paper_folder("ge2018", options, data), failed_rows(runs)
    scoring.write("ge2018", folder, scored, data, PRINTED_NAMES, failed=failed, released=released)
    if not scored:
        return
    row_details.write(folder, runs, data, options)
    shares = normal_shares(scored)
    tables.write(shares.reset_index(), folder, "normal-share")
    heading = (
        "Share of normal images among a label's negatives: (AUC - D) / (N - D), and counted here"
    )
    print(tables.titled(heading, tables.to_text(shares)))


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
    targets = next(iter(scored.values())).predictions[0].targets
    return table.assign(counted=metrics.macro_mean(metrics.actual_normal_share(targets)))
