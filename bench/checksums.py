"""Measure the cost of comparing a cache's checksums: seconds, and the share of an epoch.

A process compares them once. The shares are for training at 33 images/s (DenseNet-121 on two
cores) to some thousands (one GPU).
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import bench
from bench.input import DRAW, STORED, epoch, write_films
from data import cache
from data.prepare import prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "films"
        names = write_films(root, options.images, 16, STORED, "bmp")
        made = prepare(root, names, Path(folder) / "cache", STORED)
        cpu_seconds = []

        def compare() -> None:
            cache._compared.clear()  # as in a new process
            before = time.process_time()
            cache.Cache(made)
            cpu_seconds.append(time.process_time() - before)

        methods = {"compare": compare, "epoch": lambda: epoch(cache.Cache(made), DRAW)}
        seconds = bench.interleave(methods, options.rounds, warm_up=0)
    worked, cores = min(cpu_seconds), len(os.sched_getaffinity(0))
    print(bench.machine())
    print(
        f"{options.images:,} images of {STORED} px are compared in {min(seconds['compare']):.2f} s,"
        f" which is {worked:.2f} s of one core ({options.images * STORED**2 / worked / 1e9:.1f}"
        f" GB/s). One epoch of the input pipeline alone takes {min(seconds['epoch']):.2f} s."
    )
    for rate in (33, 500, 1000, 2000):  # images/s; the reading is spread over the cores
        share = 100 * rate * worked / cores / options.images
        print(f"Share of an epoch of training at {rate:,} images/s: {share:.2f} %")


if __name__ == "__main__":
    main()
