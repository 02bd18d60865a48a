"""Write the operating points, subgroups and calibration of a paper's rows.

results/PAPER/DATASET/operating-points.csv, .md    each row and label at its threshold
                      subgroups, gaps              with --by: means over labels, largest gaps
                      calibration                  with --calibrate
results/PAPER/DATASET/ROW/seed-N-DIGEST/           all numbers of one run as CSVs, and two figures

Thresholds and the temperature come from validation.npz. Runs of earlier versions have none: their
thresholds are chosen on the test set, and the tables say so.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import safefiles
from evaluation import tables
from reproduce.engine import attributes
from reproduce.engine.options import Options
from reproduce.engine.rows import PHANTOMS, Data, Run
from reproduce.engine.runs import VALIDATION, load_predictions
from reproduce.tables import details
from reproduce.tables.details import Sample, of_predictions

WIDTH = 150  # of the printed table, which has few columns


PAGES = {  # file -> title, heading of the first column
    "operating-points": ("Operating points: {rule}", "label"),
    "subgroups": ("Subgroups: mean over labels", "subgroup"),
    "gaps": ("Largest gaps between subgroups", "groups"),
    "calibration": ("Calibration", "label"),
}


def samples(folder: Path, digest: str = "") -> tuple[Sample, Sample | None]:
    """Return a run's predictions of the test images and, if it has any, of validation images."""
    test = load_predictions(folder, digest)
    about = attributes.of_images(folder.absolute().parents[1], list(test.ids))
    validation = None
    if (folder / VALIDATION).exists():
        validation = of_predictions(load_predictions(folder, digest, VALIDATION), {})
    return of_predictions(test, about), validation


def write(folder: Path, runs: Sequence[Run[Any]], data: Data, options: Options) -> None:
    """Write the tables of all finished rows; print the subgroups and where the tables are."""
    rule = options.operating_point
    titles = {stem: heading.format(rule=rule) for stem, (heading, _) in PAGES.items()}
    by_page: dict[str, list[pd.DataFrame]] = {}
    notes: dict[str, list[str]] = {}  # sentence -> runs
    for run in runs:
        if not run.finished or not run.digest:  # released by others: none of the images is here
            continue
        sample, validation = samples(run.folder, run.digest)
        frames, parts, remarks = details.analyse(
            sample,
            validation,
            rule=rule,
            by=options.by,
            calibrate=options.calibrate,
            resamples=options.resamples,
        )
        title = f"{folder.parent.name} {run.name}"
        details.write(frames, parts, remarks, run.folder, title=title, phantom=data.phantom)
        for remark in remarks:
            notes.setdefault(remark, []).append(run.name)
        for stem, (_, first) in PAGES.items():
            if titles[stem] not in parts:
                continue
            table = parts[titles[stem]].rename_axis(index=first).reset_index()
            table.insert(0, "row", run.row.name)
            table.insert(1, "seed", run.seed)
            by_page.setdefault(stem, []).append(table)
    listed = [
        f"- {sentence}" if len(names) > 1 else f"- {names[0]}: {sentence}"
        for sentence, names in notes.items()
    ]
    stems = [stem for stem in PAGES if stem in by_page]
    for stem in stems:
        table = pd.concat(by_page[stem], ignore_index=True)
        tables.to_csv(table, folder / f"{stem}.csv")
        lines = [f"# {titles[stem]}\n"]
        if data.phantom:
            lines.append(f"**{PHANTOMS}: these numbers say nothing about patients**\n")
        lines += [tables.to_markdown(table), *listed]
        safefiles.write(folder / f"{stem}.md", "\n".join(lines) + "\n")
        if stem == "subgroups":
            print_subgroups(table)
    if stems:
        print(f"Also written there: {', '.join(f'{stem}.md' for stem in stems)}.")


def print_subgroups(table: pd.DataFrame) -> None:
    """Print the subgroups of all rows, with a column for the seed if there are several."""
    seed = ["seed"] if table["seed"].nunique() > 1 else []
    named = table.set_index(["row", *seed, "subgroup"]).drop(columns="seed", errors="ignore")
    print("\n" + tables.titled(PAGES["subgroups"][0], tables.to_text(named, WIDTH)))
