"""Run the papers' own scripts on their demos' phantoms with three seeds, and read their tables."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from reproduce import RunError
from reproduce.engine.options import Options
from reproduce.study.contrasts import PIXELS

QUICK = ("--phantoms", "160", "--size", str(PIXELS), "--epochs", "1", "--resamples", "50")


def tabulate(paper: str, options: Options, quick: bool) -> None:
    """Run a paper's script with the demo's settings; it resumes where it was stopped."""
    command = [sys.executable, "-m", f"reproduce.{paper}"]
    command += QUICK if quick else ()
    command += ["--seeds", ",".join(map(str, options.seeds)), "--device", options.device]
    command += ["--results-dir", str(options.results_dir / "papers")]
    command += ["--cache-dir", str(options.cache_dir)]
    print(f"\n=== the tables of {paper}", flush=True)
    code = subprocess.run(command).returncode
    if code not in (0, 1):  # with 1 a row failed, which the tables show
        raise RunError(f"The tables of {paper} stopped for the reason above. Rerun to resume.")


def claims(paper: str, results: Path) -> pd.DataFrame | None:
    """Return a paper's claims as its script judged them on phantoms; None if it did not run."""
    return _table(paper, results, "claims", dtype=str, keep_default_na=False)


def values(paper: str, results: Path) -> pd.DataFrame | None:
    """Return the numbers of every row of a paper on phantoms; None if it did not run."""
    return _table(paper, results, "values")


def _table(paper: str, results: Path, stem: str, **options) -> pd.DataFrame | None:
    folder = results / "papers" / paper
    path = next(iter(sorted(folder.glob(f"*-phantoms/{stem}.csv"))), None)
    return None if path is None else pd.read_csv(path, **options)
