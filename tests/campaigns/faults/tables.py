"""Cases on rescore, the report and the shell scripts."""

import contextlib
import gzip
import io
import sys
from pathlib import Path

import numpy as np

from tests.campaigns.faults.world import Outcome, World, cases, leftovers, run, shell
from tests.flags import with_changes
from tests.report_results import write_results

TRUTH = "id,who,Edema,Mass\na,1,1,0\nb,2,0,1\nc,3,0,0\nd,3,1,1\n"
PREDICTED = "id,who,Edema,Mass\na,1,.9,.2\nb,2,.3,.8\nc,3,.1,.4\nd,3,.6,.7\n"
PATIENTS = ("--patient-column", "who")
LABELS = ("--labels", "Edema,Mass")
PYTHON = sys.executable


# Rescore


def written(folder: Path, predicted: str | bytes, truth: str) -> list[object]:
    """Write a file of predictions and one of truth; return the flags that name them."""
    words: list[object] = []
    for name, content in (("predictions", predicted), ("truth", truth)):
        path = folder / f"{name}.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        words += [f"--{name}", path]
    return words


def rescore(
    world: World, predicted: str | bytes, truth: str, *flags: object, **environment: str
) -> Outcome:
    folder = world.new()
    words = [*written(folder, predicted, truth), "--resamples", 20, "--results-dir", folder]
    return run("reproduce.rescore", *with_changes(words, flags), **environment)


@cases(
    {
        "A12 rescore: patients that disagree": (PREDICTED, TRUTH.replace("d,3", "d,4"), *PATIENTS),
        "A7 rescore: a patient in two spellings": (
            PREDICTED,
            TRUTH.replace("d,3", "d,03"),
            *PATIENTS,
        ),
        "A11 rescore: a label twice": (PREDICTED, TRUTH.replace("Mass", "edema")),
        "A11 rescore: --labels twice": (PREDICTED, TRUTH, "--labels", "Edema,edema"),
        "A9 rescore: a predicted column twice": (PREDICTED.replace("Mass", "Edema"), TRUTH),
        "B11 rescore: --seed -1": (PREDICTED, TRUTH, "--seed", "-1"),
        "B11 rescore: --resamples 0": (PREDICTED, TRUTH, "--resamples", "0"),
        "A3 rescore: a field too many": (PREDICTED.replace("b,2", "b,x,2"), TRUTH),
        "A3 rescore: a field too few": (PREDICTED, TRUTH.replace("b,2,0", "b,0")),
        "B5 rescore: binary": (b"\xff\x00" * 40, TRUTH),
        "B5 rescore: half a gzip file": (gzip.compress(PREDICTED.encode(), mtime=0)[:40], TRUTH),
        "B5 rescore: empty": ("", TRUTH),
        "B13 rescore: --results-dir 300 characters": (
            PREDICTED,
            TRUTH,
            *PATIENTS,
            "--results-dir",
            "x" * 300,
        ),
        "B13 rescore: --results-dir FILE": (PREDICTED, TRUTH, *PATIENTS, "--results-dir", __file__),
        "B17 rescore: --compare of 300 characters": (
            PREDICTED,
            TRUTH,
            *PATIENTS,
            "--compare",
            "x" * 300,
        ),
        "B16 rescore: --tree of other labels": (PREDICTED, TRUTH, *PATIENTS, "--tree", "chexpert"),
    }
)
def _(world, *words):
    return rescore(world, *words)


OFFICIAL = (
    "Image Index,Finding Labels,Patient ID\na,Edema|Mass,1\nb,No Finding,2\nc,Mass,3\nd,Edema,3\n"
)


@cases(
    {
        "D rescore: prob_ columns": (PREDICTED.replace("Edema", "prob_Edema"), TRUTH),
        "D rescore: the official label file": (PREDICTED, OFFICIAL),
        "D rescore: more truth than predictions": (PREDICTED, TRUTH + "e,9,1,0\n"),
        "B9 rescore: a label $x^{$": (
            PREDICTED.replace("Mass", "$x^{$"),
            TRUTH.replace("Mass", "$x^{$"),
        ),
    }
)
def _(world, *words):
    return rescore(world, *words, *PATIENTS).accepted()


@cases("D rescore: without OpenCV, tqdm and TensorFlow")
def _(world):
    path = world.without("cv2", "tqdm", "tensorflow", "keras")
    return rescore(world, PREDICTED, TRUTH, *LABELS, PYTHONPATH=path).accepted()


@cases("D rescore: tables in a pipe are one block as wide as they are")
def _(world):
    outcome = rescore(world, PREDICTED, TRUTH, *LABELS, COLUMNS="40")
    headers = [line for line in outcome.out.splitlines() if "AUC" in line and "AP" in line]
    return outcome.accepted() or ("" if headers else f"columns apart: {outcome.out[:300]}")


def rescore_arrays(world: World, **changes: object) -> Outcome:
    """Score a predictions.npz of which some arrays were changed."""
    path, numbers = world.new() / "predictions.npz", np.eye(4, 2)
    arrays = {"ids": list("wxyz"), "patients": list("wxyz"), "labels": ["A", "B"], "meta": "{}"}
    arrays |= {"targets": numbers, "probabilities": numbers[None]}
    np.savez(path, **arrays | changes)
    return run("reproduce.rescore", "--predictions", path)


