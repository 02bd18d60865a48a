"""Write docs/evidence.md, which shows all released predictions, scored again, on one page.

Reads the released files that lie below --released and names those that are missing. Writes
results/evidence/released/*.csv, which the report shows, and with --write-docs the page itself. Its
text is in evidence.md.j2.
"""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

import safefiles
from evaluation import EvaluationError, published, subgroups, tables
from reproduce import ROOT
from reproduce.rescore import (
    ensembles,
    experts,
    label_error,
    leaderboard,
    normals,
    released,
    trees,
    uncertain,
)
from reproduce.rescore.score import text_width
from reproduce.rescore.section import Section
from reproduce.tables import authors, details
from reproduce.tables.details import of_predictions
from reproduce.tables.radiologists import BELOW

PAGE = ROOT / "docs" / "evidence.md"
FIGURES = ROOT / "docs" / "evidence"
TEMPLATE = Path(__file__).with_name("evidence.md.j2")
FIGURE_TITLE = "Zech's DenseNet-121, CheXNet test list of ChestX-ray14"
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
SECTIONS = {  # further questions, in the page's order
    "uncertain": uncertain.answer,
    "label-error": label_error.answer,
    "ensembles": ensembles.answer,
    "normals": normals.answer,
    "trees": trees.answer,
}
NETWORKS = ("zech2018", *ensembles.OTHERS)
PARTS = (*WHO, "leaderboard", "labeler", *ensembles.OTHERS)  # whose files can be downloaded
READS = {  # files of a section that can be downloaded
    "uncertain": ("labeler",),
    "label-error": (),
    "ensembles": (*NETWORKS, "leaderboard"),
    "normals": NETWORKS,
    "trees": ("asadi2025", "zech2018"),
}
BEATEN = "of 3 radiologists, how many the network beats"
CLAIM_IN_WORDS = {
    "holds": "true for these models",
    "does not hold": "not true for these models",
    "within noise": "not shown",
}


@dataclass
class Evidence:
    """All that the released files at hand allow to compute."""

    sides: dict[str, pd.DataFrame] = field(default_factory=dict)  # by paper, with verdicts
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)  # for CSVs, by name
    leaderboard: dict[str, Any] | None = None  # for the page
    sections: dict[str, Section] = field(default_factory=dict)  # by the name of their command
    left_out: list[str] = field(default_factory=list)  # labels that groups of patients lack
    missing: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def unless_missing(self, name: str) -> Iterator[None]:
        """Name a part of the page that cannot be computed, and why."""
        try:
            yield
        except EvaluationError as error:
            self.missing.append(f"{name}: {str(error).splitlines()[0]}")


def rescored_rows(paper: str, side: pd.DataFrame) -> list[dict]:
    """Return a paper's rows of the first table: printed, recomputed and verdict."""
    about = dict(zip(("who", "network", "images"), WHO[paper], strict=True))
    if short := released.in_short(side):
        row = {"number": "mean AUC", "printed": "by finding", "recomputed": short.mean_auc}
        return [about | row | {"verdict": f"by finding: {short.verdicts}"}]
    rows = []
    for cell in released.compared(side).itertuples():
        number = BEATEN if cell.metric == BELOW else f"{cell.column} {cell.metric}"
        row = {"number": number, "printed": cell.printed, "recomputed": cell.text}
        rows.append(about | row | {"verdict": cell.verdict})
    return rows


def in_words(sides: dict[str, pd.DataFrame]) -> list[str]:
    """Count the printed numbers by verdict, in sentences; name those that are not reproduced."""
    cells = pd.concat([released.compared(side).assign(paper=name) for name, side in sides.items()])
    kinds = cells["verdict"].map(published.verdict_kind)
    same = cells["paper"].map(lambda paper: authors.SOURCES[paper].same_images)
    sentences = []
    if same.any():
        equal = int((kinds == published.EQUAL).sum())
        sentences.append(
            f"On the same images, {equal} of {same.sum()} recomputed numbers equal the printed "
            "ones in every printed decimal."
        )
    for cell in cells[kinds == published.DIFFERS].itertuples():
        who, number = WHO[cell.paper][0], f"{cell.column} {cell.metric}"
        difference = tables.number(abs(cell.difference), published.decimals(cell.printed) + 1)
        sentences.append(f"{who}: the {number} differs by {difference} ({cell.printed} printed).")
    if not same.all():
        compatible = int((kinds == published.COMPATIBLE).sum())
        sentences.append(
            f"Where the images may be others, {compatible} of {(~same).sum()} printed numbers "
            "lies within the interval, so other patients explain the difference."
        )
    return sentences


