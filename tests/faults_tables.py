"""The cases of tests/faults.py on rescore, the report and the shell scripts."""

import contextlib
import gzip
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.faults_world import ROOT, Outcome, World, case, heard, missing_modules, run
from tests.report_results import write_results

TRUTH = "id,who,Edema,Mass\na,1,1,0\nb,2,0,1\nc,3,0,0\nd,3,1,1\n"
PREDICTED = "id,who,Edema,Mass\na,1,.9,.2\nb,2,.3,.8\nc,3,.1,.4\nd,3,.6,.7\n"


def written(folder: Path, predicted: object, truth: object) -> list[object]:
    """The flags that name a file of predictions and one of truth, which are written."""
    given: list[object] = []
    for name, content in (("predictions", predicted), ("truth", truth)):
        path = folder / f"{name}.csv"
        path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        given += [f"--{name}", path]
    return given


def rescore(
    world: World, predicted: object, truth: object, *flags: object, **environment: str
) -> Outcome:
    folder = world.new()
    given = [*written(folder, predicted, truth), "--resamples", 20, "--results-dir", folder]
    return run("reproduce.rescore", *given, *flags, **environment)


PATIENTS = ("--patient-column", "who")
REFUSED = {
    ("A12", "patients that disagree"): (
        PREDICTED,
        TRUTH.replace("d,3", "d,4"),
        "--patient-column",
        "who",
    ),
    ("A7", "a patient in two spellings"): (
        PREDICTED,
        TRUTH.replace("d,3", "d,03"),
        "--patient-column",
        "who",
    ),
    ("A11", "a label twice"): (PREDICTED, TRUTH.replace("Mass", "edema")),
    ("A11", "--labels twice"): (PREDICTED, TRUTH, "--labels", "Edema,edema"),
    ("A9", "a predicted column twice"): (PREDICTED.replace("Mass", "Edema"), TRUTH),
    ("B11", "--seed -1"): (PREDICTED, TRUTH, "--seed", "-1"),
    ("B11", "--resamples 0"): (PREDICTED, TRUTH, "--resamples", "0"),
    ("A3", "a field too many"): (PREDICTED.replace("b,2", "b,x,2"), TRUTH),
    ("A3", "a field too few"): (PREDICTED, TRUTH.replace("b,2,0", "b,0")),
    ("B5", "binary"): (b"\xff\x00" * 40, TRUTH),
    ("B5", "half a gzip file"): (gzip.compress(PREDICTED.encode(), mtime=0)[:40], TRUTH),
    ("B5", "empty"): ("", TRUTH),
    ("B13", "--results-dir 300 characters"): (
        PREDICTED,
        TRUTH,
        *PATIENTS,
        "--results-dir",
        "x" * 300,
    ),
    ("B13", "--results-dir FILE"): (PREDICTED, TRUTH, *PATIENTS, "--results-dir", __file__),
    ("B17", "--compare of 300 characters"): (PREDICTED, TRUTH, *PATIENTS, "--compare", "x" * 300),
    ("B16", "--tree of other labels"): (PREDICTED, TRUTH, *PATIENTS, "--tree", "chexpert"),
}
for (group, title), (predicted, truth, *flags) in REFUSED.items():

    @case(group, f"rescore: {title}")
    def _(world, predicted=predicted, truth=truth, flags=flags):
        return rescore(world, predicted, truth, *flags)


OFFICIAL = (
    "Image Index,Finding Labels,Patient ID\na,Edema|Mass,1\nb,No Finding,2\nc,Mass,3\nd,Edema,3\n"
)
ACCEPTED = {
    ("D", "prob_ columns"): (PREDICTED.replace("Edema", "prob_Edema"), TRUTH),
    ("D", "the official label file"): (PREDICTED, OFFICIAL),
    ("D", "more truth than predictions"): (PREDICTED, TRUTH + "e,9,1,0\n"),
    ("B9", "a label $x^{$"): (PREDICTED.replace("Mass", "$x^{$"), TRUTH.replace("Mass", "$x^{$")),
}
for (group, title), (predicted, truth) in ACCEPTED.items():

    @case(group, f"rescore: {title}")
    def _(world, predicted=predicted, truth=truth):
        return rescore(world, predicted, truth, "--patient-column", "who").accepted


