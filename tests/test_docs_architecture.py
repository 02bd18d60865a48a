"""docs/architecture.md: every file and name that it mentions exists."""

import ast
import re

import pytest

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
QUESTIONS = ("training loop", "decoded", "reach the table", "a loss", "a dataset", "a metric")
FOLDERS = "data|evaluation|losses|models|reproduce|tests"
MENTIONS = sorted(
    (path, name)
    for path, name in set(re.findall(rf"`((?:{FOLDERS})/[\w./]*)(?::(\w+))?`", PAGE))
    if "NAME" not in path  # stands for any paper
)


def defined_in(text: str) -> set[str]:
    """Return the functions, classes and variables at the top level of a module."""
    names = set()
    for node in ast.parse(text).body:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign():
                names |= {each.id for each in node.targets if isinstance(each, ast.Name)}
            case ast.AnnAssign(target=ast.Name()):
                names.add(node.target.id)
    return names


def test_the_page_answers_its_questions():
    headings = re.findall(r"^## (.*\?)$", PAGE, re.MULTILINE)
    assert len(headings) == len(QUESTIONS)
    assert all(question in heading for question, heading in zip(QUESTIONS, headings, strict=True))


def test_mentions_are_found():
    assert len([name for _, name in MENTIONS if name]) >= 20


@pytest.mark.parametrize(("path", "name"), MENTIONS, ids=lambda text: text or "file")
def test_what_the_page_mentions_exists(path, name):
    file = REPOSITORY / path
    assert file.exists()
    assert not name or name in defined_in(file.read_text())


def test_a_missing_name_would_be_seen():
    code = "X = 1\nY: int = 2\nclass C: pass\ndef f():\n    inner = 3\n"
    assert defined_in(code) == {"X", "Y", "C", "f"}
