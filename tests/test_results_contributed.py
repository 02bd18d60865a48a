"""Contributed trainings: the folders are complete and unchanged; the front page lists all."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import safefiles
from reproduce import RunError
from reproduce.engine import runs
from tests.papers import PAPERS

ROOT = Path(__file__).parent.parent
CONTRIBUTED = ROOT / "results" / "contributed"
FOLDERS = sorted(path for path in CONTRIBUTED.glob("*/*") if path.is_dir())
NONE = "none yet"


def problems(folder: Path) -> list[str]:
    """Return why a contributed folder cannot be accepted."""
    reasons = []
    if not (folder / safefiles.SEALS).exists():
        reasons.append("no checksums.json")
    may_be_missing = re.compile(r"\.csv\.gz$")  # patients of restricted datasets
    reasons += [
        f"{name} is not as the training wrote it"
        for name in safefiles.changed_since_sealed(folder)
        if (folder / name).exists() or not may_be_missing.search(name)
    ]
    reasons += [f"weights: {path.name}" for path in folder.rglob("*.h5")]
    table = folder / "table.csv"
    if not table.exists():
        reasons.append("no table.csv")
    elif pd.read_csv(table)["verdict"].str.contains("phantoms", na=False).any():
        reasons.append("its images are synthetic")
    records = sorted(folder.glob("*/seed-*/config.json"))
    if not records:
        reasons.append("no run with its config.json")
    for path in records:
        try:
            record = runs.record(path.parent) or {}
        except RunError as error:
            reasons.append(str(error))
            continue
        if record["settings"].get("data", {}).get("phantom"):
            reasons.append(f"{path.parent.name} ran on phantoms")
        commits = [session["commit"] for session in record["sessions"]]
        reasons += [
            f"{path} was made by changed code ({each})" for each in commits if "dirty" in each
        ]
    return reasons


def write_record(run: Path, phantom: bool, commit: str) -> None:
    settings = {"row": "row", "data": {"phantom": phantom}}
    content = {"version": "1", "settings": settings, "sessions": [{"commit": commit}]}
    runs.write_record(run, content)


@pytest.fixture
def sent(tmp_path):
    """A folder without problems: a table, a run's history, and their hashes."""
    folder = tmp_path / "mo2019" / "chestxray14-me"
    run = folder / "row" / "seed-0-0123abcd"
    write_record(run, phantom=False, commit="0123456789ab")
    (run / "history.csv").write_text("epoch\n1\n")
    (folder / "table.csv").write_text("row,verdict\nrow,within\n")
    (folder / "split.csv.gz").write_bytes(b"patients")
    safefiles.seal(folder, [folder / "table.csv", folder / "split.csv.gz", run / "history.csv"])
    return folder


def test_a_complete_folder_has_no_problem(sent):
    assert problems(sent) == []
    (sent / "split.csv.gz").unlink()  # it names the patients of a restricted dataset
    assert problems(sent) == []


def test_every_problem_of_a_folder_is_named(sent):
    run = sent / "row" / "seed-0-0123abcd"
    (run / "best.weights.h5").touch()
    (run / "history.csv").unlink()
    (sent / "table.csv").write_text("row,verdict\nrow,not comparable (drawn phantoms)\n")
    write_record(run, phantom=True, commit="0123456789ab-dirty")
    said = "\n".join(problems(sent))
    for words in (
        *("history.csv is not as", "table.csv is not as", "weights: best", "images are synthetic"),
        *("ran on phantoms", "changed code"),
    ):
        assert words in said
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"phantom": true', '"phantom": false'))
    assert "was changed after the run wrote it" in "\n".join(problems(sent))
    shutil.rmtree(sent / "row")
    assert "no run with its config.json" in problems(sent)


@pytest.mark.parametrize(
    "folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}"
)
def test_every_contributed_training_has_no_problem(folder):
    assert folder.parent.name in PAPERS
    assert problems(folder) == []


def test_the_front_page_lists_exactly_the_contributed_trainings():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    head = next(line for line in lines if line.startswith("| paper |"))
    column = [cell.strip() for cell in head.split("|")].index("real trainings")
    for paper in PAPERS:
        line = next((line for line in lines if line.startswith(f"| [{paper}]")), None)
        if line is None:  # an example beside the five papers
            continue
        cell = line.split("|")[column].strip()
        sent = {path.name for path in FOLDERS if path.parent.name == paper}
        assert set(re.findall(rf"results/contributed/{paper}/([^/)]+)/table.md", cell)) == sent
        assert (cell == NONE) == (not sent)
