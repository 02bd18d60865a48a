"""Reads a results folder as it is: what is half-written or damaged becomes a named problem.

PAPER/SET/table.csv, values.csv, claims*.csv, *.csv, *.svg, *.png    of one paper on one dataset
PAPER/SET/ROW/seed-N/config.json, history.csv, predictions.npz, failed.json    of each run
"""

import csv
import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd

import safefiles
from evaluation import published
from reproduce.report import grids

DATASETS = {"plco": "PLCO", "chexpert": "CheXpert", "chestxray14": "ChestX-ray14"}
RELEASED = "released"  # where rescore puts what it makes of the authors' own predictions
PHANTOMS = "-phantoms"
NUMBERS = ("published", "ours", "low", "high", "difference", "value", "positives", "images")
NEEDED = {
    "table": (
        *("table", "row", "column", "metric", "printed", "published", "ours"),
        *("low", "high", "verdict"),
    ),
    "values": ("row", "group", "metric", "value", "low", "high"),
    "claims": (
        *("claim", "table", "left_row", "relation", "right_row", "column", "metric"),
        *("amount", "scope", "published", "ours"),
    ),
}


@dataclasses.dataclass
class RunFolder:
    """The folder of one row with one seed: finished, under way, failed or unreadable."""

    folder: Path
    path: str  # below the results folder
    row: str
    finished: bool
    failed: str = ""  # the reason
    settings: dict = dataclasses.field(default_factory=dict)
    sessions: list[dict] = dataclasses.field(default_factory=list)  # what it was made with, in turn
    epochs: int = 0
    seconds: float = 0.0
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def state(self) -> str:
        if not self.settings:
            return "unreadable"
        if self.finished:
            return "finished"
        if self.failed:
            return f"failed: {self.failed}"
        planned = self.settings.get("epochs")
        return f"not finished: epoch {self.epochs}" + (f" of {planned}" if planned else "")

    def made_with(self, *names: str) -> str:
        """What the sessions record under these names, each different one once."""
        texts = (
            ", ".join(str(session[name]) for name in names if session.get(name))
            for session in self.sessions
        )
        return "; ".join(dict.fromkeys(filter(None, texts)))


@dataclasses.dataclass
class ResultSet:
    """One paper on one dataset: its tables, figures and runs."""

    paper: str
    name: str
    folder: Path
    runs: list[RunFolder] = dataclasses.field(default_factory=list)
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
            if self.paper in ("evidence", "leaderboard"):
                return "Predictions that others released"
            return "The authors' released predictions"
        return f"{self.dataset}, drawn phantoms" if self.phantom else self.dataset

    @property
    def finished(self) -> list[RunFolder]:
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
    sets: list[ResultSet] = []
    for paper in sorted(results.iterdir()):
        if paper.name == published.FOLDER.name or paper.name[0] == "." or not paper.is_dir():
            continue
        try:
            sets += [read(folder, results) for folder in sorted(paper.iterdir()) if folder.is_dir()]
        except OSError as error:
            sets.append(ResultSet(paper.name, "", paper, problems=[_unreadable(paper, error)]))
    return sorted((each for each in sets if each.holds_anything), key=by_kind)


def read(folder: Path, results: Path) -> ResultSet:
    """One PAPER/SET folder."""
    result = ResultSet(folder.parent.name, folder.name, folder)
    try:
        records = sorted(folder.glob("*/*/config.json"), key=lambda path: natural(path.parent))
        result.runs = [read_run(path.parent, results) for path in records]
        result.figures = sorted([*folder.glob("*.svg"), *folder.glob("*.png")])
        paths = sorted(path for path in folder.glob("*.csv") if path.name[0] != ".")
    except OSError as error:
        result.problems.append(_unreadable(folder, error))
        return result
    for path in paths:
        kind = path.stem.partition("-")[0] if path.stem.startswith("claims") else path.stem
        try:
            frame = read_csv(path)
            if kind == "table" and "group" in frame:  # rescore's, of somebody's own predictions
                kind = ""
            frame = typed(frame, kind)
        except (OSError, ValueError) as error:
            result.problems.append(
                f"{path.relative_to(results).as_posix()} cannot be read ({_reason(error)}). "
                f"{result.command} writes it again."
            )
            continue
        if kind == "table":
            result.table = frame
        elif kind == "values":
            result.values = frame
        elif kind == "claims":
            result.claims.append((path.stem, frame))
        else:
            result.others.append((path.stem, frame))
    for name in safefiles.changed_since_sealed(folder):
        result.problems.append(
            f"{folder.name}/{name} is not as it was written, or gone. {result.command} writes it "
            "again."
        )
    return result


