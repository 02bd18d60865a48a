"""Every experiment of the papers has its place in docs/papers, or a reason why it has none."""

import re

import pytest

from evaluation import published
from tests.conftest import REPOSITORY
from tests.printed import PAPERS

FOLDER = REPOSITORY / "docs" / "papers"
FIGURES = {"chen2019": 3, "pham2019": 5, "mo2019": 1, "ge2018": 1, "asadi2025": 3}


def section(paper: str) -> str:
    """Return a paper's part of the table of experiments."""
    parts = re.split(r"^## ", (FOLDER / "README.md").read_text(), flags=re.MULTILINE)
    return next(part for part in parts if f"({paper}.md)" in part.partition("\n")[0])


@pytest.mark.parametrize("paper", PAPERS)
def test_every_printed_table_and_figure_is_listed(paper):
    text = section(paper)
    tables = {name for name in published.load(paper)["table"] if name.startswith("Table")}
    for name in tables | {f"Figure {number}" for number in range(1, FIGURES[paper] + 1)}:
        assert re.search(rf"{name}\b", text), name


@pytest.mark.parametrize("paper", PAPERS)
def test_every_printed_row_is_named_or_quoted(paper):
    """Rows of tables are named as printed, with a reading, or as the authors that are quoted."""
    printed = published.load(paper)
    of_tables = printed["table"].str.startswith("Table")
    own = printed[of_tables & ~printed["note"].str.startswith("quoted")]
    words = re.split(r"[^\w.]+", section(paper))
    for row in own["row"]:
        assert {*re.findall(r"[\w.]+", row)} <= {*words, "Ours"}, row


@pytest.mark.parametrize("ledger", sorted(FOLDER.glob("*20*.md")), ids=lambda path: path.stem)
def test_every_ledger_says_what_is_not_reproduced(ledger):
    *_, last = re.findall(r"^## (.+)$", ledger.read_text(), flags=re.MULTILINE)
    assert last == "What is not reproduced, and why"