@case("D", "rescore: without OpenCV, tqdm and TensorFlow")
def _(world):
    path = missing_modules(world, "cv2", "tqdm", "tensorflow", "keras")
    return rescore(world, PREDICTED, TRUTH, "--labels", "Edema,Mass", PYTHONPATH=path).accepted


@case("D", "rescore: tables in a pipe are one block as wide as they are")
def _(world):
    outcome = rescore(world, PREDICTED, TRUTH, "--labels", "Edema,Mass", COLUMNS="40")
    headers = [line for line in outcome.out.splitlines() if "AUC" in line and "AP" in line]
    return outcome.accepted or ("" if headers else f"columns apart: {outcome.out[:300]}")


for names in (["A", "a", "B"], ["A", "A"]):

    @case("A11", f"rescore: an npz with the labels {','.join(names)}")
    def _(world, names=names):
        path, numbers = world.new() / "predictions.npz", np.eye(4, len(names))
        arrays = {"ids": list("wxyz"), "patients": list("wxyz"), "labels": names}
        np.savez(path, **arrays, targets=numbers, probabilities=numbers[None], meta="{}")
        return run("reproduce.rescore", "--predictions", path)


NPZ = {
    "ids longer than targets": {"ids": list("vwxyz")},
    "2-D probabilities": {"probabilities": np.eye(4, 2)},
    "texts as targets": {"targets": np.full((4, 2), "a")},
    "probabilities of 2": {"probabilities": np.full((1, 4, 2), 2.0)},
    "NaN probabilities": {"probabilities": np.full((1, 4, 2), np.nan)},
    "targets of .5": {"targets": np.full((4, 2), 0.5)},
    "meta that is no JSON": {"meta": "{"},
    "no ids": {"ids": []},
    "ids twice": {"ids": list("wwyz")},
}
for title, change in NPZ.items():

    @case("B5", f"rescore: predictions.npz with {title}")
    def _(world, change=change):
        path, numbers = world.new() / "predictions.npz", np.eye(4, 2)
        arrays = {"ids": list("wxyz"), "patients": list("wxyz"), "labels": ["A", "B"], "meta": "{}"}
        np.savez(path, **arrays | {"targets": numbers, "probabilities": numbers[None]} | change)
        return run("reproduce.rescore", "--predictions", path)


for url in ("nonsense", "http://", "ftp://x/y", "http://127.0.0.1:9/"):

    @case("B13", f"rescore --base-url {url}")
    def _(world, url=url):
        given = ["pham2019", "--released", world.new(), "--download"]
        return run("reproduce.rescore", *given, "--base-url", url)


# The report


def report(world: World, name: str, content: bytes | float) -> str:
    """The page must be made and name the damaged file; a number cuts it to that share."""
    results = world.folder / "report"
    if not results.exists():
        with contextlib.redirect_stdout(io.StringIO()):
            write_results(results)
    copy = Path(shutil.copytree(results, world.new() / "results"))
    path = copy / name
    if isinstance(content, float):
        content = path.read_bytes()[: int(path.stat().st_size * content)].removesuffix(b"\n")
    path.write_bytes(content)
    problem = run("reproduce.report", "--results-dir", copy).accepted
    named = path.name in (copy / "index.html").read_text("utf-8")
    return problem or ("" if named else f"{path.name} is not named")


RUN = "chen2019/plco/HLCP/seed-0"
for share in (0.1, 0.3, 0.5, 0.7, 0.9):
    for table in ("table", "values", "claims"):

        @case("B10", f"report: {table}.csv cut to {share:.0%}")
        def _(world, table=table, share=share):
            return report(world, f"chen2019/plco/{table}.csv", share)


