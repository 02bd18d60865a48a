"""The hours in the scripts' docstrings are marked as estimates and follow from the rows."""

import importlib
import re
from pathlib import Path

import pytest

from reproduce.engine.rows import Row
from tests.papers import PAPERS


@pytest.mark.parametrize("paper", PAPERS)
def test_hours_are_estimated_from_the_epochs_of_all_rows(paper):
    script = importlib.import_module(f"reproduce.{paper}")
    rows = script.rows(script.Config(), PAPERS[paper])
    trained = [row.fit.epochs for row in rows if isinstance(row, Row) and row.fit.epochs]
    (command,) = [line for line in script.__doc__.split("\n") if "GPU" in line and "*" in line]
    assert re.search(r"(about|up to) \d+ GPU (hours|days) \*$", command)
    (estimate,) = re.findall(r"^ *\* estimated: (.*)", script.__doc__, re.MULTILINE)
    words = {"ten": 10}
    if rows_and_epochs := re.match(r"(\w+) rows of at most (\d+) epochs", estimate):
        count, epochs = words[rows_and_epochs[1]], int(rows_and_epochs[2])
        assert trained == [epochs] * count
    else:
        assert int(re.match(r"(\d+) epochs", estimate)[1]) == sum(trained)
    assert re.search(r"\b\d+,\d{3} images", estimate)
    assert re.search(r"at \d+", script.__doc__.partition("* estimated")[2])


def test_papers_of_one_dataset_share_one_set_of_phantoms():
    """Equal numbers and sizes mean that the demos generate each set once."""
    counts: dict[str, set[int]] = {}
    for paper, dataset in PAPERS.items():
        script = importlib.import_module(f"reproduce.{paper}")
        (count,) = re.findall(r"\bphantoms=(\d+)", Path(script.__file__).read_text())
        counts.setdefault(dataset, set()).add(int(count))
        assert script.DEMO["size"] <= 128  # all of these are drawn at 128 px
    assert {dataset: len(each) for dataset, each in counts.items()} == dict.fromkeys(counts, 1)
