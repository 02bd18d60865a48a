"""Count the errors of ChestX-ray14's labels, which a program took from reports.

Radiologists labelled some of the images again (see experts.py). Their labels are taken as the
truth, and the labels from reports are scored like a reader. data/label_error.csv is this table.
"""

import argparse
from pathlib import Path

import pandas as pd

from data import labels
from evaluation import EvaluationError
from reproduce import ROOT
from reproduce.rescore import experts, section
from reproduce.rescore.experts import ExpertSet
from reproduce.rescore.section import ALL, Section, percent
from reproduce.tables import authors, details
from reproduce.tables.details import Sample

SHIPPED = ROOT / "data" / "label_error.csv"
MEASURES = {"sensitivity": "sensitivity", "specificity": "specificity", "PPV": "precision"}
CALLED = {"TP": "both", "FP": "report_only", "FN": "experts_only", "TN": "neither"}


def from_reports(expert_set: ExpertSet, label_file: Path) -> Sample:
    """Return the labels from reports of the images of a set, as if a network had predicted them."""
    rows, findings = authors.read_label_file(label_file, expert_set.truth.index)
    patients = rows["Patient ID"].to_numpy()
    return Sample(labels.CHESTXRAY14, findings, findings, patients, rows.index, {})


def errors(expert_set: ExpertSet, label_file: Path, resamples: int, seed: int) -> pd.DataFrame:
    """Return one row per finding, and one of all: counts, and each measure with its interval."""
    both = experts.shared(from_reports(expert_set, label_file), expert_set)
    if both is None or both.patients is None:
        raise EvaluationError(f"{label_file} has no image of the experts' labels.")
    long = section.statements(
        both.experts, both.probabilities, both.findings, both.patients, resamples, seed
    )
    long = long[long["metric"].isin(MEASURES)].replace({"metric": MEASURES})
    counts = long.drop_duplicates("group").set_index("group")[list(CALLED)].rename(columns=CALLED)
    wide = counts.assign(experts=expert_set.name, images=len(both.ids))
    for measure, rows in long.groupby("metric", sort=False):
        values = rows.set_index("group")[["value", "low", "high"]]
        wide[[measure, f"{measure}_low", f"{measure}_high"]] = values
    wide = wide.rename_axis("label").reset_index()
    first = ["experts", "label", "images"]
    return wide[[*first, *wide.columns.difference(first, sort=False)]]


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per finding: sensitivity and precision with intervals, and the counts."""
    table = table.set_index("label").rename_axis(index=None)
    shown = {
        "found by the label": details.with_intervals(
            table, "sensitivity", "sensitivity_", digits=2
        ),
        "label confirmed": details.with_intervals(table, "precision", "precision_", digits=2),
        "cases by both": table["both"],
        "by reports only": table["report_only"],
        "by radiologists only": table["experts_only"],
    }
    return pd.DataFrame(shown, table.index)


def answer(options: argparse.Namespace) -> Section:
    """Answer how often the labels of ChestX-ray14 are wrong, by both sets of experts' labels."""
    label_file = options.truth or authors.find_label_file(options.experts)
    sampling = label_file, options.resamples, options.seed
    sets = [errors(each, *sampling) for each in experts.read(options.experts)]
    whole = sets[0].set_index("label").loc[ALL]
    short = (
        "If the radiologists are right, the labels from reports miss "
        f"{percent(1 - whole['sensitivity'])} of the findings, and "
        f"{percent(1 - whole['precision'])} of the findings that they name are not there "
        f"({whole['images']} images, all findings)."
    )
    more = (
        "Reports name what matters for the patient, so not every difference is a mistake. How "
        "many labels are confirmed depends on how common a finding is among these images. "
        "data/label_error.csv holds both tables, with specificities."
    )
    shown = {
        f"Radiologists' labels, {each['experts'].iloc[0]}, {each['images'].iloc[0]:,} images": (
            for_people(each)
        )
        for each in sets
    }
    title = "How often the labels of ChestX-ray14 are wrong"
    return Section(title, short, more, shown, {"label-error": pd.concat(sets, ignore_index=True)})
