"""Ge 2018's numbers from finished runs: Tables 1 to 3, the claims, and which split was scored."""

from collections.abc import Sequence

import pandas as pd

from evaluation import metrics, published, tables
from reproduce import results
from reproduce.run import Data, Run, paper_folder

PRINTED_NAMES = {  # Table 2
    "R18-F-MSML Local": "R18 + R18-F-MSML Local alone",
    "R18-F-MSML Local-Fixed": "R18 + R18-F-MSML Local-Fixed alone",
    "R18-F-MSML Global": "R18 + R18-F-MSML",
}


def report(runs: Sequence[Run], data: Data, options, split: str) -> None:
    """Every table."""
    scored = results.score(runs, lambda names: metrics.GE, options.resamples)
    reason = data.not_comparable
    if split == "official":
        reason = reason or "another split"
    folder = paper_folder("ge2018", options, data)
    results.report("ge2018", folder, scored, reason, PRINTED_NAMES)
    shares = normal_shares(scored)
    tables.write(shares.reset_index(), folder, "normal-share")
    heading = (
        "Share of normal images among a label's negatives: (AUC - D) / (N - D), and counted here"
    )
    print(tables.titled(heading, tables.to_text(shares)))


def normal_shares(scored: dict[str, results.Scored]) -> pd.DataFrame:
    """The share of normal images among negatives that each row's AUC, D-AUC and N-AUC imply.

    Every AUC is a mixture over both kinds of negatives, so this tells which split was scored.
    """
    printed = published.load("ge2018").query("table == 'Table 1'")
    printed = printed.pivot(index="row", columns="column", values="number").reindex(list(scored))
    ours = results.values(scored).query("metric == 'AUC'")
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
