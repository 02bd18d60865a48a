"""Bad input, tried on purpose: python tests/faults.py [--quick] [--only GROUP] [--seed N].

The promise: every bad input gets one sentence that says what is wrong and what to do, exit code 2
(1 where some of many files or rows failed), no traceback, and nothing is silently wrong. The cases
of groups A (silently wrong), B (crashes), C (sentences that mislead) and D (other people's files)
were found by trying; group E is made by a seeded generator in tests/faults_generated.py. Commands
run in this process where nothing can kill it. Prints how many were tried and lists those that
ended otherwise; the exit code is 1 if there are any.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# importing the modules of cases registers them
from tests import faults_cases, faults_generated, faults_reruns, faults_runs, faults_tables  # noqa: F401
from tests.faults_world import CASES, MESSAGES, Case, World


def campaign(quick: bool, only: str | None, seed: int, count: int) -> Iterator[tuple[Case, str]]:
    """(case, problem) of every case, as each is tried."""
    cases = [*CASES, *faults_generated.cases(seed, count)]
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for each in cases:
            if (quick and not each.quick) or (only and not each.group.startswith(only)):
                continue
            MESSAGES.clear()
            try:
                problem = each.try_(world)
            except Exception as error:
                problem = f"the case itself broke: {type(error).__name__}: {error}"
            yield each, problem


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only cases that train nothing")
    parser.add_argument("--only", metavar="GROUP", help="only A, B, C, D or E, or A3")
    parser.add_argument("--seed", type=int, default=0, help="of group E (%(default)s)")
    parser.add_argument("--count", type=int, default=160, help="cases of group E (%(default)s)")
    options = parser.parse_args()
    began, tried, problems = time.perf_counter(), 0, []
    for each, problem in campaign(options.quick, options.only, options.seed, options.count):
        tried += 1
        if problem:
            problems.append(each)
            print(f"NOT  {each.group:<4} {each.name}: {problem[:300]}", flush=True)
        elif sys.stderr.isatty():
            print(f"\r{tried} tried, {len(problems)} not as promised ", end="", file=sys.stderr)
    seconds = time.perf_counter() - began
    print(
        f"tried {tried}, as promised {tried - len(problems)}, not {len(problems)} ({seconds:.0f} s)"
    )
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
