"""Run several processes on one results folder: each row is trained once, and tables are the same.

    python -m tests.campaigns.several_processes --processes 4

Four together; four of which one is killed; two with one setting and two with another.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.campaigns import forked

FLAGS = [*forked.SMALL, "--epochs", "2", "--finetune-epochs", "1"]
TABLES = ("table.csv", "values.csv", "claims.csv")
OTHER = ["--learning-rate", "1e-3"]


def run(folder: Path, settings: list[list[str]], kill_after: float = 0) -> list[int]:
    """Start one process per list of flags at once; return their exit codes."""
    children = []
    for number, more in enumerate(settings):
        folders = ["--results-dir", str(folder), "--cache-dir", str(folder.with_name("cache"))]
        log = folder.with_name(f"{folder.name}-{number}.log")
        children.append(forked.start(forked.CHEN, [*FLAGS, *more, *folders], log))
    if kill_after:
        time.sleep(kill_after)
        os.kill(children[0], signal.SIGKILL)
    return [forked.wait(child) for child in children]


def trained_twice(folder: Path) -> list[str]:
    """Return the epochs that a run's log holds more than once."""
    twice = []
    for log in folder.rglob("log.txt"):
        epochs = re.findall(r"  epoch (\d+)/", log.read_text())
        twice += [f"{log.parent}: epoch {epoch}" for epoch in {*epochs} if epochs.count(epoch) > 1]
    return twice


def outputs(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of predictions and of every table."""
    paths = [path for path in folder.rglob("*.csv") if path.name in TABLES]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    return files | forked.predictions(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    count = parser.parse_args().processes
    forked.warm_up()
    problems = []

    def check(name: str, wrong: object) -> None:
        print(f"NOT  {name} {wrong}" if wrong else f"ok   {name}", flush=True)
        if wrong:
            problems.append(name)

    def check_codes(name: str, codes: list[int], expected: list[int]) -> None:
        check(name, "" if codes == expected else codes)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = ("alone", "together", "killed", "two", "other")
        alone, together, killed, two, other = (folder / name for name in names)

        codes = run(together, [[]] * count)
        check_codes(f"{count} processes end", codes, [0] * count)
        check("no epoch is trained twice", trained_twice(together))
        run(alone, [[]])
        wrong = forked.differing(outputs(alone), outputs(together))
        check("predictions and tables are those of one process", wrong)

        codes = run(killed, [[]] * count, kill_after=6)
        expected = [-signal.SIGKILL, *[0] * (count - 1)]
        check_codes("one is killed, the others end", codes, expected)
        wrong = forked.differing(outputs(alone), outputs(killed))
        check("predictions and tables are the same", wrong)

        settings = [[], OTHER] * (count // 2)
        codes = run(two, settings)
        check_codes("two settings end side by side", codes, [0] * len(settings))
        check("no epoch is trained twice", trained_twice(two))
        run(other, [OTHER])
        made = {path.read_bytes() for path in two.rglob("predictions.npz")}
        for single in (alone, other):
            paths = single.rglob("predictions.npz")
            missing = [str(path) for path in paths if path.read_bytes() not in made]
            check(f"all predictions of '{single.name}' are there", missing)
        unfinished = [str(path) for path in folder.rglob(".part-*") if "killed" not in path.parts]
        check("no unfinished file is left", unfinished)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
