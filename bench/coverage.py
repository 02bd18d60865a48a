"""Measure how often 95 % intervals cover the truth, in simulations: docs/statistics.md.

    python -m bench.coverage [--quick] [--write]

Patients have several images, whose labels and scores are correlated. A label's scores are normal in
each class, so that its true AUC and average precision are known. `percentile` is the bootstrap over
patients alone; `printed` is what the tables print. Values are percentages of the trials with at
least three patients that have the label; a cell of 95 has a standard error of 1.
"""

import argparse
import itertools

import numpy as np
from scipy.special import ndtr, ndtri

import bench
from evaluation import bootstrap, metrics
from reproduce.tables import scoring

IMAGES, IMAGES_PER_PATIENT = 2000, 2.5
AUCS, POSITIVES = (0.75, 0.85, 0.95), (3, 5, 10, 20, 40, 100, 200, 400)
LABEL_SHARE, SCORE_SHARE = 0.5, 0.4  # of the variance that a patient's images have in common
GAIN, TOGETHER = 0.02, 0.7  # of a second network: true difference, correlation of the scores
TRIALS, RESAMPLES = 500, 400
SEEDS, SEED_SD, PATIENT_SD = (2, 3, 5), (0.0, 0.005, 0.02), 0.005


def patients(rng: np.random.Generator) -> np.ndarray:
    """Return the patient of each image."""
    sizes = rng.geometric(1 / IMAGES_PER_PATIENT, IMAGES)
    return np.repeat(np.arange(IMAGES), sizes)[:IMAGES]


def normal(rng: np.random.Generator, patient: np.ndarray, share: float) -> np.ndarray:
    """Return standard normal numbers that images of a patient have in common to some share."""
    common = rng.normal(size=patient.max() + 1)[patient]
    return np.sqrt(share) * common + np.sqrt(1 - share) * rng.normal(size=len(patient))


def label_of(rng: np.random.Generator, patient: np.ndarray, positives: float) -> np.ndarray:
    """Return which images have a label that is expected in so many of them, 0 or 1."""
    return (normal(rng, patient, LABEL_SHARE) < ndtri(positives / IMAGES)).astype(float)


def draw(rng: np.random.Generator, positives: float, auc: float) -> tuple[np.ndarray, ...]:
    """Return labels, the scores of two networks and patients."""
    patient = patients(rng)
    label = label_of(rng, patient, positives)
    first = normal(rng, patient, SCORE_SHARE)
    second = TOGETHER * first + np.sqrt(1 - TOGETHER**2) * normal(rng, patient, SCORE_SHARE)
    shift = np.sqrt(2) * ndtri([auc, auc - GAIN])
    return label, first + shift[0] * label, second + shift[1] * label, patient


def true_ap(positives: float, auc: float) -> float:
    """Return the average precision of infinitely many images."""
    threshold = np.linspace(-7, 9, 40_001)
    share = positives / IMAGES
    hits = share * ndtr(np.sqrt(2) * ndtri(auc) - threshold)
    alarms = (1 - share) * ndtr(-threshold)
    return float(-np.trapezoid(hits / (hits + alarms), hits / share))


def covers(draws: np.ndarray, truth: float) -> bool:
    low, high = bootstrap.interval(draws)
    return bool(low <= truth <= high)


def one_trial(rng: np.random.Generator, positives: float, auc: float, seed: int) -> list[bool]:
    """Return whether each interval covers; an empty list if too few patients have the label."""
    label, *scores, patient = draw(rng, positives, auc)
    targets = label[:, None]
    (cases,) = bootstrap.patients_of(targets, patient)
    if min(cases) < bootstrap.FEWEST:
        return []
    points, draws = [], []
    for score in scores:
        points.append(metrics.score(targets, score[:, None]))
        draws.append(bootstrap.scores(targets, score[:, None], patient, RESAMPLES, seed))
    auc_draws = [each.auc[:, 0] for each in draws]
    ap_draws, ap = draws[0].ap[:, 0], true_ap(positives, auc)
    corrected = [
        bootstrap.few_cases(drawn, point.auc[0], "AUC", cases)
        for drawn, point in zip(auc_draws, points, strict=True)
    ]
    corrected_ap = bootstrap.few_cases(ap_draws, points[0].ap[0], "AP", cases)
    gap = bootstrap.stretch_few(corrected[0] - corrected[1], min(cases))
    return [
        covers(auc_draws[0], auc),
        covers(corrected[0], auc),
        covers(ap_draws, ap),
        covers(corrected_ap, ap),
        covers(auc_draws[0] - auc_draws[1], GAIN),
        covers(gap, GAIN),
    ]


