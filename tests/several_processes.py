"""Several processes on one results folder: every row trained once, tables as one process writes.

    python tests/several_processes.py --processes 4

Four together; four of which one is killed; two with one setting and two with another.
"""

import argparse
import filecmp
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import forked

MODULE = "reproduce.chen2019"
FLAGS = [
    *("--phantoms", "150", "--size", "32", "--batch-size", "16", "--resamples", "20"),
    *("--epochs", "2", "--finetune-epochs", "1"),
]
TABLES = ("table.csv", "values.csv", "claims.csv")
OTHER = ["--learning-rate", "1e-3"]


def run(folder: Path, cache: Path, settings: list[list[str]], kill_after: float = 0) -> list[int]:
    """The exit codes of processes that were started together, one for each list of settings."""
    children = []
    for number, more in enumerate(settings):
        flags = [*FLAGS, *more, "--results-dir", str(folder), "--cache-dir", str(cache)]
        log = folder.with_name(f"{folder.name}-{number}.log")
        children.append(forked.start(MODULE, flags, log))
    if kill_after:
        time.sleep(kill_after)
        os.kill(children[0], signal.SIGKILL)
    return [forked.wait(child) for child in children]


def trained_twice(folder: Path) -> list[str]:
    """Epochs that stand more than once in a run's log."""
    twice = []
    for log in folder.rglob("log.txt"):
        epochs = re.findall(r"  epoch (\d+)/", log.read_text())
        twice += [f"{log.parent}: epoch {epoch}" for epoch in {*epochs} if epochs.count(epoch) > 1]
    return twice


def differing(one: Path, other: Path) -> list[str]:
    """The files of predictions and tables of `one` that are not equal in `other`."""
    paths = [
        *one.rglob("predictions*.npz"),
        *(path for path in one.rglob("*.csv") if path.name in TABLES),
    ]
    names = [path.relative_to(one) for path in paths]
    return [
        str(name)
        for name in names
        if not (other / name).exists() or not filecmp.cmp(one / name, other / name, shallow=False)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    count = parser.parse_args().processes
    forked.warm_up()
    problems = []
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)

        def check(name: str, ok: bool, detail: object = "") -> None:
            print(f"{'ok  ' if ok else 'NOT '} {name} {'' if ok else detail}", flush=True)
            if not ok:
                problems.append(name)

        codes = run(at / "together", at / "cache", [[]] * count)
        check(f"{count} processes end", codes == [0] * count, codes)
        check("no epoch is trained twice", not (again := trained_twice(at / "together")), again)
        run(at / "alone", at / "cache", [[]])
        other = differing(at / "alone", at / "together")
        check("predictions and tables are those of one process", not other, other)

        codes = run(at / "killed", at / "cache", [[]] * count, kill_after=6)
        check(
            "one is killed, the others end", codes == [-signal.SIGKILL, *[0] * (count - 1)], codes
        )
        other = differing(at / "alone", at / "killed")
        check("predictions and tables are the same", not other, other)

        settings = [[], OTHER] * (count // 2)
        codes = run(at / "two", at / "cache", settings)
        check("two settings end side by side", codes == [0] * len(settings), codes)
        check("no epoch is trained twice", not (again := trained_twice(at / "two")), again)
        run(at / "other", at / "cache", [OTHER])
        made = {path.read_bytes() for path in (at / "two").rglob("predictions.npz")}
        for alone in (at / "alone", at / "other"):
            lacking = [str(p) for p in alone.rglob("predictions.npz") if p.read_bytes() not in made]
            check(f"all predictions of '{alone.name}' are there", not lacking, lacking)
        leftovers = [str(path) for path in at.rglob(".part-*") if "killed" not in path.parts]
        check("nothing unfinished is left", not leftovers, leftovers)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
