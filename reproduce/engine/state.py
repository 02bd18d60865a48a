"""What a run writes into its folder, and reads back to go on after it was stopped.

config.json       the run's settings, how to rebuild its network, what it was made with
history.csv       a line an epoch
best.weights.h5   of the selected epoch
state.npz         every variable after the last whole epoch; deleted at the end
predictions.npz   of the test set: its presence means that the run is finished
predictions-NAME.npz, template.npz, log.txt, bad-batch.txt
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data import files, template_crop
from reproduce.engine.provenance import provenance
from reproduce.engine.rows import Data, Run

WEIGHTS = "best.weights.h5"


def begin(run: Run, data: Data, device: str, recipe: dict) -> None:
    """Make a run's folder and write down what it will be made from, and on what."""
    record = {"settings": run.settings, "recipe": recipe, "provenance": provenance(device)}
    files.write(run.folder / "config.json", json.dumps(record, indent=1))
    if data.template is not None:
        template_crop.save(run.folder / "template.npz", data.template)


def known_settings(folder: Path) -> dict | None:
    """The settings of the run that a folder holds; None if it holds none."""
    path = folder / "config.json"
    return json.loads(path.read_text())["settings"] if path.exists() else None


def save(folder: Path, arrays: Sequence[np.ndarray], history: list[dict]) -> None:
    """Write the state after an epoch: its variables and the history so far."""
    with files.whole(folder / "state.npz") as path, path.open("wb") as file:
        np.savez(file, *arrays, history=json.dumps(history))
    files.write(folder / "history.csv", pd.DataFrame(history).to_csv(index=False))


def load(folder: Path, count: int) -> tuple[list[np.ndarray], list[dict]]:
    """The variables and the history after the last whole epoch; none of a run that begins."""
    path = folder / "state.npz"
    if not path.exists():
        return [], []
    with np.load(path) as state:
        arrays = [state[f"arr_{number}"] for number in range(count)]
        return arrays, json.loads(str(state["history"]))


def forget(folder: Path) -> None:
    """Delete the state of a run that is finished."""
    (folder / "state.npz").unlink(missing_ok=True)


def say(run: Run, text: str) -> None:
    """Print a line about a run, and add it to its log."""
    print(f"{run.name}: {text}", flush=True)
    with (run.folder / "log.txt").open("a") as log:
        log.write(f"{time.strftime('%F %T')}  {text}\n")


def test_sets(folder: Path) -> list[Path]:
    """A run's predictions: of the test set, and of any further set NAME in predictions-NAME.npz."""
    return sorted(folder.glob("predictions*.npz"))
