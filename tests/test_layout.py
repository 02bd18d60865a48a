"""The layout: who may import whom, what needs no TensorFlow, and what a further paper costs."""

import ast
import functools
import graphlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from data import labels
from tests.conftest import REPOSITORY

EXAMPLE = ("reproduce/wang2017.py", "reproduce/wang2017.sh", "results/published/wang2017.csv")
BASE = ("data", "models", "losses", "evaluation")  # none of them imports another
SHARED = {"safefiles", "downloads"}  # all of them may import these two
BESIDE = ("rescore", "report", "doctor", "predict", "study")  # commands; nothing imports them
PAPERS = sorted(path.stem for path in (REPOSITORY / "reproduce").glob("*[0-9].py"))
COMMANDS = (*PAPERS, *BESIDE)
NO_TENSORFLOW = (  # readers, tables and the engine, up to the first row that has to be trained
    "data.chestxray14",
    "data.chexpert",
    "data.phantom",
    "data.plco",
    "data.policies",
    "data.prepare",
    "data.splits",
    "evaluation.claims",
    "evaluation.predictions",
    "evaluation.published",
    "losses",
    "models.backbones",
    "models.inference",
    "reproduce.engine.dataset",
    "reproduce.engine.rebuild",
    "reproduce.engine.rows",
    "reproduce.engine.runs",
    "reproduce.engine.search",
    "reproduce.engine.train",
    "reproduce.tables.scoring",
)


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def name_of(path: Path) -> str:
    """Return a module's dotted name; that of a package is the name of its folder."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


MODULES = {
    name_of(path): path
    for path in [
        *(REPOSITORY / f"{name}.py" for name in SHARED),
        *sources(*BASE, "reproduce", "bench", "tests"),
    ]
}
CODE = sources(*BASE, "reproduce", "bench")


def imports_in(module: str, tree: ast.Module, known=MODULES) -> set[str]:
    """Return the modules of this suite that a file imports anywhere, and `losses.NAME` on use.

    A module's own packages are left out, unless it imports more than modules from them.
    """
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: write the whole name instead of dots"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in known else str(node.module))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names.add(f"{node.value.id}.{node.attr}")
    packages = {name.rpartition(".")[0] for name in names}
    packages |= {name.rpartition(".")[0] for name in packages}
    foreign = {name for name in packages if not f"{module}.".startswith(f"{name}.")}
    return (names | foreign) & set(known) - {module}


IMPORTS = {module: imports_in(module, tree_of(path)) for module, path in MODULES.items()}


def part_of(module: str) -> str:
    """Return the part of a module: a base folder, engine, tables, papers or a command."""
    first, *rest = module.split(".")
    if first != "reproduce":
        return first
    if not rest:
        return "reproduce"
    return "papers" if rest[0] in PAPERS else rest[0]


def may_import(part: str) -> set[str]:
    """Return the parts of the suite that one part may import."""
    if part in (*BASE, *SHARED):
        return {part, *SHARED}
    shared = {*BASE, "reproduce", *SHARED}
    allowed = {
        "reproduce": SHARED,
        "engine": shared | {"engine"},
        "tables": shared | {"engine", "tables"},
        "papers": shared | {"engine", "tables"},
        "study": shared | {"engine", "tables", "papers", "study"},
        "bench": shared | {"engine", "tables", "papers", "report", "bench"},  # it times all of them
        "tests": {*map(part_of, MODULES)},
    }
    return allowed.get(part, shared | {"engine", "tables", part})


def wrong_imports(imports: dict[str, set[str]]) -> list[str]:
    return [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in sorted(others)
        if part_of(other) not in may_import(part_of(module))
        and not (part_of(module) in BASE and other in SHARED)
    ]


def circle(imports: dict[str, set[str]]) -> set[str]:
    """Return modules that import one another, directly or not; an empty set if none do."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return {*error.args[1]}
    return set()


def test_imports_run_one_way():
    assert wrong_imports(IMPORTS) == []


@pytest.mark.parametrize("module", sorted(SHARED))
def test_a_shared_module_needs_hardly_more_than_the_standard_library(module):
    names = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree_of(MODULES[module]))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    light = {*sys.stdlib_module_names, "safefiles", "tqdm"}
    assert {name.partition(".")[0] for name in names} <= light


def test_no_import_is_circular():
    assert circle(IMPORTS) == set()


