"""Try bad input of every kind and list what does not end as promised.

    python -m tests.campaigns.faults [--quick] [--only GROUP]

Every bad input must end with one sentence that says what is wrong and what to do, exit code 2 (1 if
some of many files or rows failed), no traceback, and no wrong number. Groups: A silently wrong
results, B crashes, C misleading messages, D files of other projects, E files and flags changed by
a seeded generator. Commands run in this process unless they could end it. The exit code is 1 if
any case did not end as promised. TESTS names the tests of faults that need more than a case: a
shell, a cluster's signals, hours of kills.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# importing the modules of cases registers them
from tests.campaigns.faults import commands, inputs, runs, tables  # noqa: F401
from tests.campaigns.faults.generated import generated
from tests.campaigns.faults.world import CASES, Case, World

TESTS = {  # faults that a test or another campaign covers, below tests/
    "A5": "test_engine_runs.py::test_foreign_and_damaged_predictions_are_set_aside_and_made_again",
    "A14": "test_data_prepare.py::test_what_predict_refuses_is_not_trained_on",
    "B1": "campaigns/full_disk.py",
    "B2": "campaigns/fuzz_run_files.py",
    "B6": "campaigns/several_processes.py",
    "B14": "test_predict.py::test_bad_files_get_a_line_each_and_the_others_are_done",
    "B18": "test_env.py::test_a_paper_that_fails_does_not_stop_the_others_and_a_signal_does",
    "B19": "test_engine_whole_runs.py::test_a_row_without_memory_is_not_the_table_s_end",
    "C6": "test_predict.py::test_a_stopped_command_goes_on_where_it_stopped",
    "C11": "test_env.py::test_foreign_venv_without_the_packages_is_left_alone",
}


def campaign(cases: list[Case]) -> Iterator[tuple[Case, str]]:
    """Check one case after another; yield it and its problem."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for case in cases:
            try:
                problem = case.check(world)
            except Exception as error:
                problem = f"the case itself broke: {type(error).__name__}: {error}"
            yield case, problem


def list_cases(cases: list[Case]) -> None:
    """Print every case in the order of its group, and the tests of the other faults."""
    for case in sorted(cases, key=lambda case: (case.group[0], int(case.group[1:] or 0))):
        print(f"{case.group:<4} {case.name.partition(' ')[2]}")
    for group, test in TESTS.items():
        print(f"{group:<4} tests/{test}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only cases that train nothing")
    parser.add_argument("--only", default="", metavar="GROUP", help="only A, B, C, D or E, or A3")
    parser.add_argument("--seed", type=int, default=0, help="of group E (%(default)s)")
    parser.add_argument("--count", type=int, default=160, help="cases of group E (%(default)s)")
    parser.add_argument("--list", action="store_true", help="print the cases, try none")
    options = parser.parse_args()
    cases = [*CASES, *generated(options.seed, options.count)]
    if options.list:
        list_cases(cases)
        return 0
    cases = [each for each in cases if each.quick or not options.quick]
    cases = [each for each in cases if each.group.startswith(options.only)]
    problems, began = 0, time.perf_counter()
    for tried, (case, problem) in enumerate(campaign(cases), 1):
        if problem:
            problems += 1
            print(f"NOT  {case.name}: {problem[:300]}", flush=True)
        elif sys.stderr.isatty():
            print(f"\r{tried} tried, {problems} not as promised ", end="", file=sys.stderr)
    seconds = time.perf_counter() - began
    good = len(cases) - problems
    print(f"tried {len(cases)}, as promised {good}, not {problems} ({seconds:.0f} s)")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
