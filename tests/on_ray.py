"""What the tests of rows on Ray share: options, and a script that trains a small table."""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

SMALL = [
    *("--phantoms", "150", "--size", "32", "--batch-size", "16", "--resamples", "20"),
    *("--epochs", "2", "--finetune-epochs", "1"),
]


def options_for(folder: Path, **changes) -> argparse.Namespace:
    settings = {
        "on": "ray",
        "address": None,
        "gpus_per_row": None,
        "cpus_per_row": None,
        "devices_per_row": 1,
        "only_train": None,
        "device": "auto",
        "data_dir": None,
        "split_file": None,
        "results_dir": folder / "results",
        "cache_dir": folder / "cache",
    }
    return argparse.Namespace(**settings | changes)


def script(folder: Path, *flags: str) -> subprocess.Popen:
    own = ["--results-dir", str(folder), "--cache-dir", str(folder.parent / "cache")]
    return subprocess.Popen(
        [sys.executable, "-m", "reproduce.chen2019", *SMALL, *own, *flags],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
