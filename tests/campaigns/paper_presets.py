"""Run every paper with its real networks on a few synthetic images, to its last table.

    python -m tests.campaigns.paper_presets [PAPER ...] [--write]

One epoch, batches of 4, no ImageNet weights: the table shows that every row of every paper
finishes, and the time and peak memory of the process. This takes far too long for CI.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import bench
from tests.conftest import REPOSITORY

IMAGES = 60
SHORT = {  # flags that shorten a paper; every other setting is the paper's
    "asadi2025": ["--epochs", "1", "--passes", "2"],
    "chen2019": ["--epochs", "1", "--finetune-epochs", "1"],
    "ge2018": ["--epochs", "1"],
    "mo2019": ["--epochs", "1"],
    "pham2019": ["--epochs", "1", "--parents", "own"],  # few phantoms have all parents positive
    "wang2017": ["--epochs", "1"],
}


class Outcome(NamedTuple):
    """The end of a paper's script."""

    code: int
    seconds: float
    gigabytes: float  # peak memory of the process
    rows: int  # with predictions
    last_lines: str


def run(paper: str, folder: Path) -> Outcome:
    """Run one paper in a new process."""
    command = [sys.executable, "-m", f"reproduce.{paper}", "--preset", "paper", *SHORT[paper]]
    command += ["--weights", "none", "--batch-size", "4", "--phantoms", str(IMAGES)]
    command += ["--resamples", "10", "--device", "cpu"]
    command += ["--results-dir", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    log = folder / f"{paper}.log"
    began = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        _, status, usage = os.wait4(process.pid, 0)  # the peak of this process, not of all children
    rows = len(list((folder / "results" / paper).rglob("predictions.npz")))
    return Outcome(
        os.waitstatus_to_exitcode(status),
        time.perf_counter() - began,
        usage.ru_maxrss * 1024 / 1e9,
        rows,
        "".join(log.read_text().splitlines(keepends=True)[-15:]),
    )


def main() -> int:
    parser = bench.parser(__doc__)
    parser.add_argument("papers", nargs="*", metavar="PAPER", help=f"of {', '.join(SHORT)}")
    options = parser.parse_args()
    if unknown := set(options.papers) - set(SHORT):
        parser.error(f"no paper {', '.join(unknown)}: choose from {', '.join(SHORT)}")
    rows, failed = [], []
    for paper in SHORT:
        if options.papers and paper not in options.papers:
            rows.append([paper, "not measured", "", ""])
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(paper, Path(folder))
        if outcome.code:
            failed.append(paper)
            print(f"{paper} ended with code {outcome.code}:\n{outcome.last_lines}", file=sys.stderr)
        size = f"{outcome.gigabytes:.1f} GB"
        rows.append([paper, str(outcome.rows), f"{outcome.seconds:,.0f}", size])
        print(*rows[-1], sep=", ", file=sys.stderr, flush=True)
    settings = f"{IMAGES} phantoms, one epoch, batches of 4, no ImageNet weights."
    table = bench.table(["paper", "finished rows", "seconds", "peak memory"], rows, "lrrr")
    text = f"{bench.machine()}; {settings}\n\n{table}"
    bench.publish("presets", text, options.write and not failed)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
