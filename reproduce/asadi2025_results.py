"""Asadi 2025's numbers from finished runs: the tables, what a penalty changed, Figures 2 and 3."""

from collections.abc import Sequence
from pathlib import Path

from data import label_tree, labels
from evaluation import figures, metrics
from evaluation.metrics import Group
from reproduce import RunError, activations, penalty_tables, released, results
from reproduce.run import Data, Run, paper_folder

ORIGINAL = labels.ASADI[:14]
OF_14 = (
    Group("mean of the 14 CheXpert labels", ORIGINAL),
    Group("weighted mean of the 14 CheXpert labels", ORIGINAL, mean="positives"),
)


def groups(names: Sequence[str]) -> tuple[Group, ...]:
    """Means over 21 and over 14 labels; a network with 14 outputs has only the latter."""
    return (*metrics.ASADI, *OF_14) if len(names) == len(labels.ASADI) else OF_14


def authors(data: Data, config, options) -> list[Run]:
    """The authors' predictions as a run, where --released names them: beside real images alone."""
    if config.released == "none":
        return []
    place = Path(config.released)
    if data.phantom:
        raise RunError(
            "--released: the authors' predictions are of radiographs and stand beside no drawn "
            "ones; give --data-dir as well, or score them alone with python -m reproduce.rescore "
            f"asadi2025 --released {place}."
        )
    theirs = paper_folder("asadi2025", options, data) / "released-predictions" / "seed-0"
    return [released.as_run("asadi2025", place, theirs, "HBCE (authors' predictions)")]


def report(
    runs: Sequence[Run],
    data: Data,
    options,
    home: str,
    not_comparable: str | None,
    rows: tuple[str, str, str],
) -> None:
    """Every table and figure; `rows` are plain BCE, the printed row, and that with MC dropout."""
    baseline, paper, dropped = rows
    folder = paper_folder("asadi2025", options, data)
    scored = results.score(runs, groups, options.resamples)
    results.report("asadi2025", folder, scored, not_comparable, {"HBCE": paper})
    means = [group.name for group in (*metrics.ASADI, *OF_14)]
    parents = label_tree.parent_matrix(label_tree.ASADI)
    penalty_tables.report(folder, scored, labels.ASADI, parents, means, baseline, (dropped, paper))
    phantom = data.phantom
    if paper in scored:
        found = scored[paper].predictions[0]
        title = f"Asadi et al. 2025, Figure 2: {paper}, scale 0.5"
        curves = found.targets, found.mean, found.labels
        figures.roc_curves(folder / "figure-2.svg", *curves, title=title, phantom=phantom)
    if dropped in scored:
        title = f"Asadi et al. 2025, Figure 3: {paper}; labels that are true are bold"
        activations.figure(
            folder / "figure-3.png",
            scored[dropped].folders[0],
            Path(home),
            [*range(15, 21), 14, *range(14)],  # as printed: high-level labels and Uncertain on top
            ORIGINAL,
            f"{title} ({figures.PHANTOM_WARNING})" if phantom else title,
        )
