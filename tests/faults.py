"""Bad input, tried on purpose: python tests/faults.py [--quick] [--only GROUP] [--messages FILE].

The promise: every bad input gets one sentence that says what is wrong and what to do, exit code 2
(1 where some of many files or rows failed), no traceback, and nothing is silently wrong. The cases
of groups A (silently wrong), B (crashes), C (sentences that mislead) and D (other people's files)
were found by trying; group E is made by a seeded generator in tests/faults_generated.py. Commands
run in this process where nothing can kill it. Prints how many were tried and lists those that
ended otherwise; the exit code is 1 if there are any. TESTS names the tests that hold what takes
more than a case: a shell, a cluster's signals, hours of kills.
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

# what else is held, and where: part of the campaign's listing
TESTS = {
    "A5": "test_engine_state.py::test_foreign_and_damaged_predictions_are_set_aside_and_made_again",
    "A14": "test_data_prepare.py::test_what_predict_refuses_is_not_trained_on",
    "B1": "full_disk.py",
    "B2": "fuzz_run_files.py",
    "B6": "several_processes.py",
    "B14": "test_predict.py::test_bad_files_get_a_line_each_and_the_others_are_done",
    "B18": "test_env.py::test_a_paper_that_fails_does_not_stop_the_others_and_a_signal_does",
    "B19": "test_engine_trust.py::test_a_row_without_memory_is_not_the_table_s_end",
    "C6": "test_predict.py::test_a_stopped_command_goes_on_where_it_stopped",
    "C11": "test_env.py::test_foreign_venv_without_the_packages_is_left_alone",
}


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


def list_cases(options: argparse.Namespace) -> None:
    """Every case in the order of its group, and the tests that hold the rest."""
    cases = [*CASES, *faults_generated.cases(options.seed, options.count)]
    for each in sorted(cases, key=lambda case: (case.group[0], int(case.group[1:] or 0))):
        print(f"{each.group:<4} {each.name}")
    for group, test in TESTS.items():
        print(f"{group:<4} tests/{test}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only cases that train nothing")
    parser.add_argument("--only", metavar="GROUP", help="only A, B, C, D or E, or A3")
    parser.add_argument("--seed", type=int, default=0, help="of group E (%(default)s)")
    parser.add_argument("--count", type=int, default=160, help="cases of group E (%(default)s)")
    parser.add_argument("--messages", metavar="FILE", help="write what each case told its user")
    parser.add_argument("--list", action="store_true", help="print the cases, try none")
    options = parser.parse_args()
    if options.list:
        list_cases(options)
        return 0
    messages = []
    began, tried, problems = time.perf_counter(), 0, []
    for each, problem in campaign(options.quick, options.only, options.seed, options.count):
        tried += 1
        told = "".join(f"{message}\n" for message in dict.fromkeys(MESSAGES))
        messages.append(f"== {each.group} {each.name}\n{told}")
        if problem:
            problems.append(each)
            print(f"NOT  {each.group:<4} {each.name}: {problem[:300]}", flush=True)
        elif sys.stderr.isatty():
            print(f"\r{tried} tried, {len(problems)} not as promised ", end="", file=sys.stderr)
    if options.messages:
        Path(options.messages).write_text("\n".join(messages), encoding="utf-8")
    seconds = time.perf_counter() - began
    print(
        f"tried {tried}, as promised {tried - len(problems)}, not {len(problems)} ({seconds:.0f} s)"
    )
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