def gather(options: argparse.Namespace) -> Evidence:
    """Score every released file that is there, and name the others."""
    evidence, rows, zech = Evidence(), [], None
    sampling = options.resamples, options.seed
    for paper in WHO:
        with evidence.unless_missing(paper):
            label_file = options.truth if paper == "zech2018" else None
            of_paper = authors.read(paper, options.released, label_file)
            side, _ = released.rescore_paper(paper, of_paper, *sampling)
            evidence.sides[paper] = side
            rows += rescored_rows(paper, side)
            if paper == "zech2018":
                zech = of_predictions(of_paper.predictions, of_paper.about)
    evidence.frames["rescored"] = pd.DataFrame(rows)
    with evidence.unless_missing("leaderboard"):
        truth, models, remarks = leaderboard.read(options.released)
        scored, gaps = leaderboard.compare(truth, models, *sampling)
        more = [*leaderboard.alike(models), *remarks]
        evidence.leaderboard = _leaderboard_part(scored, gaps, more)
        evidence.frames["leaderboard"] = gaps
    if zech is not None:
        with evidence.unless_missing("experts"):
            evidence.frames |= experts.analyse(zech, options.experts, *sampling)[0]
        frames, _, notes = details.analyse(
            zech,
            None,
            rule=None,
            by=tuple(subgroups.ATTRIBUTES),
            calibrate=True,
            resamples=options.resamples,
            seed=options.seed,
        )
        del frames["operating-points"]  # the page shows no thresholds
        evidence.frames |= frames
        evidence.left_out = [note for note in notes if note.startswith("Means by")]
    for name, section in SECTIONS.items():
        with evidence.unless_missing(name):
            evidence.sections[name] = section(options)
            evidence.frames |= evidence.sections[name].frames
    if not rows:
        raise EvaluationError(
            f"{options.released} holds none of the released files; add --download, or see "
            "python -m reproduce.rescore zech2018 --help."
        )
    return evidence


def _leaderboard_part(
    scored: pd.DataFrame, gaps: pd.DataFrame, remarks: list[str]
) -> dict[str, Any]:
    word, sentence = leaderboard.verdict(scored, gaps)
    means = gaps[gaps["group"] == "mean"]
    shown = leaderboard.for_people(scored, gaps)[["mean AUC", "difference to Pham's", "equivalent"]]
    return {
        "claim": leaderboard.CLAIM,
        "verdict": CLAIM_IN_WORDS[word],
        "sentences": " ".join([sentence, *remarks]),
        "apart": int((means["p_holm"] < leaderboard.SURE).sum()),
        "equivalent": int(means["equivalent"].sum()),
        "others": len(means),
        "margin": leaderboard.EQUIVALENT,
        "table": tables.to_markdown(shown),
    }


