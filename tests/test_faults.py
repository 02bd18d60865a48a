"""The quick part of the campaign of bad input; python tests/faults.py runs all of it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_bad_input_that_needs_no_training_ends_as_promised():
    command = [sys.executable, "tests/faults.py", "--quick", "--seed", "1", "--count", "60"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    *problems, summary = ended.stdout.splitlines()
    assert not [line for line in problems if line.startswith("NOT")], ended.stdout
    assert int(summary.split()[1].strip(",")) > 200, ended.stdout + ended.stderr
    assert ended.returncode == 0
