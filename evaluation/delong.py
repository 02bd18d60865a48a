"""Compute DeLong's test (DeLong et al. 1988) for two models on the same images.

It takes O(n log n) per label (Sun and Xu 2014): an image contributes to the AUC the share of images
of the other class that it is ranked correctly against, which follows from sorted scores.

Images of one patient are not independent. Given patients, the variance is that of Obuchowski 1997
(Biometrics 53:567): shares are summed within patients, and positive and negative images of the same
patient have a covariance. With one image per patient it is DeLong's.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri  # scipy.stats takes a second to import

from evaluation import Names, bootstrap, metrics


class AucDifference(NamedTuple):
    """Arrays over labels, second minus first; NaN where the test is undefined."""

    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray
    variance: np.ndarray  # of the difference
    z: np.ndarray
    p: np.ndarray  # two-sided
    low: np.ndarray  # of the difference
    high: np.ndarray


def compare(
    targets: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    patients: Names | None = None,
    level: float = 0.95,
) -> AucDifference:
    """Test every label that at least two patients have and two lack.

    Equal ranks give p = 1. If a difference has no variance (both models separate the classes
    perfectly, or not at all), normal theory does not apply: z, p and the interval are NaN.
    """
    auc, variance = _auc_and_variance(targets, np.stack([first, second]), patients)
    difference = auc[1] - auc[0]
    certain = variance < 1e-30  # rounding; one changed rank of a million images is 1e-24 or more
    deviation = np.sqrt(np.where(certain & (difference != 0), np.nan, variance))
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(certain, 0 * deviation, difference / deviation)
    margin = ndtri((1 + level) / 2) * deviation
    return AucDifference(
        first=auc[0],
        second=auc[1],
        difference=difference,
        variance=variance,
        z=z,
        p=2 * ndtr(-np.abs(z)),
        low=difference - margin,
        high=difference + margin,
    )


def interval(
    targets: np.ndarray,
    probabilities: np.ndarray,
    patients: Names | None = None,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return AUC, low and high per label of one model, clipped to [0, 1]."""
    auc, variance = _auc_and_variance(targets, np.asarray(probabilities)[None], patients)
    margin = ndtri((1 + level) / 2) * np.sqrt(variance)
    return auc[0], np.clip(auc[0] - margin, 0, 1), np.clip(auc[0] + margin, 0, 1)


def _auc_and_variance(
    targets: np.ndarray, models: np.ndarray, patients: Names | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUCs (models, labels) and a variance per label.

    For two models it is the variance of the difference of AUCs, for one model that of its AUC.
    """
    for probabilities in models:
        targets, _ = metrics.checked(targets, probabilities)
    patient = bootstrap.patient_index(patients, len(targets))
    auc = np.full((len(models), targets.shape[1]), np.nan)
    variance = np.full(targets.shape[1], np.nan)
    for label, target in enumerate(targets.T):
        known = ~np.isnan(target)
        positive = target[known] == 1
        if positive.all() or not positive.any():
            continue
        shares = [_shares(score[known], positive) for score in models[..., label]]
        auc[:, label] = [positive_shares.mean() for positive_shares, _ in shares]
        parts = [
            last - first if len(models) == 2 else last
            for first, last in zip(shares[0], shares[-1], strict=True)
        ]
        of_class = patient[known][positive], patient[known][~positive]
        variance[label] = _variance(parts, of_class, patient.max() + 1)
    return auc, variance


def _variance(parts: Sequence[np.ndarray], of_class: Sequence[np.ndarray], count: int) -> float:
    """Return the variance of the mean share; NaN if one patient has all images of a class.

    `parts` are the shares of the positives and of the negatives, `of_class` their patients.
    """
    sums = [
        np.bincount(patient, part - part.mean(), count) / len(part)
        for part, patient in zip(parts, of_class, strict=True)
    ]
    has = [np.bincount(patient, minlength=count) > 0 for patient in of_class]
    clusters = [each.sum() for each in has]
    if min(clusters) < 2:
        return np.nan
    own = sum(n / (n - 1) * (each**2).sum() for n, each in zip(clusters, sums, strict=True))
    every = (has[0] | has[1]).sum()
    covariance = every / (every - 1) * (sums[0] * sums[1]).sum()
    return float(max(own + 2 * covariance, 0.0))


def _shares(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, per positive and per negative, the share of the other class ranked correctly."""
    order = np.argsort(score)
    rising, hit = score[order], positive[order]
    starts = np.concatenate([[0], np.flatnonzero(rising[1:] != rising[:-1]) + 1])  # of tied scores
    ends = np.append(starts[1:], len(score))
    hits = np.concatenate([[0], np.cumsum(hit)])
    positives = (hits[starts] + hits[ends]) / 2  # all below and half of the ties
    negatives = (starts + ends) / 2 - positives
    right = np.where(
        hit,
        np.repeat(negatives / (len(score) - hits[-1]), ends - starts),
        1 - np.repeat(positives / hits[-1], ends - starts),
    )
    share = np.empty(len(score))
    share[order] = right
    return share[positive], share[~positive]


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values (family-wise error); NaN is not a test and stays NaN."""
    return _adjusted(p, lambda rising, n: np.maximum.accumulate(rising * np.arange(n, 0, -1)))


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Return Benjamini and Hochberg's adjusted p-values (false discovery rate); NaN stays."""

    def step_up(rising: np.ndarray, n: int) -> np.ndarray:
        return np.minimum.accumulate((rising * n / np.arange(1, n + 1))[::-1])[::-1]

    return _adjusted(p, step_up)


def _adjusted(p: np.ndarray, adjust: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    adjusted = np.array(p, float)
    tests = np.flatnonzero(~np.isnan(adjusted))
    if len(tests):
        tests = tests[np.argsort(adjusted[tests], kind="stable")]
        adjusted[tests] = np.minimum(adjust(adjusted[tests], len(tests)), 1)
    return adjusted


def table(
    targets: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    labels: Names,
    patients: Names | None = None,
) -> pd.DataFrame:
    """Return one line per label, with its p-value and the adjusted ones."""
    compared = compare(targets, first, second, patients)
    frame = pd.DataFrame({"label": list(labels), **compared._asdict()})
    return frame.assign(p_holm=holm(compared.p), p_bh=benjamini_hochberg(compared.p))
