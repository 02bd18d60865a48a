"""docs/evidence.md: every released prediction scored anew, on one page.

Reads whatever of the released files lies below --released, names what does not, and writes the page
(--write-docs) and results/evidence/released/*.csv, which the report shows.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from data import files
from evaluation import EvaluationError, published, subgroups, tables
from evaluation.operating_points import YOUDEN, Rule
from reproduce import ROOT
from reproduce.rescore import experts, leaderboard, released
from reproduce.rescore.score import text_width
from reproduce.tables import authors, details
from reproduce.tables.sample import Sample, of_predictions

PAGE = ROOT / "docs" / "evidence.md"
FIGURES = ROOT / "docs" / "evidence"
WHO = {  # who, network, images, as their files and papers state them
    "zech2018": (
        "Zech, reproduce-chexnet (2018, retrained 2022)",
        "DenseNet-121",
        "22,433 of ChestX-ray14 (CheXNet test list)",
    ),
    "pham2019": (
        "Pham et al. 2019",
        "their leaderboard entry",
        "500 studies of the CheXpert test set",
    ),
    "asadi2025": ("Asadi et al. 2025", "DenseNet-121", "668 of the CheXpert test set"),
}
INTRODUCTION = """\
# Published claims, scored anew on real radiographs

Other groups released the predictions of their networks and the labels of their test images. Nothing
here was trained by this suite: each number is computed from those files, with an interval that
covers other patients (95 %, 1,000 resamples of the patients). An AUC of .5 is guessing, 1 is
perfect. `within` means that the printed number lies in our interval, `above` that it is higher than
our interval allows, `below` that it is lower.
"""


class Parts(NamedTuple):
    """The page's tables for people by name, with the sentences below them."""

    rescored: pd.DataFrame
    sections: list[tuple[str, str, dict[str, pd.DataFrame]]]
    missing: list[str]
    in_short: list[str]


def rescored_rows(paper: str, side: pd.DataFrame) -> list[dict]:
    """A paper's lines of the first table: printed, ours with interval, verdict."""
    who, network, images = WHO[paper]
    about = {"who": who, "network": network, "images": images}
    compared = side[side["verdict"].isin([*released.VERDICTS])]
    several = len(compared) >= released.MOST_LINES
    rows = []
    if several:
        mean = side[(side["column"] == "mean") & (side["metric"] == "AUC")].iloc[0]
        inside = int((compared["verdict"] == "within").sum())
        ours = tables.interval(mean["ours"], mean["low"], mean["high"], 4)
        every = f"{inside} of {len(compared)} printed labels within"
        rows.append(
            about | {"number": "mean AUC", "printed": "by label", "ours": ours, "verdict": every}
        )
    for cell in () if several else compared.to_dict("records"):
        decimals = len(cell["printed"].partition(".")[2]) + 1
        ours = tables.interval(cell["ours"], cell["low"], cell["high"], decimals)
        row = {"number": f"{cell['column']} {cell['metric']}", "printed": cell["printed"]}
        rows.append(
            about | row | {"ours": ours, "verdict": published.verdict_kind(cell["verdict"])}
        )
    return rows


