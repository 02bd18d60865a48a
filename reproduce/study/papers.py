"""The papers' own tables on their demos' phantoms with three seeds, and what becomes of claims."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pandas as pd

from reproduce import RunError
from reproduce.study.contrasts import QUICK_PIXELS

QUICK = ("--phantoms", "160", "--size", str(QUICK_PIXELS), "--epochs", "1", "--resamples", "50")


def tabulate(paper: str, options: Namespace) -> None:
    """Run a paper's script with the demo's settings; it goes on where it was stopped."""
    sizes = QUICK if options.quick else ()
    command = [
        *(sys.executable, "-m", f"reproduce.{paper}", *sizes),
        *("--seeds", ",".join(map(str, options.seeds)), "--device", options.device),
        *("--results-dir", options.results_dir / "papers", "--cache-dir", options.cache_dir),
    ]
    print(f"\n=== the tables of {paper}", flush=True)
    code = subprocess.run([str(word) for word in command]).returncode
    if code == 1:  # a row failed, which the tables show
        return
    if code:
        raise RunError(f"The tables of {paper} stopped; their reason stands above.")


def claims(paper: str, results: Path) -> pd.DataFrame | None:
    """The claims of a paper as its own script judged them on phantoms; None if it did not run."""
    return _table(paper, results, "claims", dtype=str, keep_default_na=False)


def values(paper: str, results: Path) -> pd.DataFrame | None:
    """The numbers of every row of a paper on phantoms; None if it did not run."""
    return _table(paper, results, "values")


def _table(paper: str, results: Path, stem: str, **how) -> pd.DataFrame | None:
    folders = sorted((results / "papers" / paper).glob("*-phantoms"))
    path = next((each / f"{stem}.csv" for each in folders if (each / f"{stem}.csv").exists()), None)
    return None if path is None else pd.read_csv(path, **how)
