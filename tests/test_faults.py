"""Run the quick part of the campaign of bad input; every known fault has a case or a test."""

import subprocess
import sys

import pytest

from tests.campaigns.faults import __main__ as faults
from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_bad_input_that_needs_no_training_ends_as_promised():
    flags = ["--quick", "--seed", "1", "--count", "60"]
    command = [sys.executable, "-m", "tests.campaigns.faults", *flags]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    *problems, summary = ended.stdout.splitlines()
    assert not [line for line in problems if line.startswith("NOT")], ended.stdout
    assert int(summary.split()[1].strip(",")) > 200, ended.stdout + ended.stderr
    assert ended.returncode == 0


def test_every_known_fault_has_a_case_or_a_test_that_exists():
    groups = {case.group for case in faults.CASES} | {*faults.TESTS}
    last = {"A": 18, "B": 19, "C": 12}
    known = [f"{group}{number + 1}" for group in last for number in range(last[group])]
    assert not [fault for fault in (*known, "D") if fault not in groups]
    for test in faults.TESTS.values():
        path, _, name = test.partition("::")
        assert f"def {name}(" in (REPOSITORY / "tests" / path).read_text() or not name, test
