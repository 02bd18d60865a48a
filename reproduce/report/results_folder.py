"""What lies in a results folder, read as it is: a half-written or broken file is a problem to name.

PAPER/SET/table.csv, values.csv, claims*.csv, *.csv, *.svg, *.png    of one paper on one dataset
PAPER/SET/ROW/seed-N/config.json, history.csv, predictions.npz    of each run
"""

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import published

DATASETS = {"plco": "PLCO", "chexpert": "CheXpert", "chestxray14": "ChestX-ray14"}
RELEASED = "released"  # where rescore puts what it makes of the authors' own predictions
PHANTOMS = "-phantoms"
NUMBERS = ("published", "ours", "low", "high", "difference", "value", "positives", "images")
NEEDED = {
    "table": ("table", "row", "column", "metric", "printed", "ours", "low", "high", "verdict"),
    "values": ("row", "group", "metric", "value", "low", "high"),
    "claims": ("claim", "left_row", "relation", "right_row", "published", "ours"),
}


@dataclasses.dataclass
class Run:
    """One row with one seed, finished or not."""

    folder: Path
    path: str  # below the results folder
    finished: bool
    row: str = ""
    settings: dict = dataclasses.field(default_factory=dict)
    provenance: dict = dataclasses.field(default_factory=dict)
    epochs: int = 0
    seconds: float = 0.0
    problem: str = ""

    @property
    def state(self) -> str:
        if self.problem:
            return "unreadable"
        if self.finished:
            return "finished"
        planned = self.settings.get("epochs")
        return f"not finished: epoch {self.epochs}" + f" of {planned}" * bool(planned)


@dataclasses.dataclass
class ResultSet:
    """One paper on one dataset: its tables, figures and runs."""

    paper: str
    name: str
    folder: Path
    runs: list[Run]
    table: pd.DataFrame | None = None
    values: pd.DataFrame | None = None
    claims: list[tuple[str, pd.DataFrame]] = dataclasses.field(default_factory=list)
    others: list[tuple[str, pd.DataFrame]] = dataclasses.field(default_factory=list)
    figures: list[Path] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def phantom(self) -> bool:
        return self.name.endswith(PHANTOMS)

    @property
    def dataset(self) -> str:
        name = self.name.removesuffix(PHANTOMS)
        return DATASETS.get(name, name)

    @property
    def title(self) -> str:
        if self.name == RELEASED:
            return "The authors' released predictions"
        return f"{self.dataset}, drawn phantoms" if self.phantom else self.dataset

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    @property
    def holds_anything(self) -> bool:
        tables = self.table is not None or self.values is not None
        return bool(tables or self.runs or self.others or self.figures or self.problems)

    @property
    def command(self) -> str:
        """What writes its tables anew."""
        if self.name == RELEASED:
            return f"python -m reproduce.rescore {self.paper} --released DIR"
        return f"bash reproduce/{self.paper}.sh"


def result_sets(results: Path) -> list[ResultSet]:
    """Everything below `results`, in the order of the names."""
    sets = [
        read(folder, results)
        for paper in sorted(results.iterdir())
        if paper.is_dir() and paper.name != published.FOLDER.name and paper.name[0] != "."
        for folder in sorted(paper.iterdir())
        if folder.is_dir()
    ]
    return sorted((each for each in sets if each.holds_anything), key=by_kind)


def read(folder: Path, results: Path) -> ResultSet:
    """One PAPER/SET folder."""
    runs = [
        read_run(path.parent, results)
        for path in sorted(folder.glob("*/*/config.json"), key=lambda path: natural(path.parent))
    ]
    found = ResultSet(folder.parent.name, folder.name, folder, runs)
    found.figures = sorted([*folder.glob("*.svg"), *folder.glob("*.png")])
    for path in sorted(folder.glob("*.csv")):
        kind = path.stem.partition("-")[0] if path.stem.startswith("claims") else path.stem
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            if kind == "table" and "group" in frame:  # rescore's, of somebody's own predictions
                kind = ""
            frame = typed(frame, NEEDED.get(kind, ()))
        except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            found.problems.append(
                f"{path.relative_to(results).as_posix()} cannot be read ({reason}). "
                f"{found.command} writes it again."
            )
            continue
        if kind in ("table", "values"):
            setattr(found, kind, frame)
        elif kind == "claims":
            found.claims.append((path.stem, frame))
        else:
            found.others.append((path.stem, frame))
    return found


def by_kind(each: ResultSet) -> tuple:
    """Real images first, then phantoms, then what the authors released."""
    return each.name == RELEASED, each.phantom, each.dataset


def natural(path: Path) -> tuple:
    return path.parent.name, len(path.name), path.name  # seed-2 before seed-10


def typed(frame: pd.DataFrame, needed: tuple[str, ...]) -> pd.DataFrame:
    """Text as text, numbers as numbers; a row may be called None or NA."""
    if missing := [name for name in needed if name not in frame]:
        raise ValueError(f"no column {', '.join(missing)}")
    if not needed:
        return frame
    if frame.isna().any(axis=None):
        raise ValueError("a line ends early")
    for name in frame.columns.intersection(NUMBERS):
        if needed == NEEDED["claims"]:  # its `published` and `ours` are words
            break
        number = pd.to_numeric(frame[name], errors="coerce")
        if (wrong := number.isna() & ~frame[name].isin(["", "nan"])).any():
            raise ValueError(f"{frame[name][wrong].iloc[0]!r} in column {name} is no number")
        frame[name] = number
    return frame


def read_run(folder: Path, results: Path) -> Run:
    """A run's settings, provenance and how far it came."""
    run = Run(folder, folder.relative_to(results).as_posix(), (folder / "predictions.npz").exists())
    run.row = folder.parent.name
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        run.settings, run.provenance = record["settings"], record["provenance"]
        run.row = str(run.settings["row"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        run.problem = f"config.json cannot be read ({type(error).__name__}: {error})"
        return run
    try:
        history = pd.read_csv(folder / "history.csv")
        run.epochs, run.seconds = len(history), float(history["seconds"].sum())
    except (OSError, ValueError, KeyError):
        pass  # before the first epoch, or a row that combines others
    return run


def test_images(run: Run) -> str:
    """A digest of the test images that a run was scored on; empty where they cannot be read."""
    try:
        with np.load(run.folder / "predictions.npz", allow_pickle=False) as arrays:
            ids = sorted(arrays["ids"].tolist())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return ""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
