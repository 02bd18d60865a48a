"""What it costs to compare a cache's checksums once in a process: seconds, and share of an epoch.

The epoch is the input pipeline's alone, without a network, so the share of a training's epoch is
smaller still: 33 images a second (DenseNet-121 on two cores) to some thousands (on one GPU).
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from bench import machine
from bench.input import DRAW, STORED, epoch, write_films
from data import cache
from data.cache import Cache
from data.prepare import prepare


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.checksums", description=__doc__)
    parser.add_argument("--images", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "films"
        names = write_films(root, options.images, 16, STORED, "bmp")
        made = prepare(root, names, Path(folder) / "cache", STORED)
        checking, working, feeding = [], [], []
        for _ in range(options.rounds):
            cache._compared.clear()  # as in a new process
            start, worked = time.perf_counter(), time.process_time()
            opened = Cache(made)
            checking.append(time.perf_counter() - start)
            working.append(time.process_time() - worked)
            start = time.perf_counter()
            epoch(opened, DRAW)
            feeding.append(time.perf_counter() - start)
    check, work, feed = min(checking), min(working), min(feeding)
    cores = len(os.sched_getaffinity(0))
    print(machine())
    print(
        f"{options.images:,} images of {STORED} px are compared in {check:.2f} s, which is "
        f"{work:.2f} s of one core ({options.images * STORED**2 / work / 1e9:.1f} GB/s). Their "
        f"epoch takes the input pipeline alone {feed:.2f} s."
    )
    for rate in (33, 500, 1000, 2000):  # images/s; the reading is spread over the cores
        share = 100 * rate * work / cores / options.images
        print(f"Share of an epoch of training at {rate:,} images/s: {share:.2f} %")


if __name__ == "__main__":
    main()
