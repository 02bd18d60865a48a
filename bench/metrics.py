"""Time exact metrics, the patient bootstrap and DeLong's test against the usual implementations.

    python -m bench.metrics [--quick] [--write]

There are 14 labels with prevalences like those of ChestX-ray14.
"""

import statistics
import tracemalloc
from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

import bench
from bench import LABELS
from evaluation import bootstrap, delong, metrics

RESAMPLES = 1000
TRIED = 3  # resamples of the slow method per turn; every one costs the same


def case(images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return targets, probabilities of two related models, and patients of 3.6 images each."""
    generator = np.random.default_rng(0)
    prevalence = np.geomspace(0.004, 0.18, LABELS)
    targets = (generator.random((images, LABELS)) < prevalence).astype(np.float32)
    logits = generator.normal(targets * 1.2, 1, (2, images, LABELS))
    first, second = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return targets, first, (first + second) / 2, generator.integers(0, images * 5 // 18, images)


def with_scikit_learn(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return AUC and AP of every label, computed in a loop."""
    by_label = [
        (roc_auc_score(target, column), average_precision_score(target, column))
        for target, column in zip(targets.T, probabilities.T, strict=True)
    ]
    return np.array(by_label).T


def rescored(targets, probabilities, patients, resamples: int) -> np.ndarray:
    """Draw, index and score again, as usually written; return (resamples, 2, labels)."""
    return bootstrap.each(
        lambda drawn: with_scikit_learn(targets[drawn], probabilities[drawn]), patients, resamples
    )


def delong_by_pairs(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the variances by DeLong's printed O(n²) form, one kernel row per positive."""
    variances = []
    for target, *scores in zip(targets.T, first.T, second.T, strict=True):
        kernels = []
        for score in scores:
            positive, negative = score[target == 1, None], score[target == 0]
            kernels.append((positive > negative) + np.float32(0.5) * (positive == negative))
        kernel = kernels[1] - kernels[0]
        parts = kernel.mean(axis=1, dtype=float), kernel.mean(axis=0, dtype=float)
        variances.append(sum(part.var(ddof=1) / len(part) for part in parts))
    return np.array(variances)


def medians(repeats: int, *methods: Callable[[], object]) -> list[float]:
    """Return the median seconds of each method; they run in turn."""
    named = {str(number): method for number, method in enumerate(methods)}
    return [statistics.median(each) for each in bench.interleave(named, repeats, 0).values()]


def peak_megabytes(method: Callable[[], object]) -> float:
    tracemalloc.start()
    method()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def row(title: str, images: int, ours: float, usual: float | None, note: str) -> list[str]:
    """Return one row of the table; `usual` is None where only ours was timed."""
    slower = ["", ""] if usual is None else [bench.duration(usual), f"{usual / ours:,.0f}×"]
    return [title, f"{images:,} × {LABELS}", bench.duration(ours), *slower, note]


def time_metrics(images: int, repeats: int) -> list[str]:
    """Time AUC and average precision of every label."""
    targets, first, _, _ = case(images)
    expected, scores = with_scikit_learn(targets, first), metrics.score(targets, first)
    worst = np.abs(expected - [scores.auc, scores.ap]).max()
    ours, usual = medians(
        repeats,
        lambda: metrics.score(targets, first),
        lambda: with_scikit_learn(targets, first),
    )
    note = f"scikit-learn in a loop; they differ by ≤ {worst:.0e}"
    return row("AUC and AP", images, ours, usual, note)


def time_bootstrap(images: int, repeats: int) -> list[str]:
    """Time the patient bootstrap of both; the usual time is scaled from a few resamples."""
    targets, first, _, patients = case(images)
    scores = bootstrap.scores(targets, first, patients, TRIED)
    expected = rescored(targets, first, patients, TRIED)
    worst = np.nanmax(np.abs(expected - np.stack([scores.auc, scores.ap], axis=1)))
    ours, usual = medians(
        repeats,
        lambda: bootstrap.scores(targets, first, patients, RESAMPLES),
        lambda: rescored(targets, first, patients, TRIED),
    )
    memory = peak_megabytes(lambda: bootstrap.scores(targets, first, patients, 64))
    title = f"{RESAMPLES:,} patient resamples of AUC and AP"
    note = (
        f"scikit-learn for each, {TRIED} timed and scaled; they differ by ≤ {worst:.0e}; ours "
        f"needs {memory:.0f} MB"
    )
    return row(title, images, ours, usual * RESAMPLES / TRIED, note)


def time_delong(images: int, repeats: int) -> list[list[str]]:
    """Time DeLong's test against its printed O(n²) form; on ten times the images, ours alone."""
    targets, first, second, _ = case(images)
    variance = delong.compare(targets, first, second).variance
    worst = np.abs(variance / delong_by_pairs(targets, first, second) - 1).max()
    ours, usual = medians(
        min(repeats, 3),
        lambda: delong.compare(targets, first, second),
        lambda: delong_by_pairs(targets, first, second),
    )
    more, one, other, _ = case(10 * images)
    (large,) = medians(repeats, lambda: delong.compare(more, one, other))
    title = "DeLong, two models"
    note = f"all pairs, O(n²); they differ by ≤ {worst:.0e}"
    return [row(title, images, ours, usual, note), row(title, 10 * images, large, None, "")]


def main() -> None:
    options = bench.parser(__doc__, quick="a tenth of the images, one repeat").parse_args()
    images, repeats = (2_500, 1) if options.quick else (25_000, 5)
    rows = [time_metrics(count, repeats) for count in (images, 10 * images)]
    rows += [time_bootstrap(images, repeats), *time_delong(images, repeats)]
    heading = ["", "images × labels", "ours", "usual", "ratio", "usual method; agreement"]
    bench.publish("metrics", f"{bench.machine()}.\n\n{bench.table(heading, rows)}", options.write)


if __name__ == "__main__":
    main()
