"""Options and a script that trains a small table, for the tests of rows on Ray."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from reproduce.engine.options import Options
from tests.conftest import REPOSITORY
from tests.flags import with_changes

SMALL = [
    *("--phantoms", "150", "--size", "32", "--batch-size", "16", "--resamples", "20"),
    *("--epochs", "2", "--finetune-epochs", "1"),
]


def options_for(folder: Path, on: str = "ray", **changes: Any) -> Options:
    return Options(on=on, results_dir=folder / "results", cache_dir=folder / "cache", **changes)


def script(folder: Path, *flags: str) -> subprocess.Popen:
    own = ["--results-dir", str(folder), "--cache-dir", str(folder.parent / "cache")]
    return subprocess.Popen(
        [sys.executable, "-m", "reproduce.chen2019", *with_changes([*SMALL, *own], flags)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
