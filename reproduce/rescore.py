"""Scores predictions that exist already: the authors' released ones, or anyone's.

    python -m reproduce.rescore pham2019 --released DIR [--download]
    python -m reproduce.rescore asadi2025 --released DIR [--download]
    python -m reproduce.rescore --predictions FILE --truth FILE [--compare FILE] [--out DIR]
    python -m reproduce.rescore --predictions results/…/predictions.npz

Intervals are of 1,000 resamples of the patients. A CSV has ids in its first column and one column
a label; a predictions.npz of a run holds its own truth.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from data import label_tree, labels
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
from reproduce import aligned, released

ROOT = Path(__file__).parents[1]
RESULTS, DOCS, README = ROOT / "results", ROOT / "docs" / "papers", ROOT / "README.md"
START, END = "<!-- generated:rescore -->", "<!-- /generated:rescore -->"
BELOW = "radiologists below the curve"
TREES = {
    "plco": (labels.PLCO, label_tree.PLCO),
    "chexpert": (labels.CHEXPERT, label_tree.CHEXPERT),
    "asadi": (labels.ASADI, label_tree.ASADI),
    "chestxray14": (labels.CHESTXRAY14_HIERARCHY, label_tree.CHESTXRAY14_HIERARCHY),
    "chexpert-abnormal": (labels.CHEXPERT_HIERARCHY, label_tree.CHEXPERT_HIERARCHY),
}


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
    paper: str, found: released.Released, resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The released predictions' numbers beside the published ones with verdicts, and alone."""
    row, groups, _ = PAPERS[paper]
    arrays = found.targets, found.probabilities
    ours = bootstrap.table(*arrays, found.labels, found.patients, groups, resamples, seed)
    ours = ours[ours["metric"] == "AUC"]
    if found.readers:
        ours = pd.concat([ours, readers_below(found, resamples, seed)])
    printed = published.load(paper)
    printed = printed[(printed["row"] == row) & (printed["split"] == "test")]
    return published.compare(printed, ours.assign(row=row)), ours


def readers_below(found: released.Released, resamples: int, seed: int) -> pd.DataFrame:
    """How many readers' operating points lie below the ROC curve, per label and on average."""
    decisions = np.stack([*found.readers.values()])

    def count(rows: np.ndarray) -> np.ndarray:
        arrays = found.targets[rows], found.probabilities[rows], decisions[:, rows]
        below = metrics.under_curve(*arrays).sum(axis=0)
        return np.append(below, metrics.macro_mean(below))

    draws = bootstrap.each(count, found.patients, resamples, seed)
    value = count(np.arange(len(found.targets)))
    groups = [*found.labels, "mean"]
    measured = pd.DataFrame({"group": groups, "metric": BELOW, "value": value})
    return bootstrap.with_intervals(measured, draws.T)


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
    by_label = f"### Every label\n\n{tables.to_markdown(wide(ours))}\n{notes(ours)}"
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
    path.write_text(f"{before}{start}\n{text}{end}{after}", encoding="utf-8")


def released_command(options: argparse.Namespace) -> None:
    paper = options.paper
    if options.download:
        released.download(paper, options.released, options.base_url)
    found = released.read(paper, options.released)
    side, ours = rescore_paper(paper, found, options.resamples, options.seed)
    text = page(paper, side, ours)
    out = options.out or RESULTS / paper / "released"
    tables.to_csv(side, out / "table.csv")
    (out / "table.md").write_text(text, encoding="utf-8")
    if options.write_docs:
        write_docs(paper, side, text)
    from evaluation import figures  # Matplotlib takes half a second

    figures.roc_curves(
        out / "roc.svg",
        found.targets,
        found.probabilities,
        found.labels,
        found.readers,
        PAPERS[paper].title,
    )
    print(f"{PAPERS[paper].title}\n\n{tables.to_text(wide(ours))}\n{notes(ours)}")
    print(f"Beside the published values\n{summary(side)}\n")
    print(f"Written to {out}: table.csv, table.md, roc.svg.")


# Anyone's predictions


