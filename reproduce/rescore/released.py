"""What authors released, scored anew beside the numbers that they printed."""

import argparse
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from data import files, labels
from evaluation import bootstrap, metrics, published, tables
from evaluation.metrics import Group
from reproduce import ROOT
from reproduce.rescore import details, lists
from reproduce.rescore.score import notes, text_width
from reproduce.tables import authors, radiologists
from reproduce.tables.radiologists import one_line_each

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
    ours = bootstrap.table(*arrays, groups, resamples, seed)
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
    released = authors.read(paper, options.released)
    side, ours = rescore_paper(paper, released, options.resamples, options.seed)
    text = page(paper, side, ours)
    out = (options.results_dir or RESULTS) / paper / "released"
    tables.to_csv(side, out / "table.csv")
    files.write(out / "table.md", text)
    if options.write_docs:
        write_docs(paper, side, text)
    from evaluation import figures  # Matplotlib takes half a second

    figures.roc_curves(
        out / "roc.svg",
        released.predictions.targets,
        released.predictions.mean,
        released.predictions.labels,
        released.decisions,
        PAPERS[paper].title,
    )
    text = tables.to_text(one_line_each(ours), text_width())
    print(f"{PAPERS[paper].title}\n\n{text}\n{notes(ours)}")
    print(f"Beside the published values\n{summary(side)}\n")
    print(f"Written to {out}: table.csv, table.md, roc.svg.")


