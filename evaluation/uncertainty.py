"""Measure calibration, and how well the uncertainty of several members detects errors.

Members are the networks of an ensemble or Monte-Carlo passes. Arrays are (images, labels); `spread`
takes a leading axis of members. Targets are 0, 1 or NaN (unknown; left out). Results have one value
per label, NaN where it is undefined.
"""

import numpy as np

from evaluation import EvaluationError, metrics

BINS = 15  # Guo et al. 2017


def brier(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the mean squared error of the probabilities: 0 is perfect, .25 is always .5."""
    targets, probabilities = _checked(targets, probabilities)
    return metrics.macro_mean((probabilities.T.astype(float) - targets.T) ** 2)


def calibration_error(
    targets: np.ndarray, probabilities: np.ndarray, bins: int = BINS
) -> np.ndarray:
    """Return the ECE: |observed share - mean probability| over bins, weighted by images."""
    targets, probabilities = _checked(targets, probabilities)
    bin_of = np.minimum((probabilities * bins).astype(int), bins - 1)  # 1.0 is in the last bin
    errors = np.full(targets.shape[1], np.nan)
    for label, target in enumerate(targets.T):
        known = ~np.isnan(target)
        if known.any():
            gap = target[known].astype(float) - probabilities[known, label]
            gaps = np.bincount(bin_of[known, label], gap, minlength=bins)
            errors[label] = np.abs(gaps).sum() / known.sum()
    return errors


def reliability(
    target: np.ndarray, probability: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return observed share, mean probability and images per bin of one label.

    Bins have equal width, as in scikit-learn's calibration_curve: a probability on the border of
    two bins belongs to the lower one. Empty bins are left out.
    """
    targets, probabilities = _checked(np.asarray(target)[:, None], np.asarray(probability)[:, None])
    known = ~np.isnan(targets[:, 0])
    outcome, predicted = targets[known, 0], probabilities[known, 0]
    bin_of = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], predicted)
    images = np.bincount(bin_of, minlength=bins)
    filled = images > 0
    observed, mean = (
        np.bincount(bin_of, values, minlength=bins)[filled] / images[filled]
        for values in (outcome, predicted)
    )
    return observed, mean, images[filled]


LOGIT_LIMIT = 1e-12  # probabilities are clipped to this distance from 0 and 1


def temperature(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature that maximises the mean log-likelihood over all known targets.

    All logits are divided by the temperature (Guo et al. 2017), so rankings and AUCs stay the same.
    Fit it on validation images. The slope of the likelihood falls with 1 / temperature, so its zero
    is found by bisection between 1/100 and 100.
    """
    targets, probabilities = _checked(targets, probabilities)
    known = ~np.isnan(targets)
    outcome, logits = targets[known].astype(float), _logits(probabilities[known])
    if not len(outcome):
        raise EvaluationError("A temperature needs at least one image with a known target.")
    low, high = -np.log(100), np.log(100)  # log(1 / temperature)
    for _ in range(60):
        middle = (low + high) / 2
        slope = ((outcome - _sigmoid(np.exp(middle) * logits)) * logits).sum()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def cooled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities after dividing their logits by the temperature."""
    return _sigmoid(_logits(np.asarray(probabilities, float)) / temperature)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    inside = np.clip(np.asarray(probabilities, float), LOGIT_LIMIT, 1 - LOGIT_LIMIT)
    return np.log(inside) - np.log1p(-inside)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(logits / 2))


def spread(probabilities: np.ndarray) -> np.ndarray:
    """Return the standard deviation over members (first axis); 0 for a single member."""
    return np.asarray(probabilities, float).std(axis=0)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy of each binary prediction in bits: 1 at probability .5, 0 at 0 and 1."""
    p = np.asarray(probabilities, float)
    terms = [q * np.log2(q, out=np.zeros_like(q), where=q > 0) for q in (p, 1 - p)]
    return -(terms[0] + terms[1])


def errors(targets: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Return 1 where the thresholded prediction is wrong, 0 where right, NaN where unknown."""
    targets, probabilities = _checked(targets, probabilities)
    wrong = (probabilities > threshold) != (targets == 1)
    return np.where(np.isnan(targets), np.nan, wrong.astype(float))


def error_detection(
    targets: np.ndarray, probabilities: np.ndarray, uncertainty: np.ndarray, threshold: float = 0.5
) -> np.ndarray:
    """Return the AUROC of the uncertainty as a detector of wrong predictions; .5 is chance."""
    return metrics.auroc(errors(targets, probabilities, threshold), uncertainty)


def risk_coverage(wrong: np.ndarray, uncertainty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage and error rate of one label when the most uncertain images are left out.

    Equally uncertain images are ordered at random: their errors count in expectation.
    """
    known = ~np.isnan(wrong)
    _, rank = np.unique(uncertainty[known], return_inverse=True)
    count = np.bincount(rank)
    share_wrong = np.bincount(rank, wrong[known]) / count
    kept = np.arange(1, known.sum() + 1)
    return kept / max(len(kept), 1), np.cumsum(np.repeat(share_wrong, count)) / kept


def risk_coverage_area(wrong: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """Return the AURC of each label: the mean error rate over all coverages; lower is better."""
    wrong, uncertainty = metrics.checked(wrong, uncertainty)
    risks = [risk_coverage(*columns)[1] for columns in zip(wrong.T, uncertainty.T, strict=True)]
    return np.array([risk.mean() if len(risk) else np.nan for risk in risks])


def _checked(targets: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    targets, probabilities = metrics.checked(targets, probabilities)
    if probabilities.min(initial=0) < 0 or probabilities.max(initial=0) > 1:
        raise EvaluationError(
            "calibration and errors need probabilities in [0, 1]; apply the sigmoid to logits"
        )
    return targets, probabilities
