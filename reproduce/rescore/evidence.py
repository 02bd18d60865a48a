"""docs/evidence.md: every released prediction scored anew, on one page.

Reads whatever of the released files lies below --released, names what does not, and writes the page
(--write-docs) and results/evidence/released/*.csv, which the report shows.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import safefiles
from evaluation import EvaluationError, published, subgroups, tables
from evaluation.operating_points import YOUDEN, Rule
from reproduce import ROOT
from reproduce.rescore import experts, leaderboard, released
from reproduce.rescore.score import text_width
from reproduce.tables import authors, details
from reproduce.tables.radiologists import BELOW
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
# Published results, checked on real chest X-rays

Other groups published how well their networks read chest X-rays, and also released the networks'
answers. This page computes their numbers again from those answers. Nothing here was trained by us.

- **AUC**: take one patient with a finding and one without. How often does the network give the
  first the higher probability? 1 is always, .5 is guessing.
- **[low, high]**: how far the number would move with other patients like these (95 %, from drawing
  the patients anew 1,000 times). A printed number inside it **agrees**.
"""
AGREES = {
    "within": "agrees",
    "above": "printed is higher",
    "below": "printed is lower",
}
BEATEN = "of 3 radiologists, how many the network beats"
CLAIM_IN_WORDS = {
    "holds": "true for these models",
    "does not hold": "not true for these models",
    "within noise": "neither shown nor refuted",
}
SURE = 0.05  # of a p-value after Holm's correction


class Parts(NamedTuple):
    """The page's tables for people by name, with the sentences below them."""

    rescored: pd.DataFrame
    sections: list[tuple[str, str, dict[str, pd.DataFrame]]]
    missing: list[str]
    in_short: list[str]


def rescored_rows(paper: str, side: pd.DataFrame) -> list[dict]:
    """A paper's lines of the first table: printed, recomputed with interval, whether they agree."""
    who, network, images = WHO[paper]
    about = {"who": who, "network": network, "images": images}
    compared = side[side["verdict"].isin([*AGREES])]
    several = len(compared) >= released.MOST_LINES
    rows = []
    if several:
        mean = side[(side["column"] == "mean") & (side["metric"] == "AUC")].iloc[0]
        inside = int((compared["verdict"] == "within").sum())
        ours = tables.interval(mean["ours"], mean["low"], mean["high"], 4)
        every = f"{inside} of {len(compared)} printed findings agree"
        rows.append(
            about
            | {"number": "mean AUC", "printed": "by finding", "recomputed": ours, "verdict": every}
        )
    for cell in () if several else compared.to_dict("records"):
        decimals = len(cell["printed"].partition(".")[2]) + 1
        ours = tables.interval(cell["ours"], cell["low"], cell["high"], decimals)
        number = BEATEN if cell["metric"] == BELOW else f"{cell['column']} {cell['metric']}"
        row = {"number": number, "printed": cell["printed"]}
        verdict = AGREES[published.verdict_kind(cell["verdict"])]
        rows.append(about | row | {"recomputed": ours, "verdict": verdict})
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
            more, _ = experts.analyse(zech, folder, options.resamples, options.seed)
            frames |= more
            sections.append(_experts_section(more))
        except EvaluationError as error:
            missing.append(_missing("experts", error))
        sections += [_subgroups_section(zech, options, frames), CALIBRATION]
    if not rows:
        raise EvaluationError(
            f"{options.released} holds none of the released files; add --download, or see "
            "python -m reproduce.rescore zech2018 --help."
        )
    return Parts(frames["rescored"], sections, missing, in_short(frames)), frames, zech


def in_short(frames: dict[str, pd.DataFrame]) -> list[str]:
    """The page in a few sentences, each computed from the frames that are there."""
    rescored = frames["rescored"]
    single = rescored[rescored["verdict"].isin([*AGREES.values()])]
    inside = int((single["verdict"] == AGREES["within"]).sum())
    lines = [f"**Printed numbers:** {inside} of {len(single)} printed means agree."]
    every = rescored["verdict"][rescored["verdict"].str.endswith("findings agree")]
    lines[0] += "".join(f" Of another group, {verdict}." for verdict in every)
    if "leaderboard" in frames:
        gaps = frames["leaderboard"].query("group == 'mean'")
        apart = int((gaps["p_holm"] < SURE).sum())
        lines.append(
            f"**Leaderboard:** {apart} of {len(gaps)} other models of the CheXpert leaderboard can "
            "be told apart from Pham's by their mean AUC."
        )
    if "experts" in frames:
        for row in frames["experts"].query("group == 'mean'").itertuples():
            lines.append(
                f"**Labels:** judged by radiologists instead of by labels taken from reports "
                f"({row.images:,} images, {row.experts}), the same answers of the same network "
                f"have a mean AUC of {tables.number(row.expert)} instead of "
                f"{tables.number(row.nih)}."
            )
    if "subgroups" in frames:
        rates = frames["subgroups"].query("group == 'mean' and metric == 'FPR' and by == 'view'")
        shown = " and ".join(
            f"{100 * row.value:.0f} % ({row.subgroup})" for row in rates.itertuples()
        )
        lines.append(f"**Patients:** false alarms differ between the two views: {shown}.")
    return lines


def _missing(what: str, error: EvaluationError) -> str:
    return f"{what}: {str(error).splitlines()[0]}"


