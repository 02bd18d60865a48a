"""Chen 2019's numbers from finished runs: Tables 1 and 2, the claims, Figure 3."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data import label_tree
from evaluation import delong, figures, metrics, tables
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import failed_rows, paper_folder
from reproduce.tables import row_details, scoring

PRINTED_NAMES = {"HLUP (ours)": "HLUP", "HLUP-finetune (ours)": "HLUP-finetune"}  # Table 2
BASELINE, OURS = "BR-all", "HLUP-finetune"  # Figure 3
TWIN = ", same budget"  # ends the names of one-stage rows trained as long as two-stage rows
TREE_CLAIM = "significance-respects-the-tree"


def write(runs: Sequence[Run], data: Data, hierarchy: str, options) -> None:
    """Every table and figure."""
    names, tree = label_tree.HIERARCHIES[hierarchy]
    leaves = [names[label] for label in label_tree.leaves(tree)]
    inner = [names[label] for label in label_tree.inner(tree)]

    def groups(predicted: Sequence[str]) -> Sequence[metrics.Group]:
        """Table 1's columns; BR-leaf has no high-level labels, and any leaf means Abnormal."""
        if len(predicted) == len(leaves):
            given = metrics.Group("leaf given Abnormal", given=metrics.ANY)
            return (metrics.Group("leaf"), given)
        return metrics.chen(leaves, inner)

    scored = scoring.score(runs, groups, options.resamples)
    folder, judged = paper_folder("chen2019", options, data), {}
    if {BASELINE, OURS} <= scored.keys():
        compared = figure_3(folder, scored, names, inner, data.phantom)
        parents = label_tree.parent_matrix(tree)
        judged = {TREE_CLAIM: parents_improve_too(compared, parents)}
    failed = failed_rows(runs)
    scoring.write("chen2019", folder, scored, data, PRINTED_NAMES, judged=judged, failed=failed)
    claims_at_equal_budget(folder, scored, data, failed)
    row_details.write(folder, runs, data, options)


def claims_at_equal_budget(folder: Path, scored: dict, data: Data, failed: dict[str, str]) -> None:
    """The claims with every one-stage row replaced by its twin of the same budget.

    A one-stage row without a twin is left out: claims on it are "not run".
    """
    twins = {name.removesuffix(TWIN): name for name in scored if name.endswith(TWIN)}
    if not twins:
        return
    replaced = {name: scored[name] for name in scored if "finetune" in name}
    replaced |= {name: scored[twin] for name, twin in twins.items()}
    named = replaced | {
        name: replaced[row] for name, row in PRINTED_NAMES.items() if row in replaced
    }
    heading = "Claims at equal budget: one-stage rows trained as long as the two-stage rows"
    scoring.write_claims(
        "chen2019", folder, named, data, "claims-equal-budget", heading, failed=failed
    )


def figure_3(folder: Path, scored: dict, names, inner: Sequence[str], phantom: bool):
    """BR-all against HLUP-finetune on every label, by DeLong's test; the first seed's."""
    baseline, ours = (scored[name].predictions[0] for name in (BASELINE, OURS))
    compared = delong.table(ours.targets, baseline.mean, ours.mean, names)
    tables.to_csv(compared, folder / "figure-3.csv")  # with Holm's and Benjamini-Hochberg's p
    title = "Chen et al. 2019, Figure 3"
    figure = figures.auc_comparison(
        folder / "figure-3.svg", compared, (BASELINE, OURS), inner, title=title, phantom=phantom
    )
    print(f"Figure 3: {figure}")
    return compared


def parents_improve_too(compared: pd.DataFrame, parents: np.ndarray) -> dict:
    """The verdict on "if a child improves significantly, so does its parent" (below Figure 3).

    `compared` is Figure 3's table, a line a label; `parents` is 1 at [child, parent]. A label
    improves significantly where its AUC rises and DeLong's p is below .05, as in the figure.
    """
    improved = (compared["difference"] > 0) & (compared["p"] < figures.SIGNIFICANT)
    label, improved = compared["label"].to_numpy(), improved.to_numpy()
    pairs = [(child, parent) for child, parent in np.argwhere(parents > 0) if improved[child]]
    without = [(child, parent) for child, parent in pairs if not improved[parent]]
    if not pairs:
        note = "no label below another improves significantly, so there is nothing to judge"
        return {"ours": "within noise", "margin": "0 of 0", "our_note": note}
    broken = [
        f"{label[child]} improves, its parent {label[parent]} not" for child, parent in without
    ]
    return {
        "ours": "does not hold" if without else "holds",
        "margin": f"{len(pairs) - len(without)} of {len(pairs)}",
        "our_note": "; ".join(["by DeLong's p of the first seed", *broken]),
    }
