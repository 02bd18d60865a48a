"""Sampled mutation testing: find small changes of the code that no test notices.

    python -m tests.campaigns.mutate evaluation --mutants 200 --seed 0
    python -m tests.campaigns.mutate losses evaluation --mutants 50 --only metrics --list

A mutant is a module with one operator, comparison, constant, condition or return value changed.
The module's tests (tests/test_FOLDER_MODULE.py, tests/test_FOLDER_MODULE_*.py and, for the whole
folder, tests/test_FOLDER_all.py) run, the quickest first, until one fails. Then the mutant is
killed; otherwise it survived and its line is printed. A survivor is either equivalent to the
original or shows that a test is missing.

The mutants are written into a copy of the repository. Each is tested in a process forked from one
that has imported the libraries, TensorFlow included, but nothing of this repository.
"""

import argparse
import ast
import collections
import contextlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import REPOSITORY as ROOT

LIBRARIES = [
    *("numpy", "pandas", "scipy.sparse", "scipy.stats", "sklearn.metrics", "matplotlib.figure"),
    *("hypothesis", "hypothesis.extra.numpy", "pytest", "_pytest.assertion"),
    *("cv2", "PIL.Image", "jinja2", "xml.etree.ElementTree"),
]
NEED_BACKEND = ("keras", "tensorflow")  # a test that names one of them imports both
SLACK, LEAST = 6, 20  # a mutant may take 6 times as long as the tests take, or 20 seconds
SURVIVED, KILLED, TIMEOUT, BROKEN = "survived", "killed", "timeout", "broken"

COMPARISONS = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In},
}
OPERATORS = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **dict.fromkeys((ast.Mod, ast.FloorDiv, ast.Pow, ast.MatMult), ast.Mult),
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd},
    **{ast.LShift: ast.RShift, ast.RShift: ast.LShift},
}


class Mutant(NamedTuple):
    module: str  # path below the repository
    line: int
    before: str  # the changed lines, stripped
    after: str
    source: str  # of the whole mutated module


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield (expression to replace, its replacement) for one node."""
    match node:
        case ast.Compare(left, operators, comparators):
            for position, operator in enumerate(operators):
                changed = [*operators]
                changed[position] = COMPARISONS[type(operator)]()
                yield node, ast.Compare(left, changed, comparators)
        case ast.BinOp(left, operator, right):
            yield node, ast.BinOp(left, OPERATORS[type(operator)](), right)
        case ast.BoolOp(operator, values):
            other = ast.And() if isinstance(operator, ast.Or) else ast.Or()
            yield node, ast.BoolOp(other, values)
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield node, operand
        case ast.Constant(bool(value)):
            yield node, ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield node, ast.Constant(value + 1)
        case ast.If(test) | ast.IfExp(test) | ast.While(test):
            yield test, ast.UnaryOp(ast.Not(), test)
        case ast.Return(ast.expr() as value):
            if not (isinstance(value, ast.Constant) and not value.value):  # None for "" or False
                yield value, ast.Constant(None)
        case ast.AugAssign(target, operator, value):
            yield node, ast.AugAssign(target, OPERATORS[type(operator)](), value)


def executable(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node except annotations, patterns, f-strings and `strict=True`."""
    skipped = (ast.pattern, ast.JoinedStr)
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.keyword) and child.arg == "strict":
                continue
            if isinstance(child, ast.AST) and not isinstance(child, skipped):
                yield child
                yield from executable(child)


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    source = path.read_text(encoding="utf-8")
    content, starts = source.encode(), [0]
    for line in content.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tree = ast.parse(source)
    for node in executable(tree):
        for old, new in changes(node):
            begin = starts[old.lineno - 1] + old.col_offset
            end = starts[old.end_lineno - 1] + old.end_col_offset
            text = ast.unparse(ast.fix_missing_locations(new))
            text = text if isinstance(new, ast.stmt) else f"({text})"
            mutated = (content[:begin] + text.encode() + content[end:]).decode()
            before = lines_between(source, old.lineno, old.end_lineno)
            after = lines_between(mutated, old.lineno, old.lineno + text.count("\n"))
            yield Mutant(str(path.relative_to(ROOT)), old.lineno, before, after, mutated)


class Durations:
    """A pytest plugin that records the seconds that each test takes."""

    def __init__(self, notes: Path):
        self.notes = notes
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration

    def pytest_sessionfinish(self):
        self.notes.write_text(json.dumps(self.seconds))