@cases(
    {
        f"B5 rescore: predictions.npz with {title}": changes
        for title, changes in {
            "ids longer than targets": {"ids": list("vwxyz")},
            "2-D probabilities": {"probabilities": np.eye(4, 2)},
            "texts as targets": {"targets": np.full((4, 2), "a")},
            "probabilities of 2": {"probabilities": np.full((1, 4, 2), 2.0)},
            "NaN probabilities": {"probabilities": np.full((1, 4, 2), np.nan)},
            "targets of .5": {"targets": np.full((4, 2), 0.5)},
            "meta that is no JSON": {"meta": "{"},
            "no ids": {"ids": []},
            "ids twice": {"ids": list("wwyz")},
        }.items()
    }
)
def _(world, changes):
    return rescore_arrays(world, **changes)


@cases(
    {
        f"A11 rescore: an npz with the labels {','.join(labels)}": labels
        for labels in (["A", "a", "B"], ["A", "A"])
    }
)
def _(world, labels):
    numbers = np.eye(4, len(labels))
    return rescore_arrays(world, labels=labels, targets=numbers, probabilities=numbers[None])


# The report


def reported(world: World) -> Path:
    """Return a copy of a results folder and its report."""

    def make(folder: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            write_results(folder)

    return world.copy("report", make)


def report_on(world: World, pattern: str, content: bytes | float) -> str:
    """Damage a file (a number cuts it to that share): the page must be made and name it."""
    results = reported(world)
    (path,) = results.glob(f"chen2019/plco/{pattern}")
    if isinstance(content, float):
        content = path.read_bytes()[: int(path.stat().st_size * content)].removesuffix(b"\n")
    path.write_bytes(content)
    problem = run("reproduce.report", "--results-dir", results).accepted()
    named = path.name in (results / "index.html").read_text("utf-8")
    return problem or ("" if named else f"{path.name} is not named")


@cases(
    {
        f"B10 report: {table}.csv cut to {share:.0%}": (table, share)
        for share in (0.1, 0.3, 0.5, 0.7, 0.9)
        for table in ("table", "values", "claims")
    }
)
def _(world, table, share):
    return report_on(world, f"{table}.csv", share)


DAMAGED = (
    ("A13", "HLCP/seed-0*/history.csv", b""),
    ("A13", "HLCP/seed-0*/history.csv", b"\x00\xff" * 99),
    ("B10", "HLCP/seed-0*/config.json", b'{"settings": {"row": "x"}, "provenance": 3}'),
    ("B10", "HLCP/seed-0*/config.json", b"[]"),
    ("B10", "HLCP/seed-0*/config.json", b"\xff"),
    ("B5", "HLCP/seed-0*/predictions.npz", b""),
    ("B5", "HLCP/seed-0*/predictions.npz", b"PK\x03\x04"),
    ("B10", "figure-3.svg", b"<svg"),
)


@cases(
    {
        f"{group} report: {Path(pattern).name} holds {content[:20]!r}": (pattern, content)
        for group, pattern, content in DAMAGED
    }
)
def _(world, pattern, content):
    return report_on(world, pattern, content)


# Shells


def quiet(outcome: Outcome) -> str:
    """Return what a command wrote to stderr."""
    return outcome.err.strip()[-200:]


def rescore_line(world: World, *flags: object) -> str:
    """Return a command line that scores a file of predictions."""
    words = [*written(world.new(), PREDICTED, TRUTH), *LABELS, "--resamples", 50, *flags]
    return " ".join([PYTHON, "-m", "reproduce.rescore", *map(str, words)])


@cases("B17 a closed pipe")
def _(world):
    results = reported(world)
    return quiet(shell(f"{PYTHON} -m reproduce.report --results-dir {results} | true"))


@cases("B17 rescore in a pipe that reads one line")
def _(world):
    return quiet(shell(f"{rescore_line(world)} 2> {world.new() / 'warnings'} | head -1"))


@cases("B1 the report on a full disk")
def _(world):
    results = reported(world)
    (results / "index.html").unlink()
    outcome = shell(f"ulimit -f 8; {PYTHON} -m reproduce.report --results-dir {results}")
    return outcome.refused() or leftovers(results)


@cases("B1 rescore --results-dir on a full disk")
def _(world):
    results = world.new() / "results"
    outcome = shell(f"ulimit -f 0; {rescore_line(world, '--results-dir', results)}")
    return outcome.refused() or leftovers(results)


@cases("B17 a locale without Unicode and a Chinese name")
def _(world):
    folder = world.new() / "胸部"
    folder.mkdir()
    words = ["--data-dir", folder, "--dataset", "plco", "--seconds", "0"]
    outcome = run("reproduce.doctor", *words, LC_ALL="POSIX", PYTHONUTF8="0")
    return "" if outcome.code == 1 and "Traceback" not in outcome.err else outcome.err[-300:]


@cases(
    {
        "C4 shell: --results-dir without a value": ("all.sh --results-dir", {}),
        "C4 shell: --plco of no folder": ("all.sh --plco /no/such", {}),
        "C11 shell: CXR_PYTHON=/bin/true": ("all.sh", {"CXR_PYTHON": "/bin/true"}),
        "C11 shell: CXR_PYTHON=/no/such": ("chen2019.sh", {"CXR_PYTHON": "/no/such"}),
        "C11 shell: an empty PATH": ("chen2019.sh", {"PATH": ""}),
    }
)
def _(world, words, environment):
    return shell(f"/bin/bash reproduce/{words}", **environment)
