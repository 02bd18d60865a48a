"""Chen 2019's numbers from finished runs: Tables 1 and 2, the claims, Figure 3, consistency."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data import label_tree, policies
from evaluation import delong, figures, metrics, tables
from reproduce.engine.options import Options
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import failed_rows, paper_folder
from reproduce.tables import consistency, row_details, scoring
from reproduce.tables.scoring import Scored

PRINTED_NAMES = {"HLUP (ours)": "HLUP", "HLUP-finetune (ours)": "HLUP-finetune"}  # Table 2
ROOT = "Abnormal"
BASELINE, OURS = "BR-all", "HLUP-finetune"  # Figure 3
TWIN = ", same budget"  # ends the names of one-stage rows trained as long as two-stage rows
TREE_CLAIM = "significance-respects-the-tree"


def write(
    runs: Sequence[Run[Any]], data: Data, hierarchy: str, uncertain: str, options: Options
) -> None:
    """Write every table and figure. `uncertain` is the policy for CheXpert's uncertain labels."""
    names, tree = label_tree.HIERARCHIES[hierarchy]
    leaves = [names[label] for label in label_tree.leaves(tree)]
    inner = [names[label] for label in label_tree.inner(tree)]
    test = data.frame[data.of_set("test")]
    truth = policies.hierarchy_targets(test, hierarchy, uncertain)
    abnormal = truth[:, names.index(ROOT)] == 1
    groups = functools.partial(columns_of, leaves=leaves, inner=inner, abnormal=abnormal)
    scored = scoring.score(runs, groups, options.resamples)
    folder, failed = paper_folder("chen2019", options, data), failed_rows(runs)
    judged = {}
    if {BASELINE, OURS} <= scored.keys():
        figure_3(folder, scored, names, inner, data.phantom)
        gains = improvements(scored[OURS], scored[BASELINE], names)
        judged[TREE_CLAIM] = parents_improve_too(gains, label_tree.parent_matrix(tree))
    scoring.write("chen2019", folder, scored, data, PRINTED_NAMES, judged=judged, failed=failed)
    claims_at_equal_budget(folder, scored, data, failed)
    row_details.write(folder, runs, data, options)
    consistency.write(folder, scored)


def columns_of(
    predicted: Sequence[str], leaves: Sequence[str], inner: Sequence[str], abnormal: np.ndarray
) -> Sequence[metrics.Group]:
    """Return Table 1's columns. `abnormal` says which test images are.

    BR-leaf predicts leaves only, and these do not decide it: on CheXpert, Support Devices are a
    leaf outside the tree, and an image may show Lung Opacity and none of the leaves below it.
    """
    if len(predicted) == len(leaves):
        return (metrics.Group("leaf"), metrics.Group(f"leaf given {ROOT}", images=abnormal))
    return metrics.chen(leaves, inner, ROOT)


def claims_at_equal_budget(
    folder: Path, scored: dict[str, Scored], data: Data, failed: dict[str, str]
) -> None:
    """Judge the claims with every one-stage row replaced by its twin of the same budget.

    A one-stage row without a twin is left out, so that claims on it are "not run".
    """
    twins = {name.removesuffix(TWIN): name for name in scored if name.endswith(TWIN)}
    if not twins:
        return
    replaced = {name: scored[name] for name in scored if "finetune" in name}
    replaced |= {name: scored[twin] for name, twin in twins.items()}
    scoring.write_claims(
        "chen2019",
        folder,
        scoring.with_aliases(replaced, PRINTED_NAMES),
        data,
        "claims-equal-budget",
        "Claims at equal budget: one-stage rows trained as long as the two-stage rows",
        failed=failed,
    )


def figure_3(
    folder: Path,
    scored: dict[str, Scored],
    names: Sequence[str],
    inner: Sequence[str],
    phantom: bool,
) -> None:
    """Compare BR-all with HLUP-finetune on every label by DeLong's test, for the first seed."""
    baseline, ours = (scored[name].predictions[0] for name in (BASELINE, OURS))
    compared = delong.table(ours.targets, baseline.mean, ours.mean, names, ours.patients)
    tables.to_csv(compared, folder / "figure-3.csv")  # with Holm's and Benjamini-Hochberg's p
    title = "Chen et al. 2019, Figure 3"
    figure = figures.auc_comparison(
        folder / "figure-3.svg", compared, (BASELINE, OURS), inner, title=title, phantom=phantom
    )
    print(f"Figure 3: {figure}")


def improvements(ours: Scored, baseline: Scored, names: Sequence[str]) -> pd.DataFrame:
    """Return each label's difference in AUC, over all seeds, and its p after Holm's correction.

    p is twice the share of the paired draws on the other side of 0, at least one draw.
    """
    values = [row.table.set_index(scoring.KEYS)["value"] for row in (ours, baseline)]
    gap, p = scoring.gap(ours, baseline), []
    keys = [(name, "AUC") for name in names]
    for key in keys:
        draws = gap.loc[key].dropna() if key in gap.index else pd.Series(dtype=float)
        if draws.empty:
            p.append(np.nan)
            continue
        beyond = min((draws <= 0).sum(), (draws >= 0).sum())
        p.append(min(2 * max(beyond, 1) / len(draws), 1.0))
    difference = (values[0] - values[1]).reindex(pd.MultiIndex.from_tuples(keys)).to_numpy()
    return pd.DataFrame({"label": names, "difference": difference, "p": delong.holm(np.array(p))})


def parents_improve_too(compared: pd.DataFrame, parents: np.ndarray) -> dict[str, str]:
    """Judge "if a child improves significantly, so does its parent" (text below Figure 3).

    `compared` has label, difference and p, one line per label; `parents` is 1 at [child, parent]. A
    label improves significantly if its AUC rises and p is below .05, as in the figure.
    """
    label = compared["label"].to_numpy()
    improved = (compared["difference"] > 0) & (compared["p"] < figures.SIGNIFICANT)
    improved = improved.to_numpy()
    pairs = [(child, parent) for child, parent in np.argwhere(parents > 0) if improved[child]]
    if not pairs:
        note = "no label below another improves significantly, so there is nothing to judge"
        return {"ours": "within noise", "margin": "0 of 0", "our_note": note}
    broken = [
        f"{label[child]} improves, its parent {label[parent]} does not"
        for child, parent in pairs
        if not improved[parent]
    ]
    return {
        "ours": "does not hold" if broken else "holds",
        "margin": f"{len(pairs) - len(broken)} of {len(pairs)}",
        "our_note": "; ".join(["by p over all seeds, after Holm's correction", *broken]),
    }
