"""Kills a run again and again; its predictions must equal those of an undisturbed run bit for bit.

python tests/kill_and_resume.py --kills 10        chen2019's demo, killed at random moments
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parent.parent
ROWS = ("HLCP", "HLUP-finetune")


def command(folder: Path, name: str) -> list[str]:
    small = ["--rows", *ROWS, "--phantoms", "240", "--epochs", "3", "--finetune-epochs", "2"]
    folders = ["--results-dir", str(folder / name), "--cache-dir", str(folder / "cache")]
    return [sys.executable, "-m", "reproduce.chen2019", *small, *folders]


def run(words: list[str], seconds: float | None = None) -> int:
    """The exit code; after so many seconds the whole process group is killed with -9."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        words,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        errors = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    else:
        if process.returncode:
            sys.exit(f"The run failed by itself:\n{errors.decode()}")
    return process.returncode


def probabilities_by_row(folder: Path) -> dict[str, np.ndarray]:
    by_row = {}
    for path in sorted(folder.glob("chen2019/plco-phantoms/*/seed-0/predictions.npz")):
        with np.load(path) as arrays:
            by_row[path.parts[-3]] = arrays["probabilities"]
    return by_row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        began = time.monotonic()
        run(command(folder, "undisturbed"))
        duration = time.monotonic() - began
        expected = probabilities_by_row(folder / "undisturbed")
        assert len(expected) == len(ROWS)
        kills = ended = 0
        while kills < options.kills or (folder / "killed").exists():
            # from the start of Python to beyond the first epochs, whose time is saved each time
            seconds = moments.uniform(0.05, 0.9) * duration if kills < options.kills else None
            if run(command(folder, "killed"), seconds) != 0:
                kills += 1
                print(f"killed after {seconds:.1f} of {duration:.1f} s", flush=True)
                continue
            resumed = probabilities_by_row(folder / "killed")
            for row, probabilities in expected.items():
                assert np.array_equal(probabilities, resumed[row]), f"{row} differs"
            shutil.rmtree(folder / "killed")  # and from nothing again, until all kills are spent
            ended += 1
    print(
        f"{kills} kills, {ended} finished runs: the predictions of all {len(expected)} rows are "
        "equal, bit for bit, to those of the undisturbed run."
    )


if __name__ == "__main__":
    main()
