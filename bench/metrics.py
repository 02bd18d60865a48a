"""Time of exact metrics, patient bootstrap and DeLong's test, against the usual implementations.

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
        lambda drawn: with_scikit_learn(targets[drawn], probabilities[drawn]), patients, resamples
    )


def delong_by_pairs(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The variances of DeLong's printed O(n²) form, one line of the kernel for each positive."""
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


class Table:
    """The lines of the table: what was computed, how long ours takes, how long the usual way."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, ...]] = [
            ("", "images × labels", "ours", "usual", "ratio", "usual way; agreement"),
            ("---",) * 6,
        ]

    def add(self, what: str, size: str, ours: float, usual: float | None, note: str) -> None:
        slower = ("", "") if usual is None else (show(usual), f"{usual / ours:,.0f}×")
        self.lines.append((what, size, show(ours), *slower, note))

    def markdown(self) -> str:
        return "\n".join(f"| {' | '.join(line)} |" for line in self.lines)


def time_metrics(table: Table, images: int, repeats: int) -> None:
    """AUC and average precision of every label."""
    targets, first, _, _ = case(images)
    expected, scores = with_scikit_learn(targets, first), metrics.score(targets, first)
    worst = np.abs(expected - [scores.auc, scores.ap]).max()
    ours, usual = seconds(
        lambda: metrics.score(targets, first),
        lambda: with_scikit_learn(targets, first),
        repeats=repeats,
    )
    note = f"scikit-learn in a loop; apart by ≤ {worst:.0e}"
    table.add("AUC and AP", f"{images:,} × {LABELS}", ours, usual, note)


def time_bootstrap(table: Table, images: int, repeats: int) -> None:
    """The patient bootstrap of both; the usual way is timed on a few resamples and scaled."""
    targets, first, _, patients = case(images)
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
    size = f"{images:,} × {LABELS}"
    table.add(what, size, ours, usual * RESAMPLES / tried, f"{note}; ours needs {memory:.0f} MB")


def time_delong(table: Table, images: int, repeats: int) -> None:
    """DeLong's test against its printed O(n²) form; on ten times the images ours alone."""
    targets, first, second, _ = case(images)
    variance = delong.compare(targets, first, second).variance
    worst = np.abs(variance / delong_by_pairs(targets, first, second) - 1).max()
    ours, usual = seconds(
        lambda: delong.compare(targets, first, second),
        lambda: delong_by_pairs(targets, first, second),
        repeats=min(repeats, 3),
    )
    note = f"all pairs, O(n²); apart by ≤ {worst:.0e}"
    table.add("DeLong, two models", f"{images:,} × {LABELS}", ours, usual, note)
    more, one, other, _ = case(10 * images)
    (ours,) = seconds(lambda: delong.compare(more, one, other), repeats=repeats)
    table.add("DeLong, two models", f"{10 * images:,} × {LABELS}", ours, None, "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.metrics", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the images, one repeat")
    parser.add_argument("--write", action="store_true", help="put the table in docs")
    arguments = parser.parse_args()
    images, repeats = (2_500, 1) if arguments.quick else (25_000, 5)
    table = Table()
    for count in (images, 10 * images):
        time_metrics(table, count, repeats)
    time_bootstrap(table, images, repeats)
    time_delong(table, images, repeats)
    publish("metrics", f"{machine()}.\n\n{table.markdown()}", arguments.write)


if __name__ == "__main__":
    main()
