"""Chen 2019's numbers from finished runs: Tables 1 and 2, the claims, Figure 3."""

from collections.abc import Sequence
from pathlib import Path

from data import label_tree
from evaluation import delong, figures, metrics, tables
from reproduce.engine.loop import paper_folder
from reproduce.engine.rows import Data, Run
from reproduce.tables import scoring

PRINTED_NAMES = {"HLUP (ours)": "HLUP", "HLUP-finetune (ours)": "HLUP-finetune"}  # Table 2
BASELINE, OURS = "BR-all", "HLUP-finetune"  # Figure 3


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
    folder = paper_folder("chen2019", options, data)
    scoring.write("chen2019", folder, scored, data, PRINTED_NAMES)
    if {BASELINE, OURS} <= scored.keys():
        figure_3(folder, scored, names, inner, data.phantom)


def figure_3(folder: Path, scored: dict, names, inner: Sequence[str], phantom: bool) -> None:
    """BR-all against HLUP-finetune on every label, by DeLong's test; the first seed's."""
    baseline, ours = (scored[name].predictions[0] for name in (BASELINE, OURS))
    compared = delong.table(ours.targets, baseline.mean, ours.mean, names)
    tables.to_csv(compared, folder / "figure-3.csv")  # with Holm's and Benjamini-Hochberg's p
    title = "Chen et al. 2019, Figure 3"
    figure = figures.auc_comparison(
        folder / "figure-3.svg", compared, (BASELINE, OURS), inner, title, phantom
    )
    print(f"Figure 3: {figure}")
