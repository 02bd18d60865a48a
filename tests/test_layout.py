"""The rules of the house: who may import whom, how long things may be, what needs no TensorFlow."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from data import labels
from tests.conftest import REPOSITORY

BASE = ("data", "models", "losses", "evaluation")  # none of them imports another
SHARED = "safefiles"  # but any of them may import this one, which needs the standard library only
BESIDE = (
    "rescore",
    "report",
    "doctor",
    "predict",
    "study",
)  # commands of their own; nothing imports them
PAPERS = sorted(path.stem for path in (REPOSITORY / "reproduce").glob("*[0-9].py"))
COMMANDS = (*PAPERS, *BESIDE)
NO_TENSORFLOW = (  # readers, tables and the run loop, up to the first row that has to be trained
    "data.chestxray14",
    "data.chexpert",
    "data.phantom",
    "data.plco",
    "data.policies",
    "data.prepare",
    "data.splits",
    "evaluation.claims",
    "models.inference",
    "evaluation.predictions",
    "evaluation.published",
    "losses",
    "models.backbones",
    "reproduce.engine.dataset",
    "reproduce.engine.loop",
    "reproduce.engine.rebuild",
    "reproduce.tables.scoring",
)


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def name_of(path: Path) -> str:
    """The module's dotted name; a package's is that of its folder."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


MODULES = {
    name_of(path): path
    for path in [REPOSITORY / "safefiles.py", *sources(*BASE, "reproduce", "bench", "tests")]
}
CODE = sources(*BASE, "reproduce", "bench")


def imports_in(module: str, tree: ast.Module, known=MODULES) -> set[str]:
    """The modules of ours that a file imports, anywhere in it, and `losses.NAME` on first use.

    A module's own packages are left out, unless it takes more than a module from them.
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
    """`data`, … for the base folders; `engine`, `tables`, `papers`, or the command of a module."""
    first, *rest = module.split(".")
    if first != "reproduce":
        return first
    if not rest:
        return "reproduce"
    return "papers" if rest[0] in PAPERS else rest[0]


def may_import(part: str) -> set[str]:
    """The parts of the suite that one part may import."""
    if part in (*BASE, SHARED):
        return {part, SHARED}
    shared = {*BASE, "reproduce", SHARED}
    allowed = {
        "reproduce": {SHARED},
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
        and not (part_of(module) in BASE and other == SHARED)
    ]


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import one another, by way of others or not (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in imports[module]:
            if other not in order:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in imports:
        if module not in order:
            visit(module)
    return groups


def test_imports_run_one_way():
    assert wrong_imports(IMPORTS) == []


def test_what_base_folders_share_needs_the_standard_library_only():
    names = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree_of(MODULES[SHARED]))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names}


def test_no_import_is_circular():
    assert circles(IMPORTS) == []


def test_wrong_and_circular_imports_would_be_seen():
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
    assert circles(imports) == [["data.a", "losses.b"]]
    wrong = wrong_imports(imports)
    assert {*wrong} == {
        "losses.b imports data",
        "losses.b imports data.a",
        "data.a imports losses",
        "data.a imports losses.b",
    }
    beside = {"reproduce.tables": {"reproduce.report"}, "reproduce.report": {"reproduce.tables"}}
    assert wrong_imports(beside) == ["reproduce.tables imports reproduce.report"]


def test_the_folder_of_the_papers_shows_the_papers():
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
    """The name of what is called, without the module in front of it."""
    return ast.unparse(node.func).rpartition(".")[2]


def test_fields_are_read_by_their_names():
    """`getattr(config, f"{stage}_epochs")` cannot be searched for; a name in a variable may be."""
    assert not [
        f"{name_of(path)}, line {node.lineno}"
        for path in CODE
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and called(node) in ("getattr", "setattr", "hasattr")
        if any(isinstance(each, (ast.JoinedStr, ast.BinOp)) for each in node.args[1:2])
    ]


def test_label_names_are_typed_once():
    """Elsewhere a label may be named alone, but no second list of them may grow."""
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
def test_help_comes_at_once_and_without_tensorflow(command):
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('reproduce.{command}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    assert "usage:" in run(code)
