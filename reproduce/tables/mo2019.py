"""Mo 2019's numbers from finished runs: Table I, the claims, Figure 1."""

from collections.abc import Sequence
from typing import Any

from evaluation import figures
from reproduce.engine.options import Options
from reproduce.engine.rows import Data, Run
from reproduce.engine.runs import failed_rows, paper_folder
from reproduce.tables import released_rows, row_details, scoring

FIGURE_1 = "weighted CE"  # ends the names of its baselines
SPLITS = {  # which of the two "7:1:2" splits was scored, noted below the table
    "official": "on the official test list, with 1/8 of the other images for validation",
    "chexnet": "on the public 7:1:2 split by patient, CheXNet's",
}


def write(
    runs: Sequence[Run[Any]],
    data: Data,
    options: Options,
    proposed: str,
    ours: str,
    split: str = "official",
) -> None:
    """Write every table and figure; judge claims on the `proposed` row with `ours` as well."""
    groups = scoring.labels_and_mean
    scored = scoring.score(runs, groups, options.resamples)
    if not options.split_file:  # the verdict names that split
        scored = {name: scoring.with_note(row, SPLITS[split]) for name, row in scored.items()}
    scored, released = released_rows.add(scored, data, options, groups)
    folder, failed = paper_folder("mo2019", options, data), failed_rows(runs)
    scoring.write("mo2019", folder, scored, data, failed=failed, released=released)
    if not scored:
        return
    row_details.write(folder, runs, data, options)
    if ours in scored:
        repaired = {**scored, proposed: scored[ours]}
        heading = f"Claims of the proposed loss, with our repair in its place ({ours})"
        scoring.write_claims(
            "mo2019", folder, repaired, data, "claims-ours", heading, left_row=proposed
        )
    drawn = {
        name: row_scores.predictions[0]
        for name, row_scores in scored.items()
        if name.endswith(FIGURE_1) or name in (proposed, ours)
    }
    title = "Mo et al. 2019, Figure 1"
    figure = figures.roc_by_row(folder / "figure-1.svg", drawn, title, data.phantom)
    print(f"Figure 1: {figure}")