def _leaderboard_section(scored: pd.DataFrame, gaps: pd.DataFrame, notes: list[str]):
    word, sentence = leaderboard.verdict(scored, gaps)
    shown = leaderboard.for_people(scored, gaps)[["mean AUC", "difference to Pham's"]]
    text = (
        f"Pham et al. write that their method “{leaderboard.CLAIM}”. Against the models that were "
        f"released with the test labels, some of which may be later, that is "
        f"**{CLAIM_IN_WORDS[word]}**. {sentence} {' '.join(notes)}"
    )
    return "Is Pham's model the best of the leaderboard?", text.strip(), {"": shown}


def _experts_section(frames: dict[str, pd.DataFrame]):
    text = (
        "The labels of ChestX-ray14 were taken from radiologists' reports by a program. For some "
        "of its images radiologists have since looked at the image itself. Below, the same answers "
        "of Zech's network are judged by both kinds of labels. The brackets are wide where few "
        "images have a finding; n/a where none has it. Which labels make an airspace opacity is "
        "our choice. Agreement between the labels (kappa) and single radiologists beside the "
        "network: "
        "`python -m reproduce.rescore zech2018 --truth experts`."
    )
    parts = {}
    for name, table in frames["experts"].groupby("experts", sort=False):
        title = f"Radiologists' labels, {name}: {table['images'].iloc[0]:,} images"
        parts[title] = experts_for_laymen(table)
    return "What radiologists' own labels change", text, parts


def experts_for_laymen(table: pd.DataFrame) -> pd.DataFrame:
    """One line a finding: the AUC by either kind of labels, their difference, how many cases."""
    lines = {
        row.group: {
            "AUC by reports": tables.interval(row.nih, row.nih_low, row.nih_high),
            "AUC by radiologists": tables.interval(row.expert, row.expert_low, row.expert_high),
            "difference": tables.interval(row.difference, row.low, row.high),
            "cases by reports": row.nih_positives,
            "cases by radiologists": row.expert_positives,
        }
        for row in table.itertuples()
    }
    return pd.DataFrame(lines).T


def _subgroups_section(zech: Sample, options, frames: dict[str, pd.DataFrame]):
    wanted = tuple(subgroups.ATTRIBUTES)
    chosen, _ = details.thresholds(zech, Rule(YOUDEN), None)
    made = details.by_subgroup(zech, wanted, chosen, options.resamples, options.seed)
    frames["subgroups"], frames["gaps"] = made
    frames["calibration"], frames["reliability"], _ = details.calibration(zech, None)
    means = details.groups_for_people(made.values)
    means = means.rename(columns={"FNR": "missed findings", "FPR": "false alarms"})
    text = (
        "Zech's network again, for women and men, age bands, and the two ways to take the image "
        "(PA: standing; AP: mostly in bed). To count what it misses and where it raises a false "
        "alarm, a finding is called present from a threshold on. It was chosen on these images "
        "(Youden's rule), which flatters the network. Each number is a mean over the findings.\n\n"
        f"{tables.to_markdown(means)}\n"
        f"{_surest(made.gaps)} Groups differ in how ill their patients are, so a gap is no proof "
        "of unfairness.\n\n"
        "![Mean AUC, missed findings and false alarms of each group](evidence/subgroups.svg)"
    )
    return "Where groups of patients differ", text, {}


def _surest(gaps: pd.DataFrame) -> str:
    """The gap of means that is least likely chance, and how many gaps are more than chance."""
    tested = gaps.dropna(subset=["p"])
    sure = int((tested["p_holm"] < SURE).sum())
    means = tested[tested["group"] == subgroups.AVERAGE].sort_values("p", kind="stable")
    if means.empty:
        return "No two groups could be compared."
    gap = means.iloc[0]
    words = {"AUC": "AUC", "FNR": "missed findings", "FPR": "false alarms"}[gap["metric"]]
    difference = tables.interval(gap["difference"], gap["low"], gap["high"])
    return (
        f"The surest gap: {words}, {gap['second']} minus {gap['first']}, {difference}. Of "
        f"{len(tested)} gaps (every finding, pair of groups and measure) {sure} are more than "
        "chance, counting how many were tried (Holm's correction)."
    )


CALIBRATION: tuple[str, str, dict[str, pd.DataFrame]] = (
    "Can its probabilities be taken at their word?",
    "Of the images to which Zech's network gives 30 %, 30 % should have the finding: dots on the "
    "dotted line. Dots below it mean that it promises too much. Larger dots stand for more images."
    "\n\n![Promised and observed share of each finding](evidence/reliability.svg)",
    {},
)


def page(parts: Parts) -> str:
    """The page as Markdown."""
    lines = [INTRODUCTION]
    if parts.in_short:
        listed = "".join(f"- {line}\n" for line in parts.in_short)
        lines.append(f"## In short\n\n{listed}")
    lines += ["## Every number that was checked\n"]
    lines.append(tables.to_markdown(parts.rescored.set_index("who").rename_axis(index=None)))
    for title, text, shown in parts.sections:
        lines.append(f"## {title}\n\n{text}\n")
        for heading, table in shown.items():
            lines += [f"### {heading}\n"] if heading else []
            lines.append(tables.to_markdown(table))
    if parts.missing:
        listed = "".join(f"- {line}\n" for line in parts.missing)
        lines.append(f"## Not at hand, so not checked\n\n{listed}")
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
    safefiles.write(out / "evidence.md", text)
    folders = [out, FIGURES] if options.write_docs else [out]
    for folder in folders if zech is not None else ():
        details.draw(frames, folder, "Zech's DenseNet-121, CheXNet test list of ChestX-ray14")
    if options.write_docs:
        safefiles.write(PAGE, text)
    print(tables.titled("Checked", tables.to_text(parts.rescored, text_width())))
    for line in parts.missing:
        print(f"not at hand: {line}")
    print(f"Written to {out}" + f" and {PAGE}" * bool(options.write_docs) + ".")
