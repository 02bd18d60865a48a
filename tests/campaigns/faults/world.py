"""The data and runs that the cases damage, and how the end of a command is judged."""

import contextlib
import functools
import io
import os
import runpy
import shutil
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import safefiles
from data.phantom import drawing
from tests.conftest import REPOSITORY
from tests.flags import with_changes

LIMIT = 600  # seconds after which a command counts as hanging, on a machine that others use too
MAX_LINES = 14  # of a message: a reader shows the expected layout beside what it found
SMALL = [
    *("--backbone", "tiny", "--size", 32, "--resize", 36, "--epochs", 2, "--finetune-epochs", 1),
    *("--batch-size", 8, "--resamples", 20),
]


class Hang(BaseException):
    """A command that did not end within the limit."""


class Outcome(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The message to the user, without argparse's usage."""
        usage, error, message = self.err.partition(": error: ")
        return (message if error else usage).strip()

    def refused(self, said: str = "", unsaid: tuple[str, ...] = ()) -> str:
        """Return why this is not a proper refusal that says `said`; empty if it is one."""
        lines = [line for line in self.message.splitlines() if line.strip()]
        if "Traceback" in self.err + self.out:
            return f"traceback: {lines[-1]}"
        if self.code not in (1, 2):
            return f"exit code {self.code}"
        if not 0 < len(lines) <= MAX_LINES:
            return f"{len(lines)} lines instead of a sentence"
        if said not in self.message + self.out:
            return f"does not say {said!r}: {self.message}"
        wrong = [word for word in unsaid if word in self.message]
        return f"says {wrong}: {self.message}" if wrong else ""

    def accepted(self, said: str = "") -> str:
        """Return why this is not a success that says `said`; empty if it is one."""
        if self.code:
            return f"exit code {self.code}: {self.err.strip()[-300:]}"
        shown = self.out + self.err
        return "" if said in shown else f"does not say {said!r}: {shown[-300:]}"


class Case(NamedTuple):
    """One bad input; `check` returns why a command did not handle it as promised, or nothing."""

    name: str  # its group and title: A7 rescore: a patient in two spellings
    quick: bool  # needs no training
    check: Callable[["World"], str]

    @property
    def group(self) -> str:
        return self.name.partition(" ")[0]


CASES: list[Case] = []


def cases(table: str | dict[str, object], quick: bool = True) -> Callable:
    """Register a function as one case, or as one case per entry {name: arguments}.

    The function returns a problem as text, or an Outcome that must be a refusal.
    """

    def register(function: Callable) -> Callable:
        for name, given in (table if isinstance(table, dict) else {table: ()}).items():
            arguments = given if isinstance(given, tuple) else (given,)
            CASES.append(Case(name, quick, functools.partial(judge, function, arguments)))
        return function

    return register


def judge(function: Callable, arguments: tuple, world: "World") -> str:
    """Run a case; return its problem."""
    result = function(world, *arguments)
    return result.refused() if isinstance(result, Outcome) else result


def run(module: str, *arguments: object, **environment: str) -> Outcome:
    """Run `python -m MODULE` in this process; in another one if it has its own environment."""
    words = [str(word) for word in arguments]
    if environment:
        return command([sys.executable, "-m", module, *words], **environment)
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv, sys.argv = sys.argv, [module, *words]
    signal.alarm(LIMIT)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # runpy warns when it runs a module again
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except (Exception, Hang):
        err.write(traceback.format_exc())
        code = 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # commands replace its handler
        sys.argv = argv
    return Outcome(code, out.getvalue(), err.getvalue())


def command(words: list[str], **environment: str) -> Outcome:
    """Run a command in a process of its own."""
    try:
        ended = subprocess.run(
            words, cwd=REPOSITORY, capture_output=True, timeout=LIMIT, env=os.environ | environment
        )
    except subprocess.TimeoutExpired:
        return Outcome(-1, "", f"no end within {LIMIT} s")
    texts = (text.decode("utf-8", "replace") for text in (ended.stdout, ended.stderr))
    return Outcome(ended.returncode, *texts)


def shell(line: str, **environment: str) -> Outcome:
    """Run a line of bash, with this interpreter for the scripts that start Python."""
    return command(["/bin/bash", "-c", line], **{"CXR_PYTHON": sys.executable} | environment)


def refuses(error_type: type[Exception]) -> Callable:
    """Return a caller that turns a function's error into the outcome of a command."""

    def call(function: Callable, *arguments: object) -> Outcome:
        err = io.StringIO()
        try:
            with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err):
                function(*arguments)
        except error_type as error:
            return Outcome(2, "", str(error))
        return Outcome(0, "", err.getvalue())

    return call


