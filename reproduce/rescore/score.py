"""Scores and tables of predictions that exist already; the command is in __main__.py."""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from data import files, label_tree, labels
from evaluation import (
    EvaluationError,
    bootstrap,
    delong,
    hierarchy,
    metrics,
    published,
    tables,
    uncertainty,
)
from evaluation.metrics import Group
from reproduce import ROOT
from reproduce.rescore import matching
from reproduce.tables import authors, radiologists
from reproduce.tables.radiologists import one_line_each

RESULTS, DOCS, README = ROOT / "results", ROOT / "docs" / "papers", ROOT / "README.md"
START, END = "<!-- generated:rescore -->", "<!-- /generated:rescore -->"


class Paper(NamedTuple):
    row: str  # under which the paper prints the model
    groups: tuple[Group, ...]
    title: str


PAPERS = {
    "pham2019": Paper(
        "Ours (test)",
        (Group("mean"),),
        "Pham et al. 2019: released predictions, 500 studies of the CheXpert test set",
    ),
    "asadi2025": Paper(
        "HBCE",
        (
            *metrics.ASADI,
            Group("mean of the 14 CheXpert labels", labels.CHEXPERT),
            Group("weighted mean of the 14 CheXpert labels", labels.CHEXPERT, mean="positives"),
        ),
        "Asadi et al. 2025: released predictions, 668 images of the CheXpert test set",
    ),
}


# What authors released