def experts_for_laymen(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per finding: the AUC by both kinds of labels, and how many cases."""
    table = table.set_index("group").rename_axis(index=None)
    shown = {
        "AUC by reports": details.with_intervals(table, "nih", "nih_"),
        "AUC by radiologists": details.with_intervals(table, "expert", "expert_"),
        "difference": details.with_intervals(table, "difference"),
        "cases by reports": table["nih_positives"],
        "cases by radiologists": table["expert_positives"],
    }
    return pd.DataFrame(shown, table.index)


def _experts_part(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "mean": group[group["group"] == "mean"].iloc[0],
            "enough": _enough(group),
            "table": tables.to_markdown(experts_for_laymen(group)),
        }
        for name, group in table.groupby("experts", sort=False)
    ]


def _enough(table: pd.DataFrame) -> str:
    """Return the means over the findings with enough cases in words, if there are such means."""
    mean = table[table["group"] == experts.MEAN]
    if mean.empty:
        return ""
    row = mean.iloc[0]
    cases = table[["nih_positives", "expert_positives"]].min(axis=1)
    findings = int((cases[~table["group"].isin(["mean", experts.MEAN])] >= experts.ENOUGH).sum())
    difference = tables.with_interval(row["difference"], row["low"], row["high"])
    return (
        f"Over the {findings} findings with {experts.ENOUGH} or more cases by both labels, it is "
        f"{tables.number(row['expert'])} instead of {tables.number(row['nih'])} (difference "
        f"{difference})."
    )


def _subgroups_part(values: pd.DataFrame, gaps: pd.DataFrame) -> dict[str, str]:
    rates = values.query("group == 'mean' and metric == 'FPR' and by == 'view'")
    alarms = [f"{100 * row.value:.0f} % ({row.subgroup})" for row in rates.itertuples()]
    means = details.groups_for_people(values)
    means = means.rename(columns={"FNR": "missed findings", "FPR": "false alarms"})
    return {
        "false_alarms": " and ".join(alarms),
        "table": tables.to_markdown(means),
        "surest": _surest(gaps),
    }


def _surest(gaps: pd.DataFrame) -> str:
    """Describe the gap of means with the smallest p, and count the gaps beyond chance."""
    tested = gaps.dropna(subset=["p"])
    sure = int((tested["p_holm"] < leaderboard.SURE).sum())
    means = tested[tested["group"] == subgroups.AVERAGE].sort_values("p", kind="stable")
    if means.empty:
        return "No two groups could be compared."
    gap = means.iloc[0]
    words = {"AUC": "AUC", "FNR": "missed findings", "FPR": "false alarms"}[gap["metric"]]
    difference = tables.with_interval(gap["difference"], gap["low"], gap["high"])
    return (
        f"The surest gap: {words}, {gap['second']} minus {gap['first']}, {difference}. Of "
        f"{len(tested)} gaps (every finding, pair of groups and measure) {sure} are beyond chance "
        "after Holm's correction."
    )


def page(evidence: Evidence) -> str:
    """Return the page as Markdown."""
    frames = evidence.frames
    engine = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return engine.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        number=tables.number,
        printed=in_words(evidence.sides),
        why={WHO[paper][0]: released.same_images(paper) for paper in evidence.sides},
        rescored=tables.to_markdown(frames["rescored"].set_index("who").rename_axis(index=None)),
        leaderboard=evidence.leaderboard,
        experts=_experts_part(frames["experts"]) if "experts" in frames else [],
        subgroups=(
            _subgroups_part(frames["subgroups"], frames["gaps"]) | {"left_out": evidence.left_out}
            if "subgroups" in frames
            else None
        ),
        sections=evidence.sections,
        missing=evidence.missing,
        sources=authors.SOURCES,
    )


def sources(part: str) -> tuple[str, ...]:
    """Return the names in released.toml whose files a part of the page reads by download."""
    return PARTS if part == "evidence" else READS.get(part, (part,))


def write_section(options: argparse.Namespace, results: Path) -> None:
    """Print the section that was asked for and write its CSVs below `results`."""
    section = SECTIONS[options.paper](options)
    section.write(results / "evidence" / "released")
    if options.write_docs:
        _write_shipped(section.frames)


def _write_shipped(frames: dict[str, pd.DataFrame]) -> None:
    """Write the tables that other parts of the suite read."""
    if "label-error" in frames:
        text = frames["label-error"].to_csv(index=False, float_format="%.4f")
        safefiles.write(label_error.SHIPPED, text)


def write(options: argparse.Namespace, results: Path) -> None:
    """Write the page, its CSVs and its figures below `results`, and with --write-docs to docs/."""
    evidence = gather(options)
    out = results / "evidence" / "released"
    for name, frame in evidence.frames.items():
        tables.to_csv(frame, out / f"{name}.csv")
    text = page(evidence)
    safefiles.write(out / "evidence.md", text)
    details.draw(evidence.frames, out, FIGURE_TITLE)
    if options.write_docs:
        safefiles.write(PAGE, text)
        details.draw(evidence.frames, FIGURES, FIGURE_TITLE)
        _write_shipped(evidence.frames)
    print(tables.titled("Checked", tables.to_text(evidence.frames["rescored"], text_width())))
    for line in evidence.missing:
        print(f"not available: {line}")
    print(f"Written to {out}" + f" and {PAGE}" * options.write_docs + ".")
