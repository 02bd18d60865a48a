"""The example of docs/adding-a-paper.md, wang2017: the page quotes its files, and they run."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation import predictions, published
from reproduce import wang2017
from reproduce.engine.rows import describe

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "adding-a-paper.md").read_text()
FILES = {
    "python": "reproduce/wang2017.py",
    "bash": "reproduce/wang2017.sh",
    "csv": "results/published/wang2017.csv",
}
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("kind", FILES)
def test_the_quoted_pieces_are_those_of_the_files(kind):
    file = (ROOT / FILES[kind]).read_text()
    pieces = [piece for language, piece in BLOCKS if language == kind]
    assert pieces
    assert all(piece in file for piece in pieces)


def test_the_page_shows_all_of_the_script_but_its_head():
    script = (ROOT / FILES["python"]).read_text()
    code = script[script.index("\nON = ") :]
    shown = "".join(piece for kind, piece in BLOCKS if kind == "python")
    assert [line for line in code.split("\n") if line] == [
        line for line in shown.split("\n") if line
    ]


def test_the_audit_says_what_the_page_says():
    command = [sys.executable, "-m", "evaluation.published", "audit", "wang2017"]
    wide = os.environ | {"COLUMNS": "100"}
    done = subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, check=True)
    lines = [line.rstrip() for line in done.stdout.strip().splitlines()]
    assert "\n".join(lines) in PAGE


def test_no_other_file_knows_the_paper():
    """Adding the paper needed these files only."""
    folders = ("data", "models", "losses", "evaluation", "reproduce", "bench", "results/published")
    texts = [path for folder in folders for path in (ROOT / folder).rglob("*.*") if path.is_file()]
    naming = {
        path.relative_to(ROOT).as_posix()
        for path in texts
        if path.suffix in (".py", ".sh", ".csv", ".j2", ".js") and "wang2017" in path.read_text()
    }
    assert naming <= {*FILES.values()}


def test_one_more_paper_touches_no_existing_file(tmp_path):
    """Copy the three files under another name and leave everything else unchanged."""
    for folder in ("data", "models", "losses", "evaluation", "reproduce", "results/published"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for name in ("safefiles.py", "downloads.py"):
        shutil.copy(ROOT / name, tmp_path)
    for file in FILES.values():
        text = (ROOT / file).read_text().replace("wang2017", "new2030")
        (tmp_path / file.replace("wang2017", "new2030")).write_text(text)

    def run(*words: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        command = [sys.executable, *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "--learning-rate" in run("-m", "reproduce.new2030", "--help")
    assert "new2030: 16 numbers" in run("-m", "evaluation.published", "audit", "new2030")
    needed = "from reproduce.doctor import papers; print([need.paper for need in papers.needs()])"
    assert "'new2030'" in run("-c", needed)


def test_the_numbers_are_those_of_the_papers_that_quote_them():
    own = published.load("wang2017").set_index(["table", "column"])["value"]
    mo, ge = published.load("mo2019"), published.load("ge2018")
    mo = mo[mo["row"] == "Wang et al. [5]"].set_index("column")["value"]
    assert own["Mo 2019, Table I"].to_dict() == mo.to_dict()
    ge = ge[ge["row"] == "Wang et al. [1]"].set_index("column")["value"]
    assert own["Ge 2018, Table 3"].to_dict() == ge.to_dict()


def test_one_pair_of_factors_for_all_labels():
    """With nine zeros per one, an error on a one has nine times the weight, whatever its label."""
    train = np.zeros((20, 14), np.float32)
    train[:10, :2], train[10:18, 2] = 1, 1
    rows = wang2017.rows(wang2017.Config(), "chestxray14")
    weighted, plain = (row.loss(train) for row in rows)
    one, zero = np.eye(1, 14, 2, dtype=np.float32), np.zeros((1, 14), np.float32)
    logits = np.zeros((1, 14), np.float32)
    # at logit 0 every term is log 2, times its factor: 0.9 for a one, 0.1 for a zero
    assert float(weighted(one, logits)) == pytest.approx((0.9 + 13 * 0.1) * np.log(2), rel=1e-5)
    assert float(weighted(zero, logits)) == pytest.approx(14 * 0.1 * np.log(2), rel=1e-5)
    assert float(plain(one, logits)) == pytest.approx(14 * np.log(2), rel=1e-5)


def test_a_row_is_data():
    """It can be described without images or labels; what cannot be described is refused."""
    row = wang2017.rows(wang2017.Config(), "chestxray14")[0]
    assert describe(row)["loss"] == "weighted_ce"
    with pytest.raises(TypeError, match="is not data"):
        describe(dataclasses.replace(row, loss=lambda train: None))


def test_wang2017_runs_on_phantoms(tmp_path):
    command = [sys.executable, "-m", "reproduce.wang2017", "--phantoms", "150", "--epochs", "1"]
    command += ["--size", "32", "--resamples", "20", "--device", "cpu"]
    command += ["--rows", "R-50 weighted CE"]
    command += ["--cache-dir", str(tmp_path / "cache"), "--results-dir", str(tmp_path / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "drawn phantoms, not comparable" in done.stdout
    folder = tmp_path / "results" / "wang2017" / "chestxray14-phantoms"
    table = pd.read_csv(folder / "table.csv")
    mine = table[table["row"] == "R-50 weighted CE"]
    assert len(mine) == 16
    assert set(mine["verdict"]) <= {"not comparable (drawn phantoms)", "undefined"}
    (run,) = (folder / "R-50-weighted-CE").glob("seed-0-*")
    predicted = predictions.load(run / "predictions.npz")
    assert predicted.probabilities.shape[2] == 14
    assert np.isfinite(predicted.probabilities).all()