def of_labels(trials: int) -> str:
    """Return the coverage for one label, by its number of positives."""
    rng, rows = np.random.default_rng(0), []
    for auc, positives in itertools.product(AUCS, POSITIVES):
        covered = [one_trial(rng, positives, auc, seed) for seed in range(trials)]
        share = np.mean([each for each in covered if each], axis=0)
        rows.append([f".{100 * auc:.0f}", f"{positives}", *(f"{100 * x:.0f}" for x in share)])
    heading = ["true AUC", "expected positives"]
    for name in ("AUC", "AP", "difference of two AUCs"):
        heading += [f"{name}: percentile", f"{name}: printed"]
    return bench.table(heading, rows, "r" * len(heading))


def of_means(trials: int) -> str:
    """Return the coverage of the mean AUC of labels, of which most are rare."""
    rng, rows = np.random.default_rng(1), []
    for positives in ((200, 100, 40), (200, 10, 5), (10, 5, 5)):
        covered = []
        for seed in range(trials):
            patient = patients(rng)
            made = []
            for count, auc in zip(positives, AUCS, strict=True):
                label = label_of(rng, patient, count)
                score = normal(rng, patient, SCORE_SHARE) + np.sqrt(2) * ndtri(auc) * label
                made.append((label, score))
            labels, scores = (np.stack(each, axis=1) for each in zip(*made, strict=True))
            if (labels.sum(axis=0) > 0).all():
                drawn = bootstrap.scores(labels, scores, patient, RESAMPLES, seed).auc
                complete = drawn.mean(axis=1)  # NaN where a label is missing
                ways = complete, metrics.macro_mean(drawn)
                covered.append([covers(each, float(np.mean(AUCS))) for each in ways])
        shares = (f"{100 * each:.0f}" for each in np.mean(covered, axis=0))
        rows.append([", ".join(map(str, positives)), *shares])
    heading = ["expected positives of three labels", "complete resamples", "printed"]
    return bench.table(heading, rows, "lrr")


def of_seeds(trials: int) -> str:
    """Return the coverage of a mean over seeds, whose draws are normal."""
    rng, rows = np.random.default_rng(2), []
    for sd, count in itertools.product(SEED_SD, SEEDS):
        covered = []
        for trial in range(trials):
            patient_error = rng.normal(0, PATIENT_SD)
            points = (patient_error + rng.normal(0, sd, count))[:, None]
            drawn = rng.normal(0, PATIENT_SD, RESAMPLES)
            draws = points[..., None] + drawn
            over = scoring.over_seeds(draws, points, range(trial, trial + count))[0]
            patients_alone = draws.mean(axis=0)[0]
            covered.append([covers(patients_alone, 0.0), covers(over, 0.0)])
        shares = (f"{100 * each:.0f}" for each in np.mean(covered, axis=0))
        rows.append([f"{sd / PATIENT_SD:g}", f"{count}", *shares])
    return bench.table(["seed SD / patient SD", "seeds", "patients alone", "printed"], rows, "rrrr")


def main() -> None:
    given: argparse.Namespace = bench.parser(__doc__, "20 trials").parse_args()
    trials = 20 if given.quick else TRIALS
    for name, made in (("labels", of_labels), ("means", of_means), ("seeds", of_seeds)):
        bench.publish(f"coverage-{name}", made(trials), given.write, bench.STATISTICS)


if __name__ == "__main__":
    main()