def by_kind(each: ResultSet) -> tuple:
    """Real images first, then phantoms, then what the authors released."""
    return each.name == RELEASED, each.phantom, each.dataset


def natural(path: Path) -> tuple:
    return path.parent.name, len(path.name), path.name  # seed-2 before seed-10


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read ({_reason(error)}); give yourself the rights to it."


# Files


def read_bytes(path: Path) -> bytes:
    """A file's content; reading a pipe by that name would wait for ever."""
    if not path.is_file():
        raise OSError(None, "it is no file" if path.exists() else "no such file")
    return path.read_bytes()


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV as texts; ValueError where it is cut off."""
    text = read_bytes(path).decode("utf-8")
    if not text.strip():
        raise ValueError("it is empty")
    if not text.endswith("\n"):
        raise ValueError("it ends in the middle of a line")
    try:
        header, *rows = csv.reader(io.StringIO(text), strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} of {len(header)} values")
    return pd.DataFrame(rows, columns=header, dtype=str)


def typed(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Text as text, numbers as numbers; a row may be called None or NA."""
    needed = NEEDED.get(kind, ())
    if missing := [name for name in needed if name not in frame]:
        raise ValueError(f"no column {', '.join(missing)}")
    if frame.columns.duplicated().any():
        raise ValueError("a column stands in it twice")
    if kind == "table":
        for verdict in frame["verdict"]:
            if grids.kind(verdict) not in grids.VERDICTS:
                raise ValueError(f"{verdict!r} in column verdict is no verdict")
    if kind in ("", "claims") or not needed:  # a claim's `published` and `ours` are words
        return frame
    for name in frame.columns.intersection(NUMBERS):
        number = pd.to_numeric(frame[name], errors="coerce")
        if (wrong := number.isna() & ~frame[name].isin(["", "nan"])).any():
            raise ValueError(f"{frame[name][wrong].iloc[0]!r} in column {name} is no number")
        frame[name] = number
    return frame


# Runs


def read_run(folder: Path, results: Path) -> RunFolder:
    """A run's settings, what it was made with and how far it came."""
    path = folder.relative_to(results).as_posix()
    run = RunFolder(folder, path, folder.parent.name, (folder / "predictions.npz").exists())
    try:
        record = json.loads(read_bytes(folder / "config.json"))
        settings, sessions = _checked_record(record)
        run.row, run.settings, run.sessions = str(settings["row"]), settings, sessions
    except (OSError, ValueError, RecursionError) as error:
        run.problems.append(f"config.json cannot be read ({type(error).__name__}: {error})")
        return run
    run.failed = "" if run.finished else _failure(run)
    if (history := folder / "history.csv").exists():  # not before the first epoch
        try:
            seconds = pd.to_numeric(read_csv(history)["seconds"]).to_numpy(float)
            run.epochs, run.seconds = len(seconds), float(np.nansum(seconds))
        except (OSError, ValueError, KeyError) as error:
            reason = "no column seconds" if isinstance(error, KeyError) else _reason(error)
            run.problems.append(f"history.csv cannot be read ({reason})")
    if run.finished and not test_images(run):
        run.problems.append(
            "predictions.npz cannot be read; delete it, and its script trains that row again"
        )
    return run


def _checked_record(record: object) -> tuple[dict, list[dict]]:
    """(settings, sessions) of a config.json; ValueError where it is not what a run writes.

    A run that was stopped and went on has several sessions; earlier versions wrote one.
    """
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise ValueError("it holds no settings")
    settings = record["settings"]
    if "row" not in settings:
        raise ValueError("its settings have no row")
    data = settings.get("data", {})
    if not isinstance(data, dict) or not isinstance(data.get("sets", {}), dict):
        raise ValueError("its settings do not say which images were used")
    sessions = record.get("sessions", [record.get("provenance")])
    if not isinstance(sessions, list) or not all(isinstance(each, dict) for each in sessions):
        raise ValueError("it does not say what the run was made with")
    return settings, sessions


def _failure(run: RunFolder) -> str:
    """Why a run failed; empty if it did not."""
    path = run.folder / "failed.json"
    if not path.exists():
        return ""
    try:
        record = json.loads(read_bytes(path))
        return str(record["reason"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        run.problems.append(f"failed.json cannot be read ({type(error).__name__}: {error})")
        return "its reason cannot be read"


def test_images(run: RunFolder) -> str:
    """A digest of the test images that a run was scored on; empty where they cannot be read."""
    path = run.folder / "predictions.npz"
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as arrays:
            ids = sorted(map(str, arrays["ids"].tolist()))
    except safefiles.DAMAGED_ARCHIVE:
        return ""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "replace")).hexdigest()