def score(given: aligned.Aligned, groups: tuple[Group, ...], resamples: int, seed: int):
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
    names, tree = TREES[name]
    written = {aligned.key(label): label for label in predicted}
    missing = [label for label in names if aligned.key(label) not in written]
    if missing:
        raise EvaluationError(
            f"The tree {name!r} needs {len(missing)} labels more: {', '.join(missing)}."
        )
    own = [written[aligned.key(label)] for label in names]
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


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One line a label or group, for people."""
    cells = [
        tables.interval(
            *cell[["value", "low", "high"]], decimals=1 if cell["metric"] == BELOW else 4
        )
        for _, cell in table.iterrows()
    ]
    cells = table.assign(cell=cells).pivot(index="group", columns="metric", values="cell")
    scored = table[table["metric"] == "AUC"].set_index("group")
    cells = cells.reindex(index=scored.index, columns=table["metric"].unique()).fillna("")
    counts = scored[["positives", "images"]].astype(int)
    return cells.join(counts).rename_axis(index=None, columns=None)


def notes(table: pd.DataFrame) -> str:
    """What is undefined, and where resamples had to be left out."""
    noted = table[(table["metric"] == "AUC") & (table["note"] != "")]
    return "".join(f"- {row['group']}: {row['note']}\n" for row in noted.to_dict("records"))


def compare(given: aligned.Aligned, groups: tuple[Group, ...], resamples: int, seed: int):
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
    given = aligned.align(
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
    parts = {"Scores": wide(frames["table"])}
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
    if options.out:
        write_own(options, given, frames, parts)


def write_own(
    options: argparse.Namespace,
    given: aligned.Aligned,
    frames: dict[str, pd.DataFrame],
    parts: dict[str, pd.DataFrame],
) -> None:
    """The frames as CSV, what was printed as table.md, and the figures."""
    from evaluation import figures  # Matplotlib takes half a second

    for name, frame in frames.items():
        tables.to_csv(frame, options.out / f"{name}.csv")
    pages = [f"## {title}\n\n{tables.to_markdown(part)}" for title, part in parts.items()]
    warned = "".join(f"- {warning}\n" for warning in given.warnings)
    text = "\n".join([f"# {options.predictions}\n", *([warned] if warned else []), *pages])
    (options.out / "table.md").write_text(text, encoding="utf-8")
    means = [model.mean(axis=0) for model in given.models]
    figures.roc_curves(options.out / "roc.svg", given.targets, means[0], given.labels)
    if len(means) == 2:
        tested = delong.table(given.targets, *means, given.labels)
        names = options.predictions.stem, options.compare.stem
        figures.auc_comparison(options.out / "compare.svg", tested, names)
    print(f"Written to {options.out}.")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m reproduce.rescore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paper", nargs="?", choices=[*PAPERS], help="whose released predictions")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for tables and figures")
    parser.add_argument("--resamples", type=int, default=1000, help="of the patients (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (%(default)s)")
    theirs = parser.add_argument_group("released by a paper's authors")
    theirs.add_argument("--released", type=Path, metavar="DIR", help="where their files lie")
    theirs.add_argument("--download", action="store_true", help="fetch what is missing there")
    theirs.add_argument("--base-url", metavar="URL", help="fetch from this mirror instead")
    theirs.add_argument("--write-docs", action="store_true", help="also into docs/papers")
    own = parser.add_argument_group("anyone's predictions")
    own.add_argument("--predictions", type=Path, metavar="FILE", help="CSV or predictions.npz")
    own.add_argument("--truth", type=Path, metavar="FILE", help="CSV of 0, 1 or blank")
    own.add_argument("--compare", type=Path, metavar="FILE", help="a second model's predictions")
    own.add_argument(
        "--labels", type=lambda text: text.split(","), metavar="A,B", help="only these"
    )
    own.add_argument("--id-column", metavar="C", help="which matches rows (the first)")
    own.add_argument("--patient-column", metavar="C", help="in truth or predictions")
    own.add_argument("--allow-missing", action="store_true", help="score only predicted images")
    own.add_argument("--tree", choices=[*TREES], help="adds leaf and high-level means, violations")
    own.add_argument("--ge", action="store_true", help="adds W-, D- and N-AUC of Ge et al. 2018")
    options = parser.parse_args(arguments)
    if bool(options.paper) == bool(options.predictions):
        parser.error("name a paper (pham2019, asadi2025), or --predictions FILE")
    if options.paper and not options.released:
        parser.error(f"say with --released DIR where the files of {options.paper} lie, or belong")
    ignored = (options.truth, options.compare, options.tree, options.labels, options.ge)
    if options.paper and any(ignored):
        parser.error("flags for anyone's predictions do not go with a paper's released ones")
    if options.resamples < 1:
        parser.error("--resamples must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        (released_command if options.paper else own_command)(options)
    except EvaluationError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
