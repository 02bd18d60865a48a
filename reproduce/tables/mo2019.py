"""Mo 2019's numbers from finished runs: Table I, the claims, Figure 1."""

from collections.abc import Sequence

from evaluation import figures, metrics
from reproduce.engine.loop import paper_folder
from reproduce.engine.plan import failed_rows
from reproduce.engine.rows import Data, Run
from reproduce.tables import scoring

FIGURE_1 = "weighted CE"  # what its baselines' names end with


def write(runs: Sequence[Run], data: Data, options, proposed: str, ours: str) -> None:
    """Every table and figure; claims of the `proposed` row also with `ours` in its place."""
    scored = scoring.score(runs, lambda names: metrics.MEAN, options.resamples)
    folder = paper_folder("mo2019", options, data)
    scoring.write("mo2019", folder, scored, data, failed=failed_rows(runs))
    if not scored:
        return
    if ours in scored:
        repaired = {**scored, proposed: scored[ours]}
        heading = f"Claims of the proposed loss with our repair in its place ({ours})"
        scoring.write_claims("mo2019", folder, repaired, "claims-ours", proposed, heading)
    drawn = {
        name: of_row.predictions[0]
        for name, of_row in scored.items()
        if name.endswith(FIGURE_1) or name in (proposed, ours)
    }
    phantom = data.phantom
    figure = figures.roc_by_row(folder / "figure-1.svg", drawn, "Mo et al. 2019, Figure 1", phantom)
    print(f"Figure 1: {figure}")
