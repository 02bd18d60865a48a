"""The house: imports run one way, and what needs no TensorFlow does not import it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
FLOORS = ("data", "models", "losses", "evaluation")  # none imports another
LIGHT = (
    "data.chestxray14",
    "data.chexpert",
    "data.phantom",
    "data.plco",
    "data.policies",
    "data.prepare",
    "data.splits",
    "evaluation.predict",
    "evaluation.published",
    "losses",
    "models.backbones",
    "reproduce.results",
    "reproduce.run",
)
SCRIPTS = sorted(
    f"reproduce.{path.stem}"
    for path in (REPOSITORY / "reproduce").glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text()
)


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("floor", FLOORS)
def test_floors_import_neither_each_other_nor_the_scripts(floor):
    forbidden = {*FLOORS, "reproduce", "bench", "tests"} - {floor}
    found = {path.name: imported(path) & forbidden for path in sources(floor)}
    assert not {name: names for name, names in found.items() if names}


def test_scripts_import_neither_benches_nor_tests():
    assert not [path.name for path in sources("reproduce") if imported(path) & {"bench", "tests"}]


def test_files_can_be_read_top_to_bottom():
    long = [
        path.name
        for path in sources(*FLOORS, "reproduce", "bench")
        if len(path.read_text().splitlines()) > 400
    ]
    assert not long


def test_label_names_are_typed_once():
    """Elsewhere a label may be named alone, but no second list of them may grow."""
    sys.path.insert(0, str(REPOSITORY))
    from data import labels

    for path in sources(*FLOORS, "reproduce"):
        if path.name in ("labels.py", "label_tree.py") or path.name.startswith("phantom"):
            continue  # the lists, the trees over them, and how each finding is drawn
        text = path.read_text()
        for order in (labels.CHESTXRAY14, labels.CHEXPERT, labels.PLCO):
            named = [name for name in order if f'"{name}"' in text]
            assert len(named) < 6, f"{path.name} lists {named}"


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_tables_and_readers_import_no_tensorflow():
    modules = ", ".join(LIGHT)
    heavy = "[name for name in ('tensorflow', 'keras', 'jax', 'torch') if name in sys.modules]"
    assert run(f"import sys, {modules}; print({heavy})").strip() == "[]"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_comes_at_once_and_without_tensorflow(script):
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('{script}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    assert "usage:" in run(code)
