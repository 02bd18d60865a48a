"""What the cases of tests/faults.py are tried on, and how a command's end is judged."""

import contextlib
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

ROOT = Path(__file__).parents[1]
LIMIT = 600  # seconds after which a command hangs, on a machine that others use too
MOST_LINES = 14  # of a message: a reader shows the expected layout beside what is there
SMALL = [
    *("--backbone", "tiny", "--size", 32, "--resize", 36, "--epochs", 2, "--finetune-epochs", 1),
    *("--batch-size", 8, "--resamples", 20),
]
MESSAGES: list[str] = []  # of the commands and readers that the case under way has tried


class Hang(BaseException):
    """A command that did not come to its end."""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def refused(self) -> str:
        """Why this was not refused as promised; empty if it was."""
        lines = [line for line in self.message.splitlines() if line.strip()]
        if "Traceback" in self.err + self.out:
            return f"traceback: {lines[-1]}"
        if self.code not in (1, 2):
            return f"exit code {self.code}"
        return "" if 0 < len(lines) <= MOST_LINES else f"{len(lines)} lines instead of a sentence"

    @property
    def message(self) -> str:
        """What the user is told, without argparse's usage."""
        usage, error, message = self.err.partition(": error: ")
        return (message if error else usage).strip()

    @property
    def accepted(self) -> str:
        """Why this did not end well; empty if it did."""
        return "" if self.code == 0 else f"exit code {self.code}: {self.err.strip()[-300:]}"


def heard(outcome: Outcome) -> Outcome:
    """Keep what a command told its user, for the list of all messages."""
    if outcome.message:
        MESSAGES.append(outcome.message)
    return outcome


def run(module: str, *arguments: object, **environment: str) -> Outcome:
    """python -m MODULE in this process, or with an environment of its own in another."""
    return heard(_ended(module, [str(word) for word in arguments], environment))


def _ended(module: str, words: list[str], environment: dict[str, str]) -> Outcome:
    if environment:
        command = [sys.executable, "-m", module, *words]
        try:
            ended = subprocess.run(
                command,
                cwd=ROOT,
                capture_output=True,
                timeout=LIMIT,
                env=os.environ | environment,
            )
        except subprocess.TimeoutExpired:
            return Outcome(-1, "", f"no end within {LIMIT} s")
        texts = (text.decode("utf-8", "replace") for text in (ended.stdout, ended.stderr))
        return Outcome(ended.returncode, *texts)
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv, sys.argv = sys.argv, [module, *words]
    signal.alarm(LIMIT)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of runpy, on running a module again
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except (Exception, Hang):
        err.write(traceback.format_exc())
        code = 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which commands take for themselves
        sys.argv = argv
    return Outcome(code, out.getvalue(), err.getvalue())


def missing_modules(world: "World", *names: str) -> str:
    """A PYTHONPATH with which these modules are as if they were not installed."""
    folder = world.new()
    lines = [f"sys.modules[{name!r}] = None" for name in names]
    (folder / "sitecustomize.py").write_text("\n".join(["import sys", *lines]) + "\n")
    return os.pathsep.join([str(folder), str(ROOT)])


class World:
    """What the cases are tried on: phantoms, and two runs of which one starts from the other."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0
        self._datasets: dict[str, Path] = {}
        self._results: Path | None = None

    def new(self) -> Path:
        """An empty folder."""
        self.count += 1
        folder = self.folder / f"case-{self.count}"
        folder.mkdir()
        return folder

    def dataset(self, name: str) -> Path:
        """A copy of the phantoms in a dataset's layout, to be damaged."""
        if name not in self._datasets:
            from data.phantom import drawing

            path = self.folder / f"phantoms-{name}"
            drawing.write(name, path, 40, 64, seed=1, progress=False)
            self._datasets[name] = path
        return Path(shutil.copytree(self._datasets[name], self.new() / name))

    @property
    def image(self) -> Path:
        return sorted((self.dataset("plco")).rglob("*.png"))[0]

    def train(
        self, results: Path, *more: object, rows=("HLUP-finetune",), data: Path | None = None
    ) -> Outcome:
        """Chen's rows on a few phantoms or on data: HLUP-finetune starts from HLCP."""
        images = ["--data-dir", data, "--preset", "demo"] if data else ["--phantoms", 60]
        places = ["--cache-dir", self.folder / "cache", "--results-dir", results]
        return run("reproduce.chen2019", *SMALL, *images, *places, "--rows", *rows, *more)

    def results(self) -> tuple[Path, Path, Path]:
        """A copy of trained results, and the folders of the parent and of its child."""
        if self._results is None:
            self._results = self.folder / "trained"
            if problem := self.train(self._results).accepted:
                raise RuntimeError(f"the runs to be damaged could not be trained: {problem}")
        copy = Path(shutil.copytree(self._results, self.new() / "results"))
        parent, child = (copy / "chen2019/plco-phantoms" / row for row in ("HLCP", "HLUP-finetune"))
        return copy, parent / "seed-0", child / "seed-0"

    def predict(self, folder: Path, *images: object, flags: tuple = ()) -> Outcome:
        given = images or (self.image,)
        out = self.new() / "out"
        return run("reproduce.predict", "--run", folder, *given, "--out", out, *flags)


class Case(NamedTuple):
    group: str
    name: str
    quick: bool  # without training
    try_: Callable[[World], str]  # -> why it did not end as promised


CASES: list[Case] = []


def case(group: str, name: str, quick: bool = True) -> Callable:
    """Register a case; it returns an Outcome that must be a refusal, or a problem as text."""

    def register(function: Callable) -> Callable:
        def try_(world: World) -> str:
            result = function(world)
            return result.refused if isinstance(result, Outcome) else result

        CASES.append(Case(group, name, quick, try_))
        return function

    return register


def _hang(number, frame):
    raise Hang(f"no end within {LIMIT} s")


signal.signal(signal.SIGALRM, _hang)