def gather(options: argparse.Namespace) -> tuple[Parts, dict[str, pd.DataFrame], Sample | None]:
    """What the files at hand allow: tables for people, frames for CSVs, Zech's sample."""
    rows, sections, missing, frames, zech = [], [], [], {}, None
    for paper in WHO:
        try:
            truth = options.truth if paper == "zech2018" else None
            of_paper = authors.read(paper, options.released, truth)
        except EvaluationError as error:
            missing.append(_missing(paper, error))
            continue
        side, _ = released.rescore_paper(paper, of_paper, options.resamples, options.seed)
        rows += rescored_rows(paper, side)
        if paper == "zech2018":
            zech = of_predictions(of_paper.predictions, of_paper.about)
    frames["rescored"] = pd.DataFrame(rows)
    try:
        truth, models, notes = leaderboard.read(options.released)
        scored, gaps = leaderboard.compare(truth, models, options.resamples, options.seed)
        sections.append(_leaderboard_section(scored, gaps, notes))
        frames["leaderboard"] = gaps
    except EvaluationError as error:
        missing.append(_missing("leaderboard", error))
    if zech is not None:
        try:
            folder = options.experts
            more, shown = experts.analyse(zech, folder, options.resamples, options.seed)
            frames |= more
            sections.append(_experts_section(shown))
        except EvaluationError as error:
            missing.append(_missing("experts", error))
        sections.append(_subgroups_section(zech, options, frames))
    if not rows:
        raise EvaluationError(
            f"{options.released} holds none of the released files; add --download, or see "
            "python -m reproduce.rescore zech2018 --help."
        )
    return Parts(frames["rescored"], sections, missing, in_short(frames)), frames, zech


def in_short(frames: dict[str, pd.DataFrame]) -> list[str]:
    """The page in a few sentences, each computed from the frames that are there."""
    verdicts = frames["rescored"]["verdict"].tolist()
    inside = sum(verdict == "within" for verdict in verdicts)
    whole = sum(" of " not in verdict for verdict in verdicts)
    lines = [f"Of {whole} printed summary numbers {inside} lie within our interval."]
    if "leaderboard" in frames:
        gaps = frames["leaderboard"].query("group == 'mean'")
        apart = int((gaps["p_holm"] < 0.05).sum())
        lines.append(
            f"Of {len(gaps)} other models of the CheXpert leaderboard {apart} differ from Pham's "
            "in mean AUC by more than chance."
        )
    if "experts" in frames:
        for row in frames["experts"].query("group == 'mean'").itertuples():
            change = tables.interval(row.difference, row.low, row.high)
            lines.append(
                f"Scored by experts' instead of text-mined labels ({row.experts}), the same "
                f"predictions on the same {row.images:,} images have a mean AUC of "
                f"{tables.number(row.expert)} instead of {tables.number(row.nih)}: {change}."
            )
    if "subgroups" in frames:
        rates = frames["subgroups"].query("group == 'mean' and metric == 'FPR' and by == 'view'")
        shown = " and ".join(
            f"{tables.number(row.value)} ({row.subgroup})" for row in rates.itertuples()
        )
        lines.append(f"At one operating point false alarms differ by view: {shown}.")
    return lines


def _missing(what: str, error: EvaluationError) -> str:
    return f"{what}: {str(error).splitlines()[0]}"


def _leaderboard_section(scored: pd.DataFrame, gaps: pd.DataFrame, notes: list[str]):
    word, sentence = leaderboard.verdict(scored, gaps)
    shown = leaderboard.for_people(scored, gaps)[["mean AUC", "difference to Pham's", "p (Holm)"]]
    text = (
        f"Pham et al. write that their method “{leaderboard.CLAIM}”. Against the models that were "
        f"released with the test labels, some of which may be later, this is **{word}**. "
        f"{sentence} {' '.join(notes)}"
    )
    return "Is Pham's model the best of the leaderboard?", text.strip(), {"": shown}


def _experts_section(shown: dict[str, pd.DataFrame]):
    text = (
        "ChestX-ray14's labels were mined from reports by a program. Radiologists read some of its "
        "images anew. The same predictions of Zech's network are scored against both; kappa says "
        "how far the two kinds of labels agree (1 fully, 0 as by chance). Few images have a "
        "finding, so read the intervals. Which labels make an airspace opacity is our choice. "
        + experts.READERS_NOTE
    )
    return "What experts' labels change", text, shown


