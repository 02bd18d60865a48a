"""Read a results folder as it is; every missing, unfinished or damaged file becomes a problem.

PAPER/SET/table.csv, values.csv, claims*.csv, *.csv, *.svg, *.png      a paper on one dataset
PAPER/SET/ROW/seed-N-DIGEST/config.json, history.csv, predictions.npz  each run

A problem is a sentence on the page, so that one bad file never hides the other results. Run folders
of earlier versions, which are called seed-N, are read too.
"""

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

import safefiles
from data.datasets import DATASETS
from evaluation import published
from evaluation.claims import CLAIM_COLUMNS
from reproduce import RunError
from reproduce.engine import runs
from reproduce.report import grids

RELEASED = "released"  # the folder in which rescore scores predictions that the authors released
PHANTOMS = "-phantoms"  # ends the name of a folder of synthetic radiographs
NUMBERS = ("published", "ours", "low", "high", "difference", "value", "positives", "images")
TABLE = ["table", *published.CELL, "printed", "published", "ours", "low", "high", "verdict"]
VALUES = ["row", "group", "metric", "value", "low", "high"]
CLAIMS = [*CLAIM_COLUMNS[1:-3], "published", "ours"]  # earlier versions lack the last three


@dataclass
class RunFolder:
    """The folder of one row with one seed: finished, in progress, failed or unreadable."""

    folder: Path
    path: str  # relative to the results folder
    row: str
    finished: bool
    failed: str = ""  # the reason
    settings: dict = field(default_factory=dict)
    sessions: list[dict] = field(default_factory=list)  # machine and versions, in order
    epochs: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        if not self.settings:
            return "unreadable"
        if self.finished:
            return "finished"
        if self.failed:
            return f"failed: {self.failed}"
        planned = (self.settings.get("fit") or self.settings).get("epochs")
        return f"not finished: epoch {self.epochs}" + (f" of {planned}" if planned else "")

    def made_with(self, *names: str) -> str:
        """Return what the sessions record under these names, without repeats."""
        texts = []
        for session in self.sessions:
            known = [str(session[name]) for name in names if session.get(name)]
            texts.append(", ".join(known))
        return "; ".join(dict.fromkeys(filter(None, texts)))


@dataclass
class ResultSet:
    """One paper on one dataset: its tables, figures and runs."""

    paper: str
    name: str
    folder: Path
    runs: list[RunFolder] = field(default_factory=list)
    table: pd.DataFrame | None = None
    values: pd.DataFrame | None = None
    claims: list[tuple[str, pd.DataFrame]] = field(default_factory=list)
    others: list[tuple[str, pd.DataFrame]] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def phantom(self) -> bool:
        return self.name.endswith(PHANTOMS)

    @property
    def dataset(self) -> str:
        name = self.name.removesuffix(PHANTOMS)
        return DATASETS[name].title if name in DATASETS else name

    @property
    def title(self) -> str:
        if self.name == RELEASED:
            of_papers = self.paper not in ("evidence", "leaderboard")
            return f"Predictions released by {'the authors' if of_papers else 'others'}"
        return f"{self.dataset} phantoms" if self.phantom else self.dataset

    @property
    def finished(self) -> list[RunFolder]:
        return [run for run in self.runs if run.finished]

    @property
    def is_empty(self) -> bool:
        no_tables = self.table is None and self.values is None and not self.others
        return no_tables and not (self.runs or self.figures or self.problems)

    @property
    def command(self) -> str:
        """The command that writes the tables again."""
        if self.name == RELEASED:
            return f"python -m reproduce.rescore {self.paper} --released DIR"
        return f"bash reproduce/{self.paper}.sh"


def result_sets(results: Path) -> list[ResultSet]:
    """Return every result set below `results`: real images first, then phantoms, then released."""
    sets: list[ResultSet] = []
    for paper in sorted(results.iterdir()):
        if paper.name == published.FOLDER.name or paper.name[0] == "." or not paper.is_dir():
            continue
        try:
            sets += [read(folder, results) for folder in sorted(paper.iterdir()) if folder.is_dir()]
        except OSError as error:
            sets.append(ResultSet(paper.name, "", paper, problems=[_unreadable(paper, error)]))
    sets = [each for each in sets if not each.is_empty]
    return sorted(sets, key=lambda each: (each.name == RELEASED, each.phantom, each.dataset))


def read(folder: Path, results: Path) -> ResultSet:
    """Read one PAPER/SET folder."""
    result = ResultSet(folder.parent.name, folder.name, folder)
    try:
        run_folders = [path.parent for path in folder.glob("*/*/config.json")]
        result.runs = [read_run(run, results) for run in sorted(run_folders, key=_row_then_seed)]
        result.figures = sorted([*folder.glob("*.svg"), *folder.glob("*.png")])
        tables = sorted(path for path in folder.glob("*.csv") if path.name[0] != ".")
    except OSError as error:
        result.problems.append(_unreadable(folder, error))
        return result
    for path in tables:
        try:
            _add_table(result, path)
        except (OSError, ValueError) as error:
            result.problems.append(
                f"{path.relative_to(results).as_posix()} cannot be read ({reason_of(error)}). "
                f"To write it again, run {result.command}."
            )
    for name in safefiles.changed_since_sealed(folder):
        result.problems.append(
            f"{folder.name}/{name} is missing or was changed after it was written. "
            f"To write it again, run {result.command}."
        )
    return result


