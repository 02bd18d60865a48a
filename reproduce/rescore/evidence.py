"""Write docs/evidence.md, which shows all released predictions, scored again, on one page.

Reads the released files that lie below --released and names those that are missing. Writes
results/evidence/released/*.csv, which the report shows, and with --write-docs the page itself.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import safefiles
from evaluation import EvaluationError, subgroups, tables
from evaluation.operating_points import YOUDEN, Rule
from reproduce import ROOT
from reproduce.rescore import experts, leaderboard, released
from reproduce.rescore.score import text_width
from reproduce.tables import authors, details
from reproduce.tables.radiologists import BELOW
from reproduce.tables.sample import Sample, of_predictions

PAGE = ROOT / "docs" / "evidence.md"
FIGURES = ROOT / "docs" / "evidence"
TITLE = "Zech's DenseNet-121, CheXNet test list of ChestX-ray14"
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
predictions. This page computes their numbers again from these predictions. None of the networks was
trained by us.

- **AUC**: the probability that the network ranks a random patient with a finding above a random
  patient without it. 1 is perfect, .5 is guessing.
- **[low, high]**: the 95 % interval of the number, from drawing the patients again 1,000 times. A
  printed number inside it **agrees**.
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


class Section(NamedTuple):
    """One section of the page."""

    title: str
    text: str
    shown: dict[str, pd.DataFrame]  # by heading


@dataclass
class Evidence:
    """Everything that the released files at hand allow to compute."""

    frames: dict[str, pd.DataFrame] = field(default_factory=dict)  # for CSVs, by name
    sections: list[Section] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def lacks(self, name: str, error: EvaluationError) -> None:
        self.missing.append(f"{name}: {str(error).splitlines()[0]}")


def rescored_rows(paper: str, side: pd.DataFrame) -> list[dict]:
    """Return a paper's rows of the first table: printed, recomputed, and if they agree."""
    about = dict(zip(("who", "network", "images"), WHO[paper], strict=True))
    if short := released.in_short(side):
        return [
            about
            | {
                "number": "mean AUC",
                "printed": "by finding",
                "recomputed": short.mean_auc,
                "verdict": f"{short.inside} of {short.printed} printed findings agree",
            }
        ]
    return [
        about
        | {
            "number": BEATEN if cell.metric == BELOW else f"{cell.column} {cell.metric}",
            "printed": cell.printed,
            "recomputed": cell.text,
            "verdict": AGREES[cell.verdict],
        }
        for cell in released.compared(side).itertuples()
    ]


def gather(options: argparse.Namespace) -> Evidence:
    """Score every released file that is there, and name the others."""
    evidence, samples, rows = Evidence(), {}, []
    sampling = options.resamples, options.seed
    for paper in WHO:
        try:
            truth = options.truth if paper == "zech2018" else None
            of_paper = authors.read(paper, options.released, truth)
        except EvaluationError as error:
            evidence.lacks(paper, error)
            continue
        side, _ = released.rescore_paper(paper, of_paper, *sampling)
        rows += rescored_rows(paper, side)
        samples[paper] = of_predictions(of_paper.predictions, of_paper.about)
    evidence.frames["rescored"] = pd.DataFrame(rows)
    try:
        truth, models, remarks = leaderboard.read(options.released)
        scored, gaps = leaderboard.compare(truth, models, *sampling)
        evidence.sections.append(_leaderboard_section(scored, gaps, remarks))
        evidence.frames["leaderboard"] = gaps
    except EvaluationError as error:
        evidence.lacks("leaderboard", error)
    if zech := samples.get("zech2018"):
        try:
            frames, _ = experts.analyse(zech, options.experts, *sampling)
            evidence.frames |= frames
            evidence.sections.append(_experts_section(frames["experts"]))
        except EvaluationError as error:
            evidence.lacks("experts", error)
        evidence.frames |= _details(zech, *sampling)
        evidence.sections += [_subgroups_section(evidence.frames), CALIBRATION]
    if not rows:
        raise EvaluationError(
            f"{options.released} holds none of the released files; add --download, or see "
            "python -m reproduce.rescore zech2018 --help."
        )
    return evidence


