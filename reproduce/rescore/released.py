"""Score the predictions that authors released, beside the numbers that they printed."""

import argparse
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import safefiles
from data import labels
from evaluation import bootstrap, metrics, published, tables
from evaluation.metrics import Group
from reproduce import ROOT
from reproduce.rescore import lists
from reproduce.rescore.score import further_analyses, notes, print_parts, text_width
from reproduce.tables import authors, details, radiologists
from reproduce.tables.details import of_predictions
from reproduce.tables.radiologists import one_line_each

DOCS, README = ROOT / "docs" / "papers", ROOT / "README.md"
START, END = "<!-- generated:rescore -->", "<!-- /generated:rescore -->"
MOST_LINES = 5  # on the front page
COMPARED = (published.EQUAL, published.DIFFERS, published.COMPATIBLE, "above", "below")


class Paper(NamedTuple):
    """Where a paper prints the model whose predictions were released."""

    row: str
    groups: tuple[Group, ...]
    title: str
    split: str = "test"


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


class InShort(NamedTuple):
    """Many printed numbers in short: our mean AUC, and how many have which verdict."""

    mean_auc: str
    verdicts: str


def rescore_paper(
    paper: str, released: authors.Released, resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return our numbers beside the published ones with verdicts, and ours alone."""
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
    side = published.compare(printed, ours.assign(row=row))
    if authors.SOURCES[paper].same_images:
        again = side["verdict"].isin(["within", "above", "below", "no interval"])
        side.loc[again, "verdict"] = [*map(recomputed, side["printed"][again], side["ours"][again])]
    side["verdict"] = side["verdict"].replace("within", published.COMPATIBLE)
    return side, ours


def recomputed(printed: str, ours: float) -> str:
    """Return the verdict on a printed number of the same images.

    No patients are drawn between the two numbers, so no interval explains a difference.
    """
    digits = published.decimals(printed)
    difference = abs(ours - float(printed))
    if difference <= published.rounding(printed) + 1e-9:  # binary fractions are inexact
        return f"{published.EQUAL} to {digits} decimal{'s' * (digits != 1)}"
    return f"{published.DIFFERS} by {tables.number(difference, digits + 1)}"


def compared(side: pd.DataFrame) -> pd.DataFrame:
    """Return the cells that the paper prints; `text` is our number for people."""
    cells = side[side["verdict"].map(published.verdict_kind).isin(COMPARED)]
    texts = []
    for cell in cells.itertuples():
        digits = published.decimals(cell.printed) + 1
        text = tables.with_interval(cell.ours, cell.low, cell.high, digits)
        if cell.metric == radiologists.BELOW:
            text += f" ({cell.note.rpartition('; ')[2]})"  # our note, the last one
        texts.append(text)
    return cells.assign(text=texts)


def in_short(side: pd.DataFrame) -> InShort | None:
    """Summarise the printed numbers if they are too many to be listed."""
    verdicts = compared(side)["verdict"]
    if len(verdicts) <= MOST_LINES:
        return None
    mean = side[(side["column"] == "mean") & (side["metric"] == "AUC")].iloc[0]
    mean_auc = tables.with_interval(mean["ours"], mean["low"], mean["high"], 4)
    counts = [f"{n} of {len(verdicts)} {text}" for text, n in verdicts.value_counts().items()]
    return InShort(mean_auc, ", ".join(counts))


def summary(side: pd.DataFrame) -> str:
    """List the numbers that the paper prints."""
    return "\n".join(
        f"- {cell.column} {cell.metric}: {cell.text}, published {cell.printed}: {cell.verdict}"
        for cell in compared(side).itertuples()
    )


def page(paper: str, side: pd.DataFrame, ours: pd.DataFrame, remarks: list[str]) -> str:
    """Return the Markdown of table.md and docs/papers; `remarks` are about the files."""
    printed = tables.to_markdown(side[side["verdict"] != "not published"])
    by_label = f"### Every label\n\n{tables.to_markdown(one_line_each(ours))}\n{notes(ours)}"
    parts = [f"{PAPERS[paper].title}.", summary(side), printed.strip(), by_label.strip(), *remarks]
    return "\n\n".join(parts) + "\n"


def front_page(paper: str, side: pd.DataFrame) -> str:
    """Return the paper's part of README.md: the printed numbers, or a summary if they are many."""
    text = summary(side)
    if short := in_short(side):
        text = f"- mean AUC: {short.mean_auc}\n- published AUCs of labels: {short.verdicts}"
    return f"{PAPERS[paper].title}:\n\n{text}\n"


def write_docs(paper: str, side: pd.DataFrame, text: str) -> None:
    """Put the page into docs/papers and its summary into README.md, between their markers."""
    _fill(DOCS / f"{paper}.md", START, END, text)
    _fill(README, *front_markers(paper), front_page(paper, side))


def front_markers(paper: str) -> tuple[str, str]:
    return f"<!-- generated:{paper} -->", f"<!-- /generated:{paper} -->"


def _fill(path: Path, start: str, end: str, text: str) -> None:
    before, _, rest = path.read_text(encoding="utf-8").partition(start)
    _, _, after = rest.partition(end)
    safefiles.write(path, f"{before}{start}\n{text}{end}{after}")


def write(options: argparse.Namespace, results: Path) -> None:
    """Score a paper's released predictions; print and write its tables and figures."""
    paper, title = options.paper, PAPERS[options.paper].title
    released = authors.read(paper, options.released, options.truth)
    side, ours = rescore_paper(paper, released, options.resamples, options.seed)
    sample = of_predictions(released.predictions, released.about)
    frames, parts, remarks = further_analyses(sample, options, None)
    about_files = about(paper, released)
    text = page(paper, side, ours, about_files)
    out = results / paper / "released"
    tables.to_csv(side, out / "table.csv")
    safefiles.write(out / "table.md", text)
    if options.write_docs:
        write_docs(paper, side, text)
    details.write(frames, parts, remarks, out, title=title)
    from evaluation import figures  # Matplotlib takes half a second

    arrays = sample.targets, sample.probabilities, sample.labels
    figures.roc_curves(out / "roc.svg", *arrays, released.decisions, title=title)
    shown = tables.to_text(one_line_each(ours), text_width())
    print(f"{title}\n\n{shown}\n{notes(ours)}")
    print_parts(parts)
    print("\n".join([*about_files, *remarks]) + "\n")
    print(f"Beside the published values\n{summary(side)}\n")
    print(f"Written to {out}.")


def about(paper: str, released: authors.Released) -> list[str]:
    """Describe the files: their images, the authors' own AUCs, source and licence."""
    remarks = [lists.describe(list(released.predictions.ids)), same_images(paper)]
    if released.own_auc:
        scored = released.predictions
        auc = dict(zip(scored.labels, metrics.auroc(scored.targets, scored.mean), strict=True))
        equal = sum(abs(auc[name] - own) < 1e-6 for name, own in released.own_auc.items())
        remarks.append(
            f"The AUCs that its author released (aucs.csv) equal ours in {equal} of "
            f"{len(released.own_auc)} labels, to six decimals."
        )
    return [*filter(None, remarks), str(authors.SOURCES[paper])]


def same_images(paper: str) -> str:
    """Say if the printed numbers are of the images that are scored here, and why."""
    source = authors.SOURCES[paper]
    known = "are of these images" if source.same_images else "may be of other images or predictions"
    return f"The published numbers {known}: {source.why}."