def _subgroups_section(zech: Sample, options, frames: dict[str, pd.DataFrame]):
    wanted = tuple(subgroups.ATTRIBUTES)
    chosen, where = details.thresholds(zech, Rule(YOUDEN), None)
    made = details.by_subgroup(zech, wanted, chosen, options.resamples, options.seed)
    frames["subgroups"], frames["gaps"] = made
    frames["calibration"], frames["reliability"], _ = details.calibration(zech, None)
    of_means = made.gaps[made.gaps["group"] == subgroups.AVERAGE]
    text = (
        "Zech's network again, by the patient's sex and age and by view. FNR is the share of "
        "findings that it misses at its operating point, FPR that of images without a finding in "
        f"which it sees one. {where.partition(',')[0]}, with Youden's rule. "
        "A mean is over the labels that a group has. Groups differ in how ill their patients "
        "are, so a gap is no proof of unfairness. "
        f"{subgroups.multiplicity(made.gaps)} Gaps of means over labels with the smallest p:\n\n"
        "![Subgroups](evidence/subgroups.svg)\n\n"
        "How well its probabilities are calibrated (on the line: as often right as it claims):\n\n"
        "![Reliability](evidence/reliability.svg)"
    )
    parts = {
        "Mean over labels": details.groups_for_people(made.values),
        "Gaps": details.gaps_for_people(of_means, 6),
    }
    return "Where subgroups differ", text, parts


def page(parts: Parts) -> str:
    """The page as Markdown."""
    lines = [INTRODUCTION]
    if parts.in_short:
        listed = "".join(f"- {line}\n" for line in parts.in_short)
        lines.append(f"## In short\n\n{listed}")
    lines += ["## Everything that was scored anew\n"]
    lines.append(tables.to_markdown(parts.rescored.set_index("who").rename_axis(index=None)))
    for title, text, shown in parts.sections:
        lines.append(f"## {title}\n\n{text}\n")
        for heading, table in shown.items():
            lines += [f"### {heading}\n"] if heading else []
            lines.append(tables.to_markdown(table))
    if parts.missing:
        listed = "".join(f"- {line}\n" for line in parts.missing)
        lines.append(f"## Not at hand, so not scored\n\n{listed}")
    listed = "".join(
        f"- {name}: {_where(name)}; {source.licence}\n" for name, source in authors.SOURCES.items()
    )
    lines.append(f"## Sources and licences\n\n{listed}")
    lines.append(
        "Made by `python -m reproduce.rescore evidence --released DIR --data-dir ChestX-ray14 "
        "--write-docs`; `--download` fetches what is on github.com. The label file of ChestX-ray14 "
        "comes from the NIH Clinical Center (https://nihcc.app.box.com/v/ChestXray-NIHCC; Wang et "
        "al., CVPR 2017)."
    )
    return "\n".join(lines).strip() + "\n"


def _where(name: str) -> str:
    source = authors.SOURCES[name]
    if not source.repository:
        return authors.EXPERTS_FROM
    return f"github.com/{source.repository} at {source.commit[:12]}"


def write(options: argparse.Namespace, results: Path) -> None:
    """The page on the screen, its CSVs and pictures below `results`, and docs/evidence.md."""
    if options.download:
        for paper in (*WHO, "leaderboard"):
            authors.download(paper, options.released, options.base_url)
    parts, frames, zech = gather(options)
    out = results / "evidence" / "released"
    for name, frame in frames.items():
        tables.to_csv(frame, out / f"{name}.csv")
    text = page(parts)
    files.write(out / "evidence.md", text)
    folders = [out, FIGURES] if options.write_docs else [out]
    for folder in folders if zech is not None else ():
        details.draw(frames, folder, "Zech's DenseNet-121, CheXNet test list of ChestX-ray14")
    if options.write_docs:
        files.write(PAGE, text)
    print(tables.titled("Scored anew", tables.to_text(parts.rescored, text_width())))
    for line in parts.missing:
        print(f"not at hand: {line}")
    print(f"Written to {out}" + f" and {PAGE}" * bool(options.write_docs) + ".")