def in_short(frames: dict[str, pd.DataFrame]) -> list[str]:
    """Summarise the page in a few sentences, each computed from the frames that are there."""
    rescored = frames["rescored"]
    single = rescored[rescored["verdict"].isin([*AGREES.values()])]
    inside = int((single["verdict"] == AGREES["within"]).sum())
    lines = [f"**Printed numbers:** {inside} of {len(single)} printed means agree."]
    every = rescored["verdict"][rescored["verdict"].str.endswith("findings agree")]
    lines[0] += "".join(f" Of another group, {verdict}." for verdict in every)
    if "leaderboard" in frames:
        gaps = frames["leaderboard"].query("group == 'mean'")
        apart = int((gaps["p_holm"] < leaderboard.SURE).sum())
        lines.append(
            f"**Leaderboard:** {apart} of {len(gaps)} other models of the CheXpert leaderboard can "
            "be told apart from Pham's by their mean AUC."
        )
    if "experts" in frames:
        for row in frames["experts"].query("group == 'mean'").itertuples():
            lines.append(
                f"**Labels:** judged by radiologists' labels instead of labels taken from reports "
                f"({row.images:,} images, {row.experts}), the same predictions of the same network "
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


def _leaderboard_section(scored: pd.DataFrame, gaps: pd.DataFrame, remarks: list[str]) -> Section:
    word, sentence = leaderboard.verdict(scored, gaps)
    shown = leaderboard.for_people(scored, gaps)[["mean AUC", "difference to Pham's"]]
    text = (
        f"Pham et al. write that their method “{leaderboard.CLAIM}”. Against the models that were "
        f"released with the test labels, some of which may be later, that is "
        f"**{CLAIM_IN_WORDS[word]}**. {sentence} {' '.join(remarks)}"
    )
    return Section("Is Pham's model the best of the leaderboard?", text.strip(), {"": shown})


def _experts_section(scored: pd.DataFrame) -> Section:
    text = (
        "The labels of ChestX-ray14 were taken from radiologists' reports by a program. "
        "Radiologists have since looked at some of the images themselves. The tables compare the "
        "same predictions of Zech's network with both kinds of labels. Intervals are wide if few "
        "images have a finding; n/a means that none has it. Which labels count as an airspace "
        "opacity is our choice. For the agreement between the labels (kappa) and for single "
        "radiologists, run `python -m reproduce.rescore zech2018 --truth experts`."
    )
    shown = {
        f"Radiologists' labels, {name}: {table['images'].iloc[0]:,} images": experts_for_laymen(
            table
        )
        for name, table in scored.groupby("experts", sort=False)
    }
    return Section("What radiologists' own labels change", text, shown)


def experts_for_laymen(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per finding: the AUC by both kinds of labels, and how many cases."""
    rows = {
        row.group: {
            "AUC by reports": tables.interval(row.nih, row.nih_low, row.nih_high),
            "AUC by radiologists": tables.interval(row.expert, row.expert_low, row.expert_high),
            "difference": tables.interval(row.difference, row.low, row.high),
            "cases by reports": row.nih_positives,
            "cases by radiologists": row.expert_positives,
        }
        for row in table.itertuples()
    }
    return pd.DataFrame(rows).T


def _details(zech: Sample, resamples: int, seed: int) -> dict[str, pd.DataFrame]:
    """Return subgroups, gaps and calibration of Zech's network as frames for CSVs."""
    chosen, _ = details.thresholds(zech, Rule(YOUDEN), None)
    by = tuple(subgroups.ATTRIBUTES)
    values, gaps = details.by_subgroup(zech, by, chosen, resamples, seed)
    calibration, reliability, _ = details.calibration(zech, None)
    return {
        "subgroups": values,
        "gaps": gaps,
        "calibration": calibration,
        "reliability": reliability,
    }


def _subgroups_section(frames: dict[str, pd.DataFrame]) -> Section:
    means = details.groups_for_people(frames["subgroups"])
    means = means.rename(columns={"FNR": "missed findings", "FPR": "false alarms"})
    text = (
        "Zech's network again, for women and men, age bands, and the two ways to take the image "
        "(PA: standing; AP: mostly in bed). To count missed findings and false alarms, a finding "
        "is called present if its probability reaches a threshold. The thresholds were chosen on "
        "these images (Youden's rule), which makes the network look better. Each number is a mean "
        f"over the findings.\n\n{tables.to_markdown(means)}\n"
        f"{_surest(frames['gaps'])} Groups differ in how ill their patients are, so a gap does not "
        "prove unfairness.\n\n"
        "![Mean AUC, missed findings and false alarms of each group](evidence/subgroups.svg)"
    )
    return Section("Where groups of patients differ", text, {})


def _surest(gaps: pd.DataFrame) -> str:
    """Describe the gap of means with the smallest p, and count the gaps beyond chance."""
    tested = gaps.dropna(subset=["p"])
    sure = int((tested["p_holm"] < leaderboard.SURE).sum())
    means = tested[tested["group"] == subgroups.AVERAGE].sort_values("p", kind="stable")
    if means.empty:
        return "No two groups could be compared."
    gap = means.iloc[0]
    words = {"AUC": "AUC", "FNR": "missed findings", "FPR": "false alarms"}[gap["metric"]]
    difference = tables.interval(gap["difference"], gap["low"], gap["high"])
    return (
        f"The surest gap: {words}, {gap['second']} minus {gap['first']}, {difference}. Of "
        f"{len(tested)} gaps (every finding, pair of groups and measure) {sure} are beyond chance "
        "after Holm's correction."
    )


CALIBRATION = Section(
    "Are its probabilities reliable?",
    "Of the images to which Zech's network gives 30 %, 30 % should have the finding; such a dot "
    "lies on the dotted line. A dot below the line shows that the network predicts the finding too "
    "often. Larger dots stand for more images.\n\n"
    "![Predicted and observed share of each finding](evidence/reliability.svg)",
    {},
)


def page(evidence: Evidence) -> str:
    """Return the page as Markdown."""
    rescored = evidence.frames["rescored"]
    parts = [INTRODUCTION, _listed("In short", in_short(evidence.frames))]
    parts.append("## Every number that was checked\n")
    parts.append(tables.to_markdown(rescored.set_index("who").rename_axis(index=None)))
    for title, text, shown in evidence.sections:
        parts.append(f"## {title}\n\n{text}\n")
        for heading, table in shown.items():
            parts += [f"### {heading}\n"] if heading else []
            parts.append(tables.to_markdown(table))
    if evidence.missing:
        parts.append(_listed("Not available, so not checked", evidence.missing))
    sources = [f"{name}: {each.address}; {each.licence}" for name, each in authors.SOURCES.items()]
    parts.append(_listed("Sources and licences", sources))
    parts.append(
        "This page was made by `python -m reproduce.rescore evidence --released DIR --data-dir "
        "ChestX-ray14 --write-docs`; `--download` fetches the files that are on github.com. The "
        "label file of ChestX-ray14 comes from the NIH Clinical Center "
        "(https://nihcc.app.box.com/v/ChestXray-NIHCC; Wang et al., CVPR 2017)."
    )
    return "\n".join(parts).strip() + "\n"


def _listed(title: str, lines: list[str]) -> str:
    return f"## {title}\n\n" + "".join(f"- {line}\n" for line in lines)


def write(options: argparse.Namespace, results: Path) -> None:
    """Write the page, its CSVs and its figures below `results`, and with --write-docs to docs/."""
    if options.download:
        for paper in (*WHO, "leaderboard"):
            authors.download(paper, options.released, options.base_url)
    evidence = gather(options)
    out = results / "evidence" / "released"
    for name, frame in evidence.frames.items():
        tables.to_csv(frame, out / f"{name}.csv")
    text = page(evidence)
    safefiles.write(out / "evidence.md", text)
    details.draw(evidence.frames, out, TITLE)
    if options.write_docs:
        safefiles.write(PAGE, text)
        details.draw(evidence.frames, FIGURES, TITLE)
    print(tables.titled("Checked", tables.to_text(evidence.frames["rescored"], text_width())))
    for line in evidence.missing:
        print(f"not available: {line}")
    print(f"Written to {out}" + f" and {PAGE}" * options.write_docs + ".")
