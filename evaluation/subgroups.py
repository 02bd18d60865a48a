"""Compare a model's results between groups of images: by sex, age band or view.

The results are the AUC of each label, and its false negative and false positive rates at its
operating point. All groups use the same resamples of patients, so gaps are paired if a patient has
images in both groups (two views). Each gap has a p-value from its bootstrap deviation, and one
adjusted by Holm's method for all gaps of the table, because some of many gaps are large by chance.
"""

import itertools
from collections.abc import Sequence
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


class Subgroups(NamedTuple):
    """Results per group, label and metric, and gaps per pair of groups, label and metric."""

    values: pd.DataFrame  # by, subgroup, group, metric, value, low, high, positives, images
    gaps: pd.DataFrame  # by, first, second, group, metric, difference, low, high, p, p_holm


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
    """Compare the groups of every attribute in `by`, which maps it to the group of each image."""
    values, gaps = [], []
    for attribute, group_of in by.items():
        if len(group_of) != len(targets):
            raise EvaluationError(
                f"{len(group_of)} values of {attribute} for {len(targets)} images"
            )
        names = sorted({*group_of} - {UNKNOWN}) + [UNKNOWN] * (UNKNOWN in group_of)
        measured = {
            name: _measure(
                np.where((group_of == name)[:, None], targets, np.nan),
                probabilities,
                thresholds,
                patients,
                resamples=resamples,
                seed=seed,
            )
            for name in names
        }
        for name, (point, draws) in measured.items():
            inside = targets[group_of == name]
            values += _rows({"by": attribute, "subgroup": name}, labels, point, draws, inside)
        compared = [name for name in names if name != UNKNOWN]
        for first, second in itertools.combinations(compared, 2):
            pair = {"by": attribute, "first": first, "second": second}
            tested = _enough(targets[group_of == first]) & _enough(targets[group_of == second])
            gaps += _gap_rows(pair, labels, measured[first], measured[second], tested)
    columns = ["by", "first", "second", "group", "metric", "difference", "low", "high", "p"]
    frame = pd.DataFrame(gaps, columns=columns)
    p_holm = delong.holm(frame["p"].to_numpy(float))
    return Subgroups(pd.DataFrame(values), frame.assign(p_holm=p_holm))


def _measure(targets, probabilities, thresholds, patients, *, resamples: int, seed: int):
    """Return {metric: (labels + mean,)} and {metric: (resamples, labels + mean)} of one group."""
    each = operating_points.outcomes(targets, probabilities, thresholds)
    rates = operating_points.measures(each.sum(axis=0))
    drawn = operating_points.measures(bootstrap.totals(each, patients, resamples, seed))
    auc = metrics.auroc(targets, probabilities)
    point = {"AUC": auc} | {name: rates[name] for name in RATES}
    scored = bootstrap.scores(targets, probabilities, patients, resamples, seed)
    draws = {"AUC": scored.auc} | {name: drawn[name] for name in RATES}
    for name, value in point.items():
        # average the same labels in every resample as in the group's own mean
        draws[name] = np.where(np.isnan(value), np.nan, draws[name])
    return tuple(
        {name: _with_mean(value) for name, value in part.items()} for part in (point, draws)
    )


def _with_mean(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, metrics.macro_mean(values)[..., None]], axis=-1)


def _rows(group: dict, labels, point: dict, draws: dict, targets: np.ndarray) -> list[dict]:
    positives = np.append((targets == 1).sum(axis=0), (targets == 1).sum())
    images = np.append((~np.isnan(targets)).sum(axis=0), len(targets))
    rows = []
    for column, label in enumerate([*labels, AVERAGE]):
        counts = {"positives": int(positives[column]), "images": int(images[column])}
        for metric, values in point.items():
            low, high = bootstrap.interval(draws[metric][:, column])
            row = {"group": label, "metric": metric, "value": values[column]}
            rows.append(group | row | {"low": low, "high": high} | counts)
    return rows


def _enough(targets: np.ndarray) -> np.ndarray:
    """Return per metric (AUC, FNR, FPR) and label if a group has enough cases for a test."""
    positives, negatives = ((targets == value).sum(axis=0) >= FEWEST for value in (1, 0))
    return np.stack([positives & negatives, positives, negatives])


def _gap_rows(pair: dict, labels, first: tuple, second: tuple, tested: np.ndarray) -> list[dict]:
    """Return the gaps, second minus first; their mean is over the labels that both groups have.

    Gaps of labels with few cases have an interval but no p-value, because resampling a few cases is
    unreliable.
    """
    rows = []
    for metric, enough in zip(first[0], tested, strict=True):
        (point, draws), (other, other_draws) = (
            (part[0][metric][:-1], part[1][metric][:, :-1]) for part in (first, second)
        )
        difference = _with_mean(other - point)
        drawn = _with_mean(other_draws - draws)
        for column, label in enumerate([*labels, AVERAGE]):
            known = drawn[:, column][~np.isnan(drawn[:, column])]
            deviation = known.std(ddof=1) if len(known) > 1 else 0.0
            low, high = bootstrap.interval(drawn[:, column])
            can_test = deviation > 0 and np.append(enough, enough.any())[column]
            z = abs(difference[column]) / deviation if can_test else np.nan
            row = {"group": label, "metric": metric, "difference": difference[column]}
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
