"""What each row of any paper says at its operating points, by subgroup, and how calibrated it is.

results/PAPER/DATASET/operating-points.csv, .md    each row and label at its threshold
                      subgroups, gaps              with --by: means over labels, largest gaps
                      calibration                  with --calibrate
results/PAPER/DATASET/ROW/seed-N/                  all numbers of one run as CSVs, and two figures

Thresholds and the temperature come from validation.npz. Runs of earlier versions have none: their
thresholds are chosen on the test set, which the tables say.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import safefiles
from evaluation import tables
from reproduce.engine import attributes
from reproduce.engine.rows import PHANTOMS, Data, Run
from reproduce.engine.runs import VALIDATION, load_predictions
from reproduce.tables import details
from reproduce.tables.sample import Sample, of_predictions

WIDTH = 150  # of the printed table, which has few columns


class Shown(NamedTuple):
    """How one kind of numbers is shown to people."""

    title: str
    first: str  # what its lines are
    table: Callable[[pd.DataFrame], pd.DataFrame]


SHOWN = {
    "operating-points": Shown("Operating points: {rule}", "label", details.points_for_people),
    "subgroups": Shown("Subgroups: mean over labels", "subgroup", details.groups_for_people),
    "gaps": Shown("Largest gaps between subgroups", "groups", details.gaps_for_people),
    "calibration": Shown("Calibration", "label", details.calibration_for_people),
}


def samples(folder: Path, digest: str = "") -> tuple[Sample, Sample | None]:
    """A run's predictions of the test and, where it kept them, of the validation images."""
    test = load_predictions(folder, digest)
    about = attributes.of_images(folder.absolute().parents[1], list(test.ids))
    validation = None
    if (folder / VALIDATION).exists():
        kept = load_predictions(folder, digest, VALIDATION)
        validation = of_predictions(kept, {})
    return of_predictions(test, about), validation


def write(folder: Path, runs: Sequence[Run], data: Data, options) -> None:
    """Write the tables of all finished rows; print where they lie, and subgroups as a table."""
    wanted = details.Wanted(
        options.operating_point, options.by, options.calibrate, options.resamples
    )
    made: dict[str, list[pd.DataFrame]] = {}
    notes: dict[str, list[str]] = {}  # sentence -> runs
    for run in runs:
        if not run.finished or not run.digest:  # released by others: none of the images is here
            continue
        sample, validation = samples(run.folder, run.digest)
        frames, parts, remarks = details.analyse(sample, wanted, validation)
        title = f"{folder.parent.name} {run.name}"
        details.write(frames, parts, remarks, run.folder, title=title, phantom=data.phantom)
        for remark in remarks:
            notes.setdefault(remark, []).append(run.name)
        for stem, (_, first, table_of) in SHOWN.items():
            if stem in frames:
                table = table_of(frames[stem]).rename_axis(index=first).reset_index()
                table.insert(0, "row", run.row.name)
                table.insert(1, "seed", run.seed)
                made.setdefault(stem, []).append(table)
    listed = "".join(
        f"- {text}\n" if len(names) > 1 else f"- {names[0]}: {text}\n"
        for text, names in notes.items()
    )
    for stem, of_runs in made.items():
        title, table = SHOWN[stem].title.format(rule=wanted.rule), pd.concat(of_runs)
        table = table.reset_index(drop=True)
        tables.to_csv(table, folder / f"{stem}.csv")
        warning = (
            f"**{PHANTOMS}: these numbers say nothing about patients**\n\n" if data.phantom else ""
        )
        text = f"# {title}\n\n{warning}{tables.to_markdown(table)}\n{listed}"
        safefiles.write(folder / f"{stem}.md", text)
        if stem == "subgroups":
            several = [] if table["seed"].nunique() < 2 else ["seed"]
            named = table.set_index(["row", *several, "subgroup"])
            lines = tables.to_text(named.drop(columns="seed", errors="ignore"), WIDTH)
            print("\n" + tables.titled(title, lines))
    if made:
        print(f"Also written there: {', '.join(f'{stem}.md' for stem in made)}.")
