"""Runs every paper with its real networks on a handful of phantoms, to its last table.

    python tests/paper_presets.py [PAPER ...] [--write]

One epoch, batches of 4, no ImageNet weights: what is shown is that each row of each paper reaches
its end, how long it takes and how much memory the process needs at most. Far too long for CI.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine, publish  # noqa: E402

IMAGES = 60
SHORT = {  # the flags that make a paper short; every other setting is the paper's
    "asadi2025": ["--epochs", "1", "--passes", "2"],
    "chen2019": ["--epochs", "1", "--finetune-epochs", "1"],
    "ge2018": ["--epochs", "1"],
    "mo2019": ["--epochs", "1"],
    "pham2019": ["--epochs", "1"],
    "wang2017": ["--epochs", "1"],
}


class Outcome(NamedTuple):
    """How a paper's run ended."""

    code: int
    seconds: float
    gigabytes: float  # the most that the process held at once
    rows: int  # with predictions
    last_lines: str


def run(paper: str, folder: Path) -> Outcome:
    """One paper in a process of its own."""
    command = [sys.executable, "-m", f"reproduce.{paper}", "--preset", "paper", *SHORT[paper]]
    command += ["--weights", "none", "--batch-size", "4", "--phantoms", str(IMAGES)]
    command += ["--resamples", "10", "--device", "cpu"]
    command += ["--results-dir", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    log = folder / f"{paper}.log"
    began = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        _, status, usage = os.wait4(process.pid, 0)  # this process's own peak, not all children's
    rows = len(list((folder / "results" / paper).rglob("predictions.npz")))
    return Outcome(
        os.waitstatus_to_exitcode(status),
        time.perf_counter() - began,
        usage.ru_maxrss * 1024 / 1e9,
        rows,
        "".join(log.read_text().splitlines(keepends=True)[-15:]),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("papers", nargs="*", metavar="PAPER", help=f"of {', '.join(SHORT)}")
    parser.add_argument("--write", action="store_true", help="put it into docs/performance.md")
    options = parser.parse_args()
    if unknown := set(options.papers) - set(SHORT):
        parser.error(f"no paper {', '.join(unknown)}: choose from {', '.join(SHORT)}")
    lines = [
        f"{machine()}; {IMAGES} phantoms, one epoch, batches of 4, no ImageNet weights.",
        "",
        "| paper | rows to their end | seconds | peak memory |",
        "|---|---:|---:|---:|",
    ]
    failed = []
    for paper in SHORT:
        if options.papers and paper not in options.papers:
            lines.append(f"| {paper} | not measured | | |")
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(paper, Path(folder))
        if outcome.code:
            failed.append(paper)
            print(f"{paper} ended with code {outcome.code}:\n{outcome.last_lines}", file=sys.stderr)
        size = f"{outcome.gigabytes:.1f} GB"
        lines.append(f"| {paper} | {outcome.rows} | {outcome.seconds:,.0f} | {size} |")
        print(lines[-1], file=sys.stderr, flush=True)
    publish("presets", "\n".join(lines), options.write and not failed)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