def together(problems: list[str]) -> str:
    """Join the problems of several inputs that one case tries."""
    return "; ".join(filter(None, problems))


def leftovers(folder: Path) -> str:
    """Name the unfinished files below a folder; empty if there are none."""
    names = [path.name for path in folder.rglob(f"{safefiles.PART}*")]
    return f"unfinished files are left: {names}" if names else ""


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


class World:
    """Synthetic radiographs in every layout, and two runs of which one starts from the other."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0

    def new(self) -> Path:
        """Make an empty folder."""
        self.count += 1
        folder = self.folder / f"case-{self.count}"
        folder.mkdir()
        return folder

    def copy(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return a copy of a folder that is made on first use."""
        original = self.folder / name
        if not original.exists():
            make(original)
        return Path(shutil.copytree(original, self.new() / name))

    def folder_of(self, name: str) -> Path:
        """Return the folder of a synthetic dataset, which no case may change."""
        folder = self.folder / name
        if not folder.exists():
            drawing.write(name, folder, 40, 64, seed=1, progress=False)
        return folder

    def dataset(self, name: str) -> Path:
        """Return a copy of a synthetic dataset."""
        return Path(shutil.copytree(self.folder_of(name), self.new() / name))

    @property
    def image(self) -> Path:
        return min(self.folder_of("plco").rglob("*.png"))

    def train(
        self,
        results: Path,
        *flags: object,
        rows: tuple[str, ...] = ("BR-leaf",),
        data: Path | None = None,
        **environment: str,
    ) -> Outcome:
        """Train rows of chen2019 on a few synthetic images, or on the folder `data`."""
        images = ["--data-dir", data, "--preset", "demo"] if data else ["--phantoms", 60]
        folders = ["--cache-dir", self.folder / "cache", "--results-dir", results]
        words = with_changes([*SMALL, *images, *folders, "--rows", *rows], flags)
        return run("reproduce.chen2019", *words, **environment)

    def results(self) -> tuple[Path, Path, Path]:
        """Return a copy of trained results, and the runs of the parent and of its child."""

        def make(folder: Path) -> None:
            if problem := self.train(folder, rows=CHILD).accepted():
                raise RuntimeError(f"the runs to be damaged could not be trained: {problem}")

        results = self.copy("trained", make)
        return results, run_of(results, "HLCP"), run_of(results, *CHILD)

    def predict(self, folder: Path, *images: object, flags: tuple = ()) -> Outcome:
        words = ["--run", folder, *(images or [self.image]), "--out", self.new() / "out", *flags]
        return run("reproduce.predict", *words)

    def without(self, *modules: str) -> str:
        """Return a PYTHONPATH on which these modules seem not to be installed."""
        folder = self.new()
        lines = [f"sys.modules[{module!r}] = None" for module in modules]
        (folder / "sitecustomize.py").write_text("\n".join(["import sys", *lines]) + "\n")
        return os.pathsep.join([str(folder), str(REPOSITORY)])


CHILD = ("HLUP-finetune",)  # a row that starts from the weights of HLCP


def run_of(results: Path, row: str) -> Path:
    """Return the folder of the only run of a row."""
    (folder,) = results.glob(f"*/*/{row}/seed-0*")
    return folder


def _hang(number, frame):
    raise Hang(f"no end within {LIMIT} s")


signal.signal(signal.SIGALRM, _hang)