def rescore_paper(
    paper: str, found: authors.Released, resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The released predictions' numbers beside the published ones with verdicts, and alone."""
    row, groups, _ = PAPERS[paper]
    scored = found.predictions
    arrays = scored.targets, scored.mean, scored.labels, scored.patients
    ours = bootstrap.table(*arrays, groups, resamples, seed)
    ours = ours[ours["metric"] == "AUC"]
    if found.decisions:
        below = radiologists.below_curve(scored, found.decisions, resamples, seed)
        ours = pd.concat([ours, below])
    printed = published.load(paper)
    printed = printed[(printed["row"] == row) & (printed["split"] == "test")]
    return published.compare(printed, ours.assign(row=row)), ours


def summary(side: pd.DataFrame) -> str:
    """The numbers that the paper prints, to four decimals."""
    compared = side[side["verdict"].isin(["within", "above", "below"])]
    return "\n".join(
        f"- {cell['column']} {cell['metric']}: "
        f"{tables.interval(cell['ours'], cell['low'], cell['high'], decimals)}, published "
        f"{cell['printed']}: {VERDICTS[cell['verdict']]}"
        for cell in compared.to_dict("records")
        for decimals in [len(cell["printed"].partition(".")[2]) + 1]
    )


VERDICTS = {"within": "within the interval", "above": "above it", "below": "below it"}


def page(paper: str, side: pd.DataFrame, ours: pd.DataFrame) -> str:
    """What table.md and docs/papers show."""
    printed = tables.to_markdown(side[side["verdict"] != "not published"])
    by_label = f"### Every label\n\n{tables.to_markdown(one_line_each(ours))}\n{notes(ours)}"
    return (
        "\n\n".join([f"{PAPERS[paper].title}.", summary(side), printed.strip(), by_label]).strip()
        + "\n"
    )


def front_page(paper: str, side: pd.DataFrame) -> str:
    """What README.md shows."""
    return f"{PAPERS[paper].title}:\n\n{summary(side)}\n"


def write_docs(paper: str, side: pd.DataFrame, text: str) -> None:
    """Put the page into docs/papers and its summary on the front page, between their markers."""
    _fill(DOCS / f"{paper}.md", START, END, text)
    start, end = front_markers(paper)
    _fill(README, start, end, front_page(paper, side))


def front_markers(paper: str) -> tuple[str, str]:
    return f"<!-- generated:{paper} -->", f"<!-- /generated:{paper} -->"


def _fill(path: Path, start: str, end: str, text: str) -> None:
    before, _, rest = path.read_text(encoding="utf-8").partition(start)
    _, _, after = rest.partition(end)
    files.write(path, f"{before}{start}\n{text}{end}{after}")


def released_command(options: argparse.Namespace) -> None:
    paper = options.paper
    if options.download:
        authors.download(paper, options.released, options.base_url)
    found = authors.read(paper, options.released)
    side, ours = rescore_paper(paper, found, options.resamples, options.seed)
    text = page(paper, side, ours)
    out = (options.results_dir or RESULTS) / paper / "released"
    tables.to_csv(side, out / "table.csv")
    files.write(out / "table.md", text)
    if options.write_docs:
        write_docs(paper, side, text)
    from evaluation import figures  # Matplotlib takes half a second

    figures.roc_curves(
        out / "roc.svg",
        found.predictions.targets,
        found.predictions.mean,
        found.predictions.labels,
        found.decisions,
        PAPERS[paper].title,
    )
    print(f"{PAPERS[paper].title}\n\n{tables.to_text(one_line_each(ours))}\n{notes(ours)}")
    print(f"Beside the published values\n{summary(side)}\n")
    print(f"Written to {out}: table.csv, table.md, roc.svg.")


# Anyone's predictions


def score(given: matching.Aligned, groups: tuple[Group, ...], resamples: int, seed: int):
    """Long form: every label and group, then calibration and what the uncertainty tells."""
    members = given.models[0]
    mean = members.mean(axis=0)
    table = bootstrap.table(
        given.targets, mean, given.labels, given.patients, groups, resamples, seed
    )
    if mean.min() < 0 or mean.max() > 1:
        return table
    extra = {
        "Brier": uncertainty.brier(given.targets, mean),
        "ECE": uncertainty.calibration_error(given.targets, mean),
    }
    if len(members) > 1:
        doubt = uncertainty.spread(members)
        wrong = uncertainty.errors(given.targets, mean)
        extra["errors found (AUC of the spread)"] = metrics.auroc(wrong, doubt)
        extra["AURC"] = uncertainty.risk_coverage_area(wrong, doubt)
    frames = [
        pd.DataFrame({"group": given.labels, "metric": name, "value": values})
        for name, values in extra.items()
    ]
    return pd.concat([table, *frames], ignore_index=True)


def tree_groups(name: str, predicted: list[str]) -> tuple[tuple[Group, ...], np.ndarray, list[str]]:
    """Chen's groups over a hierarchy, its parent matrix, and its labels as they are predicted."""
    names, tree = label_tree.HIERARCHIES[name]
    written = {matching.key(label): label for label in predicted}
    missing = [label for label in names if matching.key(label) not in written]
    if missing:
        raise EvaluationError(
            f"The tree {name!r} needs {len(missing)} labels more: {', '.join(missing)}."
        )
    own = [written[matching.key(label)] for label in names]
    leaves = label_tree.leaves(tree)
    groups = [
        Group("leaf", [own[label] for label in leaves]),
        Group("high-level", [own[label] for label in label_tree.inner(tree)]),
    ]
    if "Abnormal" in names:
        root = names.index("Abnormal")
        below = [own[leaf] for leaf in leaves if label_tree.ancestor_matrix(tree)[leaf, root]]
        groups += metrics.chen(below, (), own[root])[2:]
    return tuple(groups), label_tree.parent_matrix(tree), own


def normal_share(table: pd.DataFrame, targets: np.ndarray) -> pd.DataFrame:
    """Whether AUC, D-AUC and N-AUC fit the images that were scored; a wrong split shows here."""
    values = table[table["metric"] == "AUC"].set_index("group")["value"]
    implied = metrics.normal_share(values["mean"], values["D"], values["N"])
    actual = metrics.macro_mean(metrics.actual_normal_share(targets))
    return pd.DataFrame({"implied by AUC, D and N": [float(implied)], "counted": [float(actual)]})


def notes(table: pd.DataFrame) -> str:
    """What is undefined, and where resamples had to be left out."""
    noted = table[(table["metric"] == "AUC") & (table["note"] != "")]
    return "".join(f"- {row['group']}: {row['note']}\n" for row in noted.to_dict("records"))


def compare(given: matching.Aligned, groups: tuple[Group, ...], resamples: int, seed: int):
    """Paired differences with bootstrap intervals, and DeLong's test of every label's AUC."""
    first, second = (model.mean(axis=0) for model in given.models)
    frame = bootstrap.compare(
        given.targets, first, second, given.labels, given.patients, groups, resamples, seed
    )
    tested = delong.table(given.targets, first, second, given.labels)
    tested = tested.rename(columns={"label": "group"}).assign(metric="AUC")
    columns = ["group", "metric", "p", "p_holm", "p_bh"]
    return frame.merge(tested[columns], "left", ["group", "metric"])


def compared_for_people(frame: pd.DataFrame) -> pd.DataFrame:
    shown = frame[["group", "metric", "first", "second"]].copy()
    cells = frame[["difference", "low", "high"]].to_numpy()
    shown["second − first"] = [tables.interval(*cell, decimals=4) for cell in cells]
    for column, heading in (("p", "DeLong p"), ("p_holm", "Holm"), ("p_bh", "BH")):
        shown[heading] = ["" if np.isnan(p) else f"{p:.2g}" for p in frame[column]]
    return shown


def own_command(options: argparse.Namespace) -> None:
    given = matching.align(
        options.predictions,
        options.truth,
        options.compare,
        options.id_column,
        options.patient_column,
        options.labels,
        options.allow_missing,
    )
    groups, broken = metrics.ASADI, None
    if options.ge:
        groups += metrics.GE[1:]  # the mean is there
    if options.tree:
        of_tree, parents, own = tree_groups(options.tree, given.labels)
        groups += of_tree
        columns = [given.labels.index(label) for label in own]
        broken = hierarchy.violations(given.models[0].mean(axis=0)[:, columns], parents, own)
    frames = {"table": score(given, groups, options.resamples, options.seed)}
    parts = {"Scores": one_line_each(frames["table"])}
    given.warnings.extend(notes(frames["table"]).replace("- ", "").splitlines())
    if options.compare:
        frames["compare"] = compare(given, groups, options.resamples, options.seed)
        name = f"{options.compare} (second) against {options.predictions} (first)"
        parts[name] = compared_for_people(frames["compare"])
    if options.ge:
        parts["Images without a finding among the negatives"] = normal_share(
            frames["table"], given.targets
        )
    if broken is not None:
        frames["violations"] = parts["Children above their parents"] = broken
    for warning in given.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for title, part in parts.items():
        print(tables.titled(title, tables.to_text(part)))
    if options.results_dir:
        write_own(options, given, frames, parts)


def write_own(
    options: argparse.Namespace,
    given: matching.Aligned,
    frames: dict[str, pd.DataFrame],
    parts: dict[str, pd.DataFrame],
) -> None:
    """The frames as CSV, what was printed as table.md, and the figures."""
    from evaluation import figures  # Matplotlib takes half a second

    out = options.results_dir / "rescored" / options.predictions.stem
    for name, frame in frames.items():
        tables.to_csv(frame, out / f"{name}.csv")
    pages = [f"## {title}\n\n{tables.to_markdown(part)}" for title, part in parts.items()]
    warned = "".join(f"- {warning}\n" for warning in given.warnings)
    text = "\n".join([f"# {options.predictions}\n", *([warned] if warned else []), *pages])
    files.write(out / "table.md", text)
    means = [model.mean(axis=0) for model in given.models]
    figures.roc_curves(out / "roc.svg", given.targets, means[0], given.labels)
    if len(means) == 2:
        tested = delong.table(given.targets, *means, given.labels)
        names = options.predictions.stem, options.compare.stem
        figures.auc_comparison(out / "compare.svg", tested, names)
    print(f"Written to {out}.")
