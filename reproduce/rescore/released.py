"""What authors released, scored anew beside the numbers that they printed."""

import argparse
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import safefiles
from data import labels
from evaluation import bootstrap, metrics, published, tables
from evaluation.metrics import Group
from reproduce import ROOT
from reproduce.rescore import analyses, lists
from reproduce.rescore.score import notes, text_width
from reproduce.tables import authors, details, radiologists
from reproduce.tables.radiologists import one_line_each
from reproduce.tables.sample import of_predictions

RESULTS, DOCS, README = ROOT / "results", ROOT / "docs" / "papers", ROOT / "README.md"
START, END = "<!-- generated:rescore -->", "<!-- /generated:rescore -->"


class Paper(NamedTuple):
    row: str  # under which the paper prints the model
    groups: tuple[Group, ...]
    title: str
    split: str = "test"  # under which the paper prints it


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
    "zech2018": Paper(
        "reproduce-chexnet",
        (Group("mean", metrics=("AUC",)),),
        "Zech, reproduce-chexnet: released predictions of a DenseNet-121 on the CheXNet test list "
        "of ChestX-ray14, 22,433 images",
        "CheXNet test",
    ),
}


def rescore_paper(
    paper: str, released: authors.Released, resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The released predictions' numbers beside the published ones with verdicts, and alone."""
    row, groups, _, split = PAPERS[paper]
    scored = released.predictions
    arrays = scored.targets, scored.mean, scored.labels, scored.patients
    ours = bootstrap.table(*arrays, groups, resamples=resamples, seed=seed)
    ours = ours[ours["metric"] == "AUC"]
    if released.decisions:
        below = radiologists.below_curve(scored, released.decisions, resamples, seed)
        ours = pd.concat([ours, below])
    printed = published.load(paper)
    printed = printed[(printed["row"] == row) & (printed["split"] == split)]
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


MOST_LINES = 5  # on the front page
VERDICTS = {"within": "within the interval", "above": "above it", "below": "below it"}


def page(paper: str, side: pd.DataFrame, ours: pd.DataFrame, lines: list[str]) -> str:
    """What table.md and docs/papers show; `lines` are sentences about the files."""
    printed = tables.to_markdown(side[side["verdict"] != "not published"])
    by_label = f"### Every label\n\n{tables.to_markdown(one_line_each(ours))}\n{notes(ours)}"
    return (
        "\n\n".join(
            [f"{PAPERS[paper].title}.", summary(side), printed.strip(), by_label.strip(), *lines]
        )
        + "\n"
    )


def front_page(paper: str, side: pd.DataFrame) -> str:
    """What README.md shows: the printed numbers, or of many the mean and how many agree."""
    text = summary(side)
    if text.count("\n") >= MOST_LINES:
        mean = side[(side["column"] == "mean") & (side["metric"] == "AUC")].iloc[0]
        inside = int((side["verdict"] == "within").sum())
        printed = int(side["verdict"].isin([*VERDICTS]).sum())
        text = (
            f"- mean AUC: {tables.interval(mean['ours'], mean['low'], mean['high'], 4)}\n"
            f"- published AUCs of labels within our interval: {inside} of {printed}"
        )
    return f"{PAPERS[paper].title}:\n\n{text}\n"


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
    safefiles.write(path, f"{before}{start}\n{text}{end}{after}")


def released_command(options: argparse.Namespace) -> None:
    paper = options.paper
    if options.download:
        authors.download(paper, options.released, options.base_url)
    released = authors.read(paper, options.released, options.truth)
    side, ours = rescore_paper(paper, released, options.resamples, options.seed)
    sample = of_predictions(released.predictions, released.about)
    frames, parts, remarks = analyses.further(sample, options, None)
    text = page(paper, side, ours, about(paper, released))
    out = (options.results_dir or RESULTS) / paper / "released"
    tables.to_csv(side, out / "table.csv")
    safefiles.write(out / "table.md", text)
    if options.write_docs:
        write_docs(paper, side, text)
    details.write(frames, parts, remarks, out, title=PAPERS[paper].title)
    from evaluation import figures  # Matplotlib takes half a second

    arrays = sample.targets, sample.probabilities, sample.labels
    figures.roc_curves(out / "roc.svg", *arrays, released.decisions, title=PAPERS[paper].title)
    shown = tables.to_text(one_line_each(ours), text_width())
    print(f"{PAPERS[paper].title}\n\n{shown}\n{notes(ours)}")
    for title, part in parts.items():
        print(tables.titled(title, tables.to_text(part, text_width())))
    print("\n".join([*about(paper, released), *remarks]) + "\n")
    print(f"Beside the published values\n{summary(side)}\n")
    print(f"Written to {out}.")


def about(paper: str, released: authors.Released) -> list[str]:
    """Sentences about the files: which images, what the authors computed, source and licence."""
    lines = [lists.describe(list(released.predictions.ids))]
    if released.own_auc:
        scored = released.predictions
        auc = metrics.auroc(scored.targets, scored.mean)
        names = list(scored.labels)
        away = [abs(auc[names.index(name)] - own) for name, own in released.own_auc.items()]
        equal = sum(difference < 1e-6 for difference in away)
        lines.append(
            f"The AUCs that its author released (aucs.csv) equal ours in {equal} of {len(away)} "
            "labels, to six decimals."
        )
    return [*filter(None, lines), source(paper)]


def source(paper: str) -> str:
    """Where the files come from and on which terms, in one sentence."""
    of = authors.SOURCES[paper]
    return (
        f"Source: github.com/{of.repository} at {of.commit[:12]}, files known by their SHA-256. "
        f"Licence: {of.licence}."
    )
