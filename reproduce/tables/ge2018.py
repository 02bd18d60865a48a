"""Ge 2018's numbers from finished runs: Tables 1 to 3, the claims, and which split was scored."""

from collections.abc import Sequence

import pandas as pd

from evaluation import metrics, published, tables
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import failed_rows, paper_folder
from reproduce.tables import released_rows, row_details, scoring

PRINTED_NAMES = {  # Table 2
    "R18-F-MSML Local": "R18 + R18-F-MSML Local alone",
    "R18-F-MSML Local-Fixed": "R18 + R18-F-MSML Local-Fixed alone",
    "R18-F-MSML Global": "R18 + R18-F-MSML",
}


def groups(_: Sequence[str]) -> Sequence[metrics.Group]:
    """Table 1's columns, whatever the labels."""
    return metrics.GE


def write(runs: Sequence[Run], data: Data, options) -> None:
    """Every table."""
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


def normal_shares(scored: dict[str, scoring.Scored]) -> pd.DataFrame:
    """The share of normal images among negatives that each row's AUC, D-AUC and N-AUC imply.

    Every AUC is a mixture over both kinds of negatives, so this tells which split was scored.
    """
    printed = published.load("ge2018").query("table == 'Table 1'")
    printed = printed.pivot(index="row", columns="column", values="number").reindex(list(scored))
    ours = scoring.values(scored).query("metric == 'AUC'")
    ours = ours.pivot(index="row", columns="group", values="value").reindex(list(scored))
    table = pd.DataFrame(
        {
            name: metrics.normal_share(of["mean"], of["D"], of["N"])
            for name, of in (("published", printed), ("ours", ours))
        },
        pd.Index(list(scored), name="row"),
    )
    found = next(iter(scored.values())).predictions[0]
    return table.assign(counted=metrics.macro_mean(metrics.actual_normal_share(found.targets)))
