"""Contributed trainings: what a sent folder must hold; the front page shows all of them."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import safefiles
from reproduce import RunError
from reproduce.engine import state
from tests.papers import PAPERS

ROOT = Path(__file__).parent.parent
CONTRIBUTED = ROOT / "results" / "contributed"
FOLDERS = sorted(path for path in CONTRIBUTED.glob("*/*") if path.is_dir())
NONE = "none yet"


def problems(folder: Path) -> list[str]:
    """What keeps a sent folder from being accepted."""
    found = []
    if not (folder / safefiles.SEALS).exists():
        found.append("no checksums.json")
    may_be_missing = re.compile(r"\.csv\.gz$")  # patients of restricted datasets
    found += [
        f"{name} is not as the training wrote it"
        for name in safefiles.changed_since_sealed(folder)
        if (folder / name).exists() or not may_be_missing.search(name)
    ]
    found += [f"weights: {path.name}" for path in folder.rglob("*.h5")]
    table = folder / "table.csv"
    if not table.exists():
        found.append("no table.csv")
    elif pd.read_csv(table)["verdict"].str.contains("phantoms", na=False).any():
        found.append("its images are drawn")
    records = sorted(folder.glob("*/seed-*/config.json"))
    if not records:
        found.append("no run with its config.json")
    for path in records:
        try:
            record = state.record(path.parent) or {}
        except RunError as error:
            found.append(str(error))
            continue
        if record["settings"].get("data", {}).get("phantom"):
            found.append(f"{path.parent.name} ran on phantoms")
        commits = [session["commit"] for session in record["sessions"]]
        found += [
            f"{path} was made by changed code ({each})" for each in commits if "dirty" in each
        ]
    return found


@pytest.fixture
def sent(tmp_path):
    """A folder as it should be sent: a table, a run's history, and their hashes."""
    folder = tmp_path / "mo2019" / "chestxray14-me"
    run = folder / "row" / "seed-0"
    settings = {"row": "row", "data": {"phantom": False}}
    sessions = [{"commit": "0123456789ab"}]
    state.write_record(run, {"settings": settings, "recipe": {}, "sessions": sessions})
    (run / "history.csv").write_text("epoch\n1\n")
    (folder / "table.csv").write_text("row,verdict\nrow,within\n")
    (folder / "split.csv.gz").write_bytes(b"patients")
    safefiles.seal(folder, [folder / "table.csv", folder / "split.csv.gz", run / "history.csv"])
    return folder


def test_a_folder_as_it_should_be_has_no_problem(sent):
    assert problems(sent) == []
    (sent / "split.csv.gz").unlink()  # it names the patients of a restricted dataset
    assert problems(sent) == []


def test_every_problem_of_a_sent_folder_is_named(sent):
    run = sent / "row" / "seed-0"
    (run / "best.weights.h5").touch()
    (run / "history.csv").unlink()
    (sent / "table.csv").write_text("row,verdict\nrow,not comparable (drawn phantoms)\n")
    settings = {"row": "row", "data": {"phantom": True}}
    changed = [{"commit": "0123456789ab-dirty"}]
    state.write_record(run, {"settings": settings, "recipe": {}, "sessions": changed})
    said = "\n".join(problems(sent))
    for words in (
        *("history.csv is not as", "table.csv is not as", "weights: best", "images are drawn"),
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
def test_every_contributed_training_proves_itself(folder):
    assert folder.parent.name in PAPERS
    assert problems(folder) == []


def test_the_front_page_shows_exactly_the_contributed_trainings():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    head = next(line for line in lines if line.startswith("| paper |"))
    column = [cell.strip() for cell in head.split("|")].index("real trainings")
    for paper in PAPERS:
        line = next((line for line in lines if line.startswith(f"| [{paper}]")), None)
        if line is None:  # a paper beside the five
            continue
        cell = line.split("|")[column].strip()
        sent = {path.name for path in FOLDERS if path.parent.name == paper}
        assert set(re.findall(rf"results/contributed/{paper}/([^/)]+)/table.md", cell)) == sent
        assert (cell == NONE) == (not sent)