class QuickestFirst:
    """A pytest plugin that sorts tests by the seconds that they took."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds = seconds

    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0))


def lines_between(source: str, first: int, last: int) -> str:
    """Join lines of a source, counted from 1."""
    return " ".join(line.strip() for line in source.splitlines()[first - 1 : last])


def tests_of(module: str) -> list[str]:
    """Return the test files of a module: tests/test_evaluation_audit.py of evaluation/audit.py.

    A module in a package has all tests of the package: those of data/phantom/film.py begin with
    test_data_phantom.
    """
    folder, *inner = (part for part in Path(module).with_suffix("").parts if part != "__init__")
    if not inner:  # the folder's own __init__.py
        return []
    names = ["_".join(["test", folder, *inner]), "_".join(["test", folder, *inner[:1]])]
    own = [path for name in names for path in (*_named(f"{name}.py"), *_named(f"{name}_*.py"))]
    return [*dict.fromkeys(own), *(_named(f"test_{folder}_all.py") if own else ())]


def _named(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob(pattern))


def run_tests(copy: Path, files: list[str], limit: float, plugin: Durations | QuickestFirst) -> str:
    """Run tests of the copy in a forked process; return SURVIVED, KILLED, TIMEOUT or BROKEN."""
    child = os.fork()
    if not child:
        os.setsid()  # so that what the tests start ends with them
        os.chdir(copy)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        sys.path[:0] = [str(copy)]
        os.environ["PYTHONPATH"] = str(copy)
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]  # this module's package, or pytest would find the original's
        code = 3
        try:
            flags = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
            code = pytest.main([*flags, *files], plugins=[plugin])
        finally:
            os._exit(int(code))
    until = time.monotonic() + limit
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            end_group(child)
            code = os.waitstatus_to_exitcode(status)
            # 2: the module cannot be imported; below 0: a crash. Both are noticed.
            return SURVIVED if code == 0 else BROKEN if code in (4, 5) else KILLED
        time.sleep(0.02)
    end_group(child)
    os.waitpid(child, 0)
    return TIMEOUT


def end_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def modules_in(folder: str, only: str) -> list[str]:
    """Return the modules of a folder that have tests of their own; print the others."""
    modules = sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py"))
    modules = [module for module in modules if re.search(only, module)]
    without = [
        each for each in modules if not tests_of(each) and (ROOT / each).stat().st_size > 200
    ]
    if without:
        print(f"without a test file of their own: {', '.join(without)}", flush=True)
    return [module for module in modules if tests_of(module)]


def import_libraries(tests: set[str]) -> None:
    """Import the libraries that all tests need, and nothing of this repository."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    texts = " ".join((ROOT / test).read_text(encoding="utf-8") for test in tests)
    backend = NEED_BACKEND if any(name in texts for name in NEED_BACKEND) else ()
    for name in (*LIBRARIES, *backend):
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def copy_repository(folder: Path) -> Path:
    """Copy the files that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    copy = folder / "repository"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", help="folders to mutate: evaluation, losses")
    parser.add_argument("--mutants", type=int, default=200, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="modules whose path this expression matches"
    )
    parser.add_argument("--list", action="store_true", help="print the sample, test nothing")
    options = parser.parse_args()
    modules = [each for folder in options.folders for each in modules_in(folder, options.only)]
    every = [mutant for module in modules for mutant in mutants_of(ROOT / module)]
    sample = random.Random(options.seed).sample(every, min(options.mutants, len(every)))
    print(f"{len(sample)} of {len(every)} mutants of {len(modules)} modules", flush=True)
    if options.list:
        for mutant in sorted(sample):
            print(f"{mutant.module}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}")
        return 0
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        counts = run_sample(sample, copy_repository(Path(folder)))
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return int(bool(counts[SURVIVED] or counts[BROKEN]))


class Tests(NamedTuple):
    """A module's tests, as measured on the original module."""

    files: list[str]
    limit: float  # seconds
    order: QuickestFirst


def tests_without_mutant(module: str, copy: Path) -> Tests:
    """Run the tests of the original module, and record how long each of them takes."""
    files, notes, started = tests_of(module), copy.parent / "seconds.json", time.monotonic()
    verdict = run_tests(copy, files, 900, Durations(notes))
    took = time.monotonic() - started
    print(f"{module}: {took:.1f} s of {', '.join(files)}", flush=True)
    if verdict != SURVIVED:
        sys.exit(f"{', '.join(files)}: {verdict} without any mutant; fix them first.")
    return Tests(files, max(LEAST, SLACK * took), QuickestFirst(json.loads(notes.read_text())))


def run_sample(sample: list[Mutant], copy: Path) -> collections.Counter[str]:
    """Test every mutant, print the survivors, and return the number of each verdict."""
    import_libraries({test for mutant in sample for test in tests_of(mutant.module)})
    counts: collections.Counter[str] = collections.Counter()
    measured: dict[str, Tests] = {}
    for number, mutant in enumerate(sample, 1):
        if mutant.module not in measured:
            measured[mutant.module] = tests_without_mutant(mutant.module, copy)
        tests, path = measured[mutant.module], copy / mutant.module
        original = path.read_bytes()
        path.write_text(mutant.source, encoding="utf-8")
        verdict = run_tests(copy, tests.files, tests.limit, tests.order)
        path.write_bytes(original)
        counts[verdict] += 1
        if verdict in (SURVIVED, BROKEN):
            where = f"[{number}/{len(sample)}] {verdict} {mutant.module}:{mutant.line}"
            print(f"{where}\n  - {mutant.before}\n  + {mutant.after}", flush=True)
    return counts


if __name__ == "__main__":
    sys.exit(main())
