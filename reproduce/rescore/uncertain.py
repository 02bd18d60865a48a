"""Say what stands behind the labels 1, 0, -1 (uncertain) and blank of CheXpert's labeler.

The labeler's output on the 500 test studies is compared with the majority of five radiologists. A
policy gives all uncertain studies one target, or draws it from an interval (label smoothing). If a
share q of them is truly positive, a target with the mean m and the mean square s has the mean
squared error s - 2mq + q, so the best policy depends on q only.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd

from data import labels, policies
from evaluation import tables
from reproduce.rescore import section
from reproduce.rescore.section import ALL, Section, percent
from reproduce.tables import authors, details

VALUES = {"positive": 1, "negative": 0, "uncertain": -1, "blank": None}
FIVE = list(labels.CHEXPERT_COMPETITION)
NAMES = {  # of policies, as Pham et al. write them
    "zeros": "U-Zeros",
    "zeros-lsr": "U-Zeros+LSR",
    "ones-lsr": "U-Ones+LSR",
    "ones": "U-Ones",
}
RANGES = {"zeros": (0.0, 0.0), **policies.INTERVALS, "ones": (1.0, 1.0)}


def squared_error(policy: str, share: float) -> float:
    """Return the mean squared error of the targets of uncertain studies with this true share."""
    low, high = RANGES[policy]
    mean = (low + high) / 2
    mean_square = mean**2 + (high - low) ** 2 / 12
    return mean_square - 2 * mean * share + share


def best_policies(low: float, high: float) -> list[str]:
    """Return the policies that are best for some true share in an interval."""
    best = [min(NAMES, key=lambda name: squared_error(name, q)) for q in np.linspace(low, high)]
    return [name for name in NAMES if name in best]


def meeting(low: float, high: float) -> list[str]:
    """Return the policies with label smoothing whose interval overlaps with this one."""
    return [
        NAMES[name]
        for name, (least, most) in policies.INTERVALS.items()
        if low <= most and high >= least
    ]


def behind(
    truth: pd.DataFrame, labeler: pd.DataFrame, names: Sequence[str], resamples: int, seed: int
) -> pd.DataFrame:
    """Return one row per label (or all) and value of the labeler.

    The columns say how many studies and true positives there are, the share of these studies that
    is truly positive, and the share of all positives that is among them; both with intervals.
    """
    names, patients = list(names), authors.patients(truth.index)
    released = labeler.loc[truth.index, names]
    parts = []
    for word, value in VALUES.items():
        said = released.isna() if value is None else released == value
        scored = section.statements(
            truth[names].to_numpy(float),
            said.to_numpy(float),
            names,
            patients,
            resamples,
            seed,
        )
        share, found = (
            scored[scored["metric"] == metric].set_index("group")
            for metric in ("PPV", "sensitivity")
        )
        columns = {"studies": share["TP"] + share["FP"], "positives": share["TP"]}
        for prefix, rows in (("", share), ("of_positives_", found)):
            columns[f"{prefix}share"] = rows["value"]
            columns |= {f"{prefix}{bound}": rows[bound] for bound in ("low", "high")}
        parts.append(pd.DataFrame(columns).assign(value=word).rename_axis("label").reset_index())
    frame = pd.concat(parts, ignore_index=True)
    return frame[["label", "value", *frame.columns.drop(["label", "value"])]]


def by_policy(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per label: the truly positive share behind -1, and which policy fits it."""
    rows = frame[(frame["value"] == "uncertain") & frame["label"].isin(FIVE)].set_index("label")
    rows = rows.sort_values("share", ascending=False).rename_axis(index=None)
    bounds = rows[["low", "high"]].to_numpy(float)
    shown = {
        "uncertain studies": rows["studies"],
        "truly positive": details.with_intervals(rows, "share", digits=2),
        "best policy": [NAMES[best_policies(share, share)[0]] for share in rows["share"]],
        "the interval allows": [
            ", ".join(NAMES[name] for name in best_policies(*pair)) for pair in bounds
        ],
        "smoothing that meets it": [", ".join(meeting(*pair)) or "none" for pair in bounds],
    }
    return pd.DataFrame(shown, rows.index)


def by_value(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per value of the labeler: its studies and positives, over the labels."""
    rows = frame[frame["label"] == ALL].set_index("value").rename_axis(index=None)
    shown = {
        "labels": rows["studies"],
        "truly positive": rows["positives"],
        "share of these labels": details.with_intervals(rows, "share", digits=2),
        "share of all positives": details.with_intervals(
            rows, "of_positives_share", "of_positives_", digits=2
        ),
    }
    return pd.DataFrame(shown, rows.index)


def answer(options: argparse.Namespace) -> Section:
    """Answer what is behind the uncertain and the blank labels of CheXpert."""
    paths = authors.find("labeler", options.released)
    truth, labeler = (pd.read_csv(path, index_col="Study") for path in paths)
    names = [name for name in labels.CHEXPERT if name != labels.NO_FINDING]
    sampling = options.resamples, options.seed
    five, others = (
        behind(truth, labeler, each, *sampling)
        for each in (FIVE, [name for name in names if name not in FIVE])
    )
    positives = five[five["label"] == ALL].set_index("value")["positives"]
    shares = five.query("value == 'uncertain' and label != @ALL")["share"]
    fitting = by_policy(five)
    low, high = policies.INTERVALS["ones-lsr"]
    mean = (low + high) / 2
    below = five.query("value == 'uncertain' and label != @ALL and high < @mean")["label"]
    short = (
        f"An uncertain label of CheXpert is truly positive in {percent(shares.min())} to "
        f"{percent(shares.max())} of the studies, depending on the finding; blanks, which every "
        f"policy calls negative, hide {positives['blank']} of the {positives.sum()} positives of "
        f"five labels, uncertain labels {positives['uncertain']}."
    )
    more = (
        "The labeler writes 1, 0, -1 (uncertain) or nothing; the majority of five radiologists is "
        "the truth. U-Ones is right where the finding is there, U-Zeros elsewhere, and U-Ignore "
        "leaves out all of these studies. The best policy has the smallest mean squared error. "
        f"The mean target of U-Ones+LSR, {tables.number(mean, 2)}, lies above the interval of "
        f"{len(below)} of the five labels."
    )
    shown = {
        "What the best target of an uncertain label is": fitting,
        "Where the positives of the five labels are": by_value(five),
    }
    frame = pd.concat([five, others[others["label"] != ALL]], ignore_index=True)
    return Section("What uncertain labels hide", short, more, shown, {"uncertain": frame})