for group, name, content in (
    ("A13", f"{RUN}/history.csv", b""),
    ("A13", f"{RUN}/history.csv", b"\x00\xff" * 99),
    ("B10", f"{RUN}/config.json", b'{"settings": {"row": "x"}, "provenance": 3}'),
    ("B10", f"{RUN}/config.json", b"[]"),
    ("B10", f"{RUN}/config.json", b"\xff"),
    ("B5", f"{RUN}/predictions.npz", b""),
    ("B5", f"{RUN}/predictions.npz", b"PK\x03\x04"),
    ("B10", "chen2019/plco/figure-3.svg", b"<svg"),
):

    @case(group, f"report: {Path(name).name} holds {content[:20]!r}")
    def _(world, name=name, content=content):
        return report(world, name, content)


for place in ("x" * 300, "/etc/passwd", "/no/such"):

    @case("B17", f"report --results-dir {place[:12]}")
    def _(world, place=place):
        return run("reproduce.report", "--results-dir", place)


# Shells


def shell(command: str, **environment: str) -> Outcome:
    ended = subprocess.run(
        ["/bin/bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env=os.environ | {"CXR_PYTHON": sys.executable} | environment,
    )  # fmt: skip
    return heard(Outcome(ended.returncode, ended.stdout, ended.stderr))


@case("B17", "a closed pipe")
def _(world):
    results = world.new() / "results"
    with contextlib.redirect_stdout(io.StringIO()):
        write_results(results)
    outcome = shell(f"{sys.executable} -m reproduce.report --results-dir {results} | true")
    return f"{outcome.err.strip()[-200:]}" if outcome.err.strip() else ""


@case("B17", "rescore in a pipe that reads one line")
def _(world):
    words = " ".join(map(str, written(world.new(), PREDICTED, TRUTH)))
    flags = f"--labels Edema,Mass --resamples 50 2> {world.new() / 'warnings'}"
    outcome = shell(f"{sys.executable} -m reproduce.rescore {words} {flags} | head -1")
    return f"{outcome.err.strip()[-200:]}" if outcome.err.strip() else ""


@case("B17", "a locale without Unicode and a Chinese name")
def _(world):
    folder = world.new() / "胸部"
    folder.mkdir()
    flags = ["--data-dir", folder, "--dataset", "plco", "--seconds", "0"]
    outcome = run("reproduce.doctor", *flags, LC_ALL="POSIX", PYTHONUTF8="0")
    return "" if outcome.code == 1 and "Traceback" not in outcome.err else outcome.err[-300:]


for title, command, environment in (
    ("--results-dir without a value", "bash reproduce/all.sh --results-dir", {}),
    ("CXR_PYTHON=/bin/true", "bash reproduce/all.sh", {"CXR_PYTHON": "/bin/true"}),
    ("CXR_PYTHON=/no/such", "bash reproduce/chen2019.sh", {"CXR_PYTHON": "/no/such"}),
    ("an empty PATH", "/bin/bash reproduce/chen2019.sh", {"PATH": ""}),
    ("--plco of no folder", "bash reproduce/all.sh --plco /no/such", {}),
):

    @case("C11" if "CXR" in title or "PATH" in title else "C4", f"shell: {title}")
    def _(world, command=command, environment=environment):
        return shell(command, **environment)


@case("B1", "the report on a full disk")
def _(world):
    results = world.new() / "results"
    with contextlib.redirect_stdout(io.StringIO()):
        write_results(results)
    (results / "index.html").unlink()
    command = f"ulimit -f 8; {sys.executable} -m reproduce.report --results-dir {results}"
    outcome = shell(command)
    orphans = [path.name for path in results.iterdir() if "part" in path.name]
    return outcome.refused or (f"orphans {orphans}" if orphans else "")


@case("B1", "rescore --results-dir on a full disk")
def _(world):
    folder, results = world.new(), world.new() / "results"
    words = " ".join(map(str, written(folder, PREDICTED, TRUTH)))
    flags = f"--labels Edema,Mass --resamples 50 --results-dir {results}"
    outcome = shell(f"ulimit -f 0; {sys.executable} -m reproduce.rescore {words} {flags}")
    orphans = [path.name for path in results.rglob("*") if "part" in path.name]
    return outcome.refused or (f"orphans {orphans}" if orphans else "")
