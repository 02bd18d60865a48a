"""Exact metrics, patient bootstrap and DeLong against the usual ways to get the same numbers.

`python -m bench.metrics [--quick] [--write]`; 14 labels with prevalences like ChestX-ray14's.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from bench import machine, publish
from evaluation import bootstrap, delong, metrics

LABELS = 14
RESAMPLES = 1000


def case(images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Targets, the probabilities of two related models, and patients of 3.6 images each."""
    generator = np.random.default_rng(0)
    prevalence = np.geomspace(0.004, 0.18, LABELS)
    targets = (generator.random((images, LABELS)) < prevalence).astype(np.float32)
    logits = generator.normal(targets * 1.2, 1, (2, images, LABELS))
    first, second = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return targets, first, (first + second) / 2, generator.integers(0, images * 5 // 18, images)


def with_scikit_learn(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """AUC and AP of every label, in a loop."""
    by_label = [
        (roc_auc_score(target, column), average_precision_score(target, column))
        for target, column in zip(targets.T, probabilities.T, strict=True)
    ]
    return np.array(by_label).T


def rescored(targets, probabilities, patients, resamples: int) -> np.ndarray:
    """The bootstrap as usually written: draw, index, score anew; (resamples, 2, labels)."""
    return bootstrap.each(
        lambda rows: with_scikit_learn(targets[rows], probabilities[rows]), patients, resamples
    )


def delong_by_pairs(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The variances of DeLong's printed O(n²) form, with a row of the kernel for each positive."""
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


def seconds(*ways: Callable[[], object], repeats: int) -> list[float]:
    """The median time of each way, taking turns."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats):
        for way, taken in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def peak_megabytes(way: Callable[[], object]) -> float:
    tracemalloc.start()
    way()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def show(duration: float) -> str:
    return f"{duration * 1e3:,.0f} ms" if duration < 1 else f"{duration:,.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the images, one repeat")
    parser.add_argument("--write", action="store_true", help="put the table in docs")
    arguments = parser.parse_args()
    images, repeats = (2_500, 1) if arguments.quick else (25_000, 5)
    rows = []

    def row(what: str, size: str, ours: float, usual: float, note: str) -> None:
        ratio = f"{usual / ours:,.0f}×" if usual == usual else ""
        rows.append((what, size, show(ours), show(usual) if ratio else "", ratio, note))

    for count in (images, 10 * images):
        targets, first, second, patients = case(count)
        expected, scores = with_scikit_learn(targets, first), metrics.score(targets, first)
        worst = np.abs(expected - [scores.auc, scores.ap]).max()
        ours, usual = seconds(
            lambda t=targets, p=first: metrics.score(t, p),
            lambda t=targets, p=first: with_scikit_learn(t, p),
            repeats=repeats,
        )
        size = f"{count:,} × {LABELS}"
        row("AUC and AP", size, ours, usual, f"scikit-learn in a loop; apart by ≤ {worst:.0e}")

    targets, first, second, patients = case(images)
    size = f"{images:,} × {LABELS}"
    tried = 3  # resamples of the slow way a turn; every one costs the same
    scores = bootstrap.scores(targets, first, patients, tried)
    expected = rescored(targets, first, patients, tried)
    worst = np.nanmax(np.abs(expected - np.stack([scores.auc, scores.ap], axis=1)))
    ours, usual = seconds(
        lambda: bootstrap.scores(targets, first, patients, RESAMPLES),
        lambda: rescored(targets, first, patients, tried),
        repeats=repeats,
    )
    memory = peak_megabytes(lambda: bootstrap.scores(targets, first, patients, 64))
    note = f"scikit-learn anew for each, {tried} timed and scaled; apart by ≤ {worst:.0e}"
    what = f"{RESAMPLES:,} patient resamples of AUC and AP"
    row(what, size, ours, usual * RESAMPLES / tried, f"{note}; ours needs {memory:.0f} MB")

    variance = delong.compare(targets, first, second).variance
    expected = delong_by_pairs(targets, first, second)
    worst = np.abs(variance / expected - 1).max()
    ours, usual = seconds(
        lambda: delong.compare(targets, first, second),
        lambda: delong_by_pairs(targets, first, second),
        repeats=min(repeats, 3),
    )
    row("DeLong, two models", size, ours, usual, f"all pairs, O(n²); apart by ≤ {worst:.0e}")
    targets, first, second, _ = case(10 * images)
    (ours,) = seconds(lambda: delong.compare(targets, first, second), repeats=repeats)
    row("DeLong, two models", f"{10 * images:,} × {LABELS}", ours, float("nan"), "")

    heading = ("", "images × labels", "ours", "usual", "ratio", "usual way; agreement")
    lines = [heading, ("---",) * len(heading), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    publish("metrics", f"{machine()}.\n\n{table}", arguments.write)


if __name__ == "__main__":
    main()