def test_wrong_and_circular_imports_are_recognised():
    known = {"data", "safefiles", "data.a", "losses", "losses.b", "reproduce", "reproduce.engine"}
    code = {
        "losses.b": "def f():\n    from data import a",
        "data.a": "import losses\nx = losses.b.f",
        "reproduce.engine": "from reproduce import RunError",
    }
    imports = {name: imports_in(name, ast.parse(code.get(name, "")), known) for name in known}
    assert imports["losses.b"] == {"data.a", "data"}
    assert imports["data.a"] == {"losses", "losses.b"}
    assert imports["reproduce.engine"] == {"reproduce"}
    assert circle(imports) == {"data.a", "losses.b"}
    wrong = wrong_imports(imports)
    assert {*wrong} == {
        "losses.b imports data",
        "losses.b imports data.a",
        "data.a imports losses",
        "data.a imports losses.b",
    }
    beside = {"reproduce.tables": {"reproduce.report"}, "reproduce.report": {"reproduce.tables"}}
    assert wrong_imports(beside) == ["reproduce.tables imports reproduce.report"]


def test_reproduce_holds_papers_commands_and_packages_only():
    entries = {
        path.name for path in (REPOSITORY / "reproduce").iterdir() if path.name[0] not in "._"
    }
    papers = {f"{paper}.{kind}" for paper in PAPERS for kind in ("py", "sh")}
    folders = {"engine", "tables", "rescore", "report", "doctor", "study"}
    assert entries - {"slurm.sh", "study.sh"} == {
        *papers,
        *folders,
        "all.sh",
        "env.sh",
        "predict.py",
    }


def called(node: ast.Call) -> str:
    """Return the name of a called function, without its module."""
    return ast.unparse(node.func).rpartition(".")[2]


def test_fields_are_read_by_their_names():
    """A field in `getattr(config, f"{stage}_epochs")` cannot be found by searching for its name."""
    assert not [
        f"{name_of(path)}, line {node.lineno}"
        for path in CODE
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and called(node) in ("getattr", "setattr", "hasattr")
        if any(isinstance(each, (ast.JoinedStr, ast.BinOp)) for each in node.args[1:2])
    ]


def test_label_names_are_typed_once():
    """Other modules may name single labels, but must not repeat the list."""
    allowed = {MODULES["data.labels"], MODULES["data.label_tree"], *sources("data/phantom")}
    lists = (labels.CHESTXRAY14, labels.CHEXPERT, labels.PLCO)
    for path in {*sources(*BASE, "reproduce")} - allowed:
        text = path.read_text()
        for order in lists:
            named = [name for name in order if f'"{name}"' in text]
            assert len(named) < 6, f"{name_of(path)} lists {named}"


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_tables_and_readers_import_no_tensorflow():
    modules = ", ".join(NO_TENSORFLOW)
    heavy = "[name for name in ('tensorflow', 'keras', 'jax', 'torch') if name in sys.modules]"
    assert run(f"import sys, {modules}; print({heavy})").strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_tensorflow(command):
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('reproduce.{command}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    assert "usage:" in run(code)


def test_a_further_paper_touches_no_existing_file(tmp_path):
    """Add three files to a copy of the suite; the paper trains, and every command knows it."""
    for folder in (*BASE, "reproduce", "results/published"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=ignored)
    for name in ("safefiles.py", "downloads.py", "requirements.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for name in EXAMPLE:
        text = (REPOSITORY / name).read_text().replace("wang2017", "doe2031")
        (tmp_path / name.replace("wang2017", "doe2031")).write_text(text)

    def command(*words: str) -> str:
        ended = subprocess.run(
            words,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path), "CXR_PYTHON": sys.executable},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    flags = "--phantoms 150 --epochs 1 --resamples 20 --device cpu --backbone tiny --size 32"
    printed = command("bash", "reproduce/doe2031.sh", *flags.split())
    (folder,) = tmp_path.glob("results/doe2031/chestxray14-phantoms")
    rows = set(pd.read_csv(folder / "table.csv")["row"])
    assert len(rows) == 2
    assert all(row in printed for row in rows)
    assert len(list(folder.glob("*/seed-0-*/predictions.npz"))) == 2
    python = [sys.executable, "-m"]
    assert "doe2031: 16 numbers" in command(*python, "evaluation.published", "audit", "doe2031")
    command(*python, "reproduce.report")
    assert "doe2031" in (tmp_path / "results" / "index.html").read_text()
