"""Compare a model's results between groups of images: by sex, age band or view.

The results are the AUC of each label, and its false negative and false positive rates at its
operating point. All groups use the same resamples of patients, so gaps are paired if a patient has
images in both groups (two views). Each gap has a p-value from its bootstrap deviation, and one
adjusted by Holm's method for all gaps of the table, because some of many gaps are large by chance.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr

from evaluation import EvaluationError, Names, bootstrap, delong, metrics, operating_points

UNKNOWN = "unknown"
AGE_BANDS = ((0, "0-19"), (20, "20-39"), (40, "40-59"), (60, "60-79"), (80, "80 and over"))
OLDEST = 120  # years; some label files contain ages such as 411
AVERAGE = "mean"
RATES = ("FNR", "FPR")
FEWEST = 10  # positives (AUC, FNR) and negatives (AUC, FPR) that a group needs for a test
COMMON = 3  # positives and negatives of a label in every group: fewer, and no mean counts it


class Subgroups(NamedTuple):
    """Results per group, label and metric, and gaps per pair of groups, label and metric."""

    values: pd.DataFrame  # by, subgroup, group, metric, value, low, high, positives, images
    gaps: pd.DataFrame  # by, first, second, group, metric, difference, low, high, p, p_holm
    left_out: dict[str, list[str]]  # attribute -> labels that no mean of its groups counts


class _Measured(NamedTuple):
    """The results of one group, by metric."""

    point: dict[str, np.ndarray]  # (labels,)
    draws: dict[str, np.ndarray]  # (resamples, labels)
    few: dict[str, np.ndarray]  # draws with the intervals of few cases
    cases: dict[str, np.ndarray]  # (labels,) patients that the metric depends on


def age_bands(ages: Sequence) -> np.ndarray:
    """Return the age band of each image; ages may be numbers or texts such as 058Y."""
    texts = pd.Series([str(age).strip() for age in ages])
    years = pd.to_numeric(texts.str.removesuffix("Y").str.removesuffix("y"), errors="coerce")
    known = years.between(0, OLDEST).to_numpy()
    starts, names = (np.array(each) for each in zip(*AGE_BANDS, strict=True))
    band = np.searchsorted(starts, years.fillna(0).clip(lower=0).to_numpy(), "right") - 1
    return np.where(known, names[band], UNKNOWN)


def sexes(values: Sequence) -> np.ndarray:
    """Return female, male or unknown for texts such as F, M, Female and Male."""
    names = {"f": "female", "female": "female", "m": "male", "male": "male"}
    return np.array([names.get(str(value).strip().casefold(), UNKNOWN) for value in values])


def views(values: Sequence) -> np.ndarray:
    """Return the view as written (PA, AP, Frontal AP), or unknown if it is blank."""
    texts = [str(value).strip() for value in values]
    return np.array([UNKNOWN if text in ("", "nan", "None") else text for text in texts])


ATTRIBUTES = {"sex": sexes, "age": age_bands, "view": views}  # name -> groups of its values


def parse(text: str) -> tuple[str, ...]:
    """Parse attributes such as `sex,age`; raise EvaluationError if one is unknown."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in ATTRIBUTES]:
        raise EvaluationError(f"--by {unknown[0]!r} is unknown; use {', '.join(ATTRIBUTES)}.")
    return names