def _add_table(result: ResultSet, path: Path) -> None:
    """Read a CSV into the part of the result set that its name says."""
    frame, stem = read_csv(path), path.stem
    if stem == "table" and "group" not in frame:  # with groups, it is the values that rescore wrote
        require_columns(frame, TABLE)
        for verdict in frame["verdict"]:
            if published.verdict_kind(verdict) not in grids.VERDICTS:
                raise ValueError(f"{verdict!r} in column verdict is not a verdict")
        result.table = with_numbers(frame)
    elif stem == "values":
        require_columns(frame, VALUES)
        result.values = with_numbers(frame)
    elif stem.partition("-")[0] == "claims":
        require_columns(frame, CLAIMS)
        result.claims.append((stem, frame))
    else:
        result.others.append((stem, frame))


def _row_then_seed(run: Path) -> tuple[str, int, str]:
    """Return a key that sorts runs by row and seed, seed-2 before seed-10."""
    seed = run.name.removeprefix("seed-").partition("-")[0]
    return run.parent.name, int(seed) if seed.isdecimal() else 0, run.name


def reason_of(error: Exception) -> str:
    """Return the first line of an error, without its full stop."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read ({reason_of(error)}). Make it readable and run the report again."


# Files


def read_bytes(path: Path) -> bytes:
    """Return a file's content; raise OSError if it is a pipe, whose reading would never end."""
    if not path.is_file():
        raise OSError(None, "it is not a file" if path.exists() else "it does not exist")
    return path.read_bytes()


def read_csv(path: Path) -> pd.DataFrame:
    """Return a CSV as text; raise ValueError if it is empty, cut off or has uneven rows."""
    text = read_bytes(path).decode("utf-8")
    if not text.strip():
        raise ValueError("it is empty")
    if not text.endswith("\n"):
        raise ValueError("it ends in the middle of a line")
    try:
        header, *rows = csv.reader(io.StringIO(text), strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if len(set(header)) < len(header):
        raise ValueError("two columns have the same name")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} of {len(header)} values")
    return pd.DataFrame(rows, columns=header, dtype=str)


def require_columns(frame: pd.DataFrame, columns: list[str]) -> None:
    """Raise ValueError if a column is missing."""
    if missing := [name for name in columns if name not in frame]:
        raise ValueError(f"it has no column {', '.join(missing)}")


def with_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert the columns of numbers; the others stay text, as a row may be called None or NA."""
    for name in frame.columns.intersection(NUMBERS):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        wrong = frame[name][numbers.isna() & ~frame[name].isin(["", "nan"])]
        if len(wrong):
            raise ValueError(f"{wrong.iloc[0]!r} in column {name} is not a number")
        frame[name] = numbers
    return frame


# Runs


def read_run(folder: Path, results: Path) -> RunFolder:
    """Read a run's settings, sessions and progress."""
    path = folder.relative_to(results).as_posix()
    run = RunFolder(folder, path, folder.parent.name, (folder / "predictions.npz").exists())
    try:
        if not (folder / "config.json").is_file():  # reading a pipe would never end
            raise RunError(f"{path}/config.json cannot be read: it is not a file.")
        record = runs.record(folder, earlier=True) or {}
    except RunError as error:
        run.problems.append(str(error))
        return run
    run.settings, run.sessions = record["settings"], record["sessions"]
    run.row = str(run.settings["row"])
    if not run.finished:
        run.failed = _failure(run)
    if (folder / "history.csv").exists():  # not before the first epoch
        _add_history(run)
    if run.finished and not test_images(run):
        run.problems.append(
            f"{path}/predictions.npz cannot be read. To train the row again, delete the file and "
            "run its script."
        )
    return run


def _add_history(run: RunFolder) -> None:
    """Count a run's epochs and add up its hours from history.csv."""
    try:
        history = read_csv(run.folder / "history.csv")
        require_columns(history, ["seconds"])
        seconds = pd.to_numeric(history["seconds"])
    except (OSError, ValueError) as error:
        run.problems.append(f"{run.path}/history.csv cannot be read ({reason_of(error)}).")
        return
    run.epochs, run.seconds = len(seconds), float(seconds.sum())


def _failure(run: RunFolder) -> str:
    """Return why a run failed, or an empty text if it did not."""
    path = run.folder / "failed.json"
    if not path.exists():
        return ""
    try:
        return str(json.loads(read_bytes(path))["reason"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        run.problems.append(f"{run.path}/failed.json cannot be read ({reason_of(error)}).")
        return "the reason cannot be read"


def test_images(run: RunFolder) -> list[str]:
    """Return the sorted ids of a run's test images; an empty list if they cannot be read."""
    try:
        content = read_bytes(run.folder / "predictions.npz")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return sorted(map(str, arrays["ids"].tolist()))
    except safefiles.DAMAGED_ARCHIVE:
        return []
