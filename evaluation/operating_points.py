"""Choose thresholds for probabilities, and measure them on other images.

A label is called present if its probability is at least its threshold. Choose thresholds on
validation images and apply them to test images: on the images that they were chosen on, the results
are too good. Arrays are (images, labels); targets are 0, 1 or NaN (unknown; left out).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluation import EvaluationError, Names, bootstrap, metrics

MEASURES = ("sensitivity", "specificity", "PPV", "NPV", "F1")
YOUDEN = "youden"
COUNTS = ("TP", "FP", "FN", "TN")


class Rule(NamedTuple):
    """Youden's rule, or the best threshold with a given sensitivity or specificity."""

    fixed: str  # youden, sensitivity, specificity
    at_least: float = 0.0

    def __str__(self) -> str:
        if self.fixed == YOUDEN:
            return "Youden: largest sensitivity + specificity"
        other = "specificity" if self.fixed == "sensitivity" else "sensitivity"
        return f"largest {other} with {self.fixed} of at least {self.at_least:g}"


def parse(text: str) -> Rule:
    """Parse `youden`, `sensitivity=0.9` or `specificity=0.9`; raise EvaluationError otherwise."""
    name, equals, value = text.partition("=")
    if name == YOUDEN and not equals:
        return Rule(YOUDEN)
    try:
        at_least = float(value)
    except ValueError:
        at_least = 0.0
    if name not in ("sensitivity", "specificity") or not 0 < at_least <= 1:
        raise EvaluationError(
            f"{text!r} is no operating point: write youden, sensitivity=0.9 or specificity=0.9."
        )
    return Rule(name, at_least)


def choose(targets: np.ndarray, probabilities: np.ndarray, rule: Rule) -> np.ndarray:
    """Return one threshold per label; NaN where a label has one class only.

    Of equally good thresholds the highest is chosen, which gives the fewest false alarms. Infinity
    means that no threshold reaches the specificity, so nothing is called present.
    """
    targets, probabilities = metrics.checked(targets, probabilities)
    thresholds = np.full(targets.shape[1], np.nan)
    for label, (target, score) in enumerate(zip(targets.T, probabilities.T, strict=True)):
        known = ~np.isnan(target)
        distinct = np.append(np.inf, np.unique(score[known])[::-1])
        false, true = metrics.roc_curve(target, score)  # counts at or above each of these
        if not false[-1] or not true[-1]:
            continue
        sensitivity, specificity = true / true[-1], 1 - false / false[-1]
        if rule.fixed == YOUDEN:
            allowed = np.ones(len(distinct), bool)
            # integers, so that rounding cannot decide between equal sums
            worth = true * false[-1] - false * true[-1]
        elif rule.fixed == "sensitivity":
            allowed, worth = sensitivity >= rule.at_least - 1e-12, -false
        else:
            allowed, worth = specificity >= rule.at_least - 1e-12, true
        best = worth[allowed].max()
        thresholds[label] = distinct[np.flatnonzero(allowed & (worth == best))[0]]
    return thresholds


def outcomes(targets: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return 1 for the outcome of an image and label, else 0: (images, labels, TP FP FN TN)."""
    targets, probabilities = metrics.checked(targets, probabilities)
    present = probabilities >= np.asarray(thresholds)
    known = ~np.isnan(thresholds)
    positive, negative = (targets == 1) & known, (targets == 0) & known
    kinds = (positive & present, negative & present, positive & ~present, negative & ~present)
    return np.stack(kinds, axis=-1).astype(float)


def measures(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the measures of counts (..., TP FP FN TN); NaN where a denominator is zero."""
    true, false, missed, rejected = np.moveaxis(np.asarray(counts, float), -1, 0)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)

    return {
        "sensitivity": share(true, true + missed),
        "specificity": share(rejected, rejected + false),
        "PPV": share(true, true + false),
        "NPV": share(rejected, rejected + missed),
        "F1": share(2 * true, 2 * true + false + missed),
        "FNR": share(missed, true + missed),
        "FPR": share(false, rejected + false),
    }


def patients_of(each: np.ndarray, patients: Names | None) -> np.ndarray:
    """Return how many patients have an image of each outcome: (labels, TP FP FN TN)."""
    patient = bootstrap.patient_index(patients, len(each))
    seen = np.zeros((patient.max() + 1, *each.shape[1:]), bool)
    np.logical_or.at(seen, patient, each > 0)
    return seen.sum(axis=0)


DENOMINATORS = {  # the outcomes that a share is of
    "sensitivity": (0, 2),
    "specificity": (1, 3),
    "PPV": (0, 1),
    "NPV": (2, 3),
    "FNR": (0, 2),
    "FPR": (1, 3),
}


def few_cases(draws: np.ndarray, value: float, measure: str, cases: np.ndarray) -> np.ndarray:
    """Return the draws of a measure, following Wilson's intervals where few patients count.

    F1 is not a share of images; its draws are stretched instead (see `bootstrap.corrected`).
    """
    outcomes = DENOMINATORS.get(measure, (0, 1, 2))
    patients = int(cases[list(outcomes)].sum())
    variance = bootstrap.wilson(patients) if measure in DENOMINATORS else None
    return bootstrap.corrected(draws, value, patients, variance)


def table(
    targets: np.ndarray,
    probabilities: np.ndarray,
    labels: Names,
    thresholds: np.ndarray,
    patients: Names | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one line per label and measure, with intervals over patients.

    The columns are group, metric, value, low, high, threshold, TP, FP, FN and TN.
    """
    each = outcomes(targets, probabilities, thresholds)
    counts = each.sum(axis=0)
    draws = measures(bootstrap.totals(each, patients, resamples, seed))
    values, rows = measures(counts), []
    cases = patients_of(each, patients)
    for label, name in enumerate(labels):
        for measure in MEASURES:
            of_label = draws[measure][:, label]
            drawn = few_cases(of_label, values[measure][label], measure, cases[label])
            low, high = bootstrap.interval(drawn)
            row = {"group": name, "metric": measure, "value": values[measure][label]}
            row |= {"low": low, "high": high, "threshold": thresholds[label]}
            rows.append(row | dict(zip(COUNTS, counts[label].astype(int), strict=True)))
    return pd.DataFrame(rows)