def compare(
    targets: np.ndarray,
    probabilities: np.ndarray,
    labels: Names,
    thresholds: np.ndarray,
    by: dict[str, np.ndarray],
    patients: Names | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Subgroups:
    """Compare the groups of every attribute in `by`, which maps it to the group of each image.

    Means are over the labels that all groups of an attribute have, so that groups do not differ by
    the labels that enter their means.
    """
    values, gaps, left_out = [], [], {}
    for attribute, group_of in by.items():
        if len(group_of) != len(targets):
            raise EvaluationError(
                f"{len(group_of)} values of {attribute} for {len(targets)} images"
            )
        compared = sorted({*group_of} - {UNKNOWN})
        common = np.ones(len(labels), bool)
        for name in compared:
            inside = targets[group_of == name]
            for value in (0, 1):
                common &= (inside == value).sum(axis=0) >= COMMON
        left_out[attribute] = [name for name, kept in zip(labels, common, strict=True) if not kept]
        measured = {}
        for name in [*compared, *[UNKNOWN] * (UNKNOWN in group_of)]:
            inside = np.where((group_of == name)[:, None], targets, np.nan)
            arrays = inside, probabilities, thresholds, patients
            measured[name] = _measure(*arrays, resamples=resamples, seed=seed)
            group = {"by": attribute, "subgroup": name}
            values += _rows(group, labels, measured[name], targets[group_of == name], common)
        for first, second in itertools.combinations(compared, 2):
            pair = {"by": attribute, "first": first, "second": second}
            tested = _enough(targets[group_of == first]) & _enough(targets[group_of == second])
            gaps += _gap_rows(pair, labels, measured[first], measured[second], tested, common)
    columns = ["by", "first", "second", "group", "metric", "difference", "low", "high", "p"]
    frame = pd.DataFrame(gaps, columns=columns)
    p_holm = delong.holm(frame["p"].to_numpy(float))
    return Subgroups(pd.DataFrame(values), frame.assign(p_holm=p_holm), left_out)


def _measure(targets, probabilities, thresholds, patients, *, resamples: int, seed: int):
    each = operating_points.outcomes(targets, probabilities, thresholds)
    rates = operating_points.measures(each.sum(axis=0))
    drawn = operating_points.measures(bootstrap.totals(each, patients, resamples, seed))
    scored = bootstrap.scores(targets, probabilities, patients, resamples, seed)
    auc = metrics.auroc(targets, probabilities)
    point = {"AUC": auc} | {name: rates[name] for name in RATES}
    draws = {"AUC": scored.auc} | {name: drawn[name] for name in RATES}
    outcomes = operating_points.patients_of(each, patients)
    classes = bootstrap.patients_of(targets, patients)  # (labels, with and without)
    cases = {"AUC": classes.min(axis=1), "FNR": classes[:, 0], "FPR": classes[:, 1]}
    few = {}
    for name, values in point.items():
        correct: Callable[..., np.ndarray] = operating_points.few_cases
        counts = outcomes
        if name == "AUC":
            correct, counts = bootstrap.few_cases, classes
        columns = zip(draws[name].T, values, counts, strict=True)
        few[name] = np.stack([correct(one, value, name, n) for one, value, n in columns], axis=-1)
    return _Measured(point, draws, few, cases)


def _mean(values: np.ndarray, common: np.ndarray) -> np.ndarray:
    return metrics.macro_mean(np.where(common, values, np.nan))


def _rows(group: dict, labels, measured: _Measured, targets: np.ndarray, common) -> list[dict]:
    positives, images = (targets == 1).sum(axis=0), (~np.isnan(targets)).sum(axis=0)
    rows = []
    for metric, point in measured.point.items():
        few = measured.few[metric]
        mean = float(_mean(point, common)), _mean(measured.draws[metric], common)
        numbers = [*zip(labels, point, few.T, positives, images, strict=True)]
        numbers.append((AVERAGE, *mean, positives[common].sum(), len(targets)))
        for label, value, draws, with_it, of_all in numbers:
            low, high = bootstrap.interval(draws)
            row = group | {"group": label, "metric": metric, "value": value}
            counts = {"positives": int(with_it), "images": int(of_all)}
            rows.append(row | {"low": low, "high": high} | counts)
    return rows


def _enough(targets: np.ndarray) -> np.ndarray:
    """Return per metric (AUC, FNR, FPR) and label if a group has enough cases for a test."""
    positives, negatives = ((targets == value).sum(axis=0) >= FEWEST for value in (1, 0))
    return np.stack([positives & negatives, positives, negatives])


def _gap_rows(
    pair: dict, labels, first: _Measured, second: _Measured, tested: np.ndarray, common: np.ndarray
) -> list[dict]:
    """Return the gaps, second minus first.

    Gaps of labels with few cases have an interval but no p-value, because resampling a few cases is
    unreliable.
    """
    rows = []
    for metric, enough in zip(first.point, tested, strict=True):
        difference = second.point[metric] - first.point[metric]
        drawn = second.draws[metric] - first.draws[metric]
        few = second.few[metric] - first.few[metric]
        cases = np.minimum(first.cases[metric], second.cases[metric])
        gaps = [
            (label, gap, bootstrap.stretch_few(draws, int(fewest)), can_test)
            for label, gap, draws, fewest, can_test in zip(
                labels, difference, few.T, cases, enough, strict=True
            )
        ]
        mean = float(_mean(difference, common)), _mean(drawn, common)
        gaps.append((AVERAGE, *mean, (enough & common).any()))
        for label, gap, draws, can_test in gaps:
            known = draws[~np.isnan(draws)]
            deviation = known.std(ddof=1) if len(known) > 1 else 0.0
            low, high = bootstrap.interval(draws)
            z = abs(gap) / deviation if can_test and deviation > 0 else np.nan
            row = {"group": label, "metric": metric, "difference": gap}
            rows.append(pair | row | {"low": low, "high": high, "p": 2 * ndtr(-z)})
    return rows


def multiplicity(gaps: pd.DataFrame) -> str:
    """Say how many gaps were tested, and how many would be significant by chance alone."""
    tests = int(gaps["p"].notna().sum())
    small, adjusted = (int((gaps[column] < 0.05).sum()) for column in ("p", "p_holm"))
    return (
        f"{tests} gaps were compared, so about {0.05 * tests:.0f} would have p < .05 by chance "
        f"alone; {small} have, and {adjusted} still have it after Holm's correction."
    )
