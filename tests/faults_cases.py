"""The cases of tests/faults.py that were found by trying, in their groups."""

import contextlib
import gzip
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from data import DataError, chestxray14, chexpert, plco, prepare
from evaluation import EvaluationError, published
from tests.faults_world import Outcome, World, case, heard, run

READERS = {"chestxray14": chestxray14, "chexpert": chexpert, "plco": plco}
SCRIPTS = {"chestxray14": "wang2017", "chexpert": "asadi2025", "plco": "chen2019"}


def refuses(*errors: type) -> Callable:
    """Call a function as a command would: its error's sentence, or exit code 0."""

    def call(function: Callable, *arguments, **more) -> Outcome:
        err = io.StringIO()
        try:
            with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err):
                function(*arguments, **more)
        except errors as error:
            return heard(Outcome(2, "", str(error)))
        return Outcome(0, "", err.getvalue())

    return call


read_refused = refuses(DataError)


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of a text file, gzipped or not."""
    content = path.read_bytes()
    packed = content[:2] == b"\x1f\x8b"
    lines = (gzip.decompress(content) if packed else content).decode().splitlines()
    content = "".join(f"{line}\n" for line in change(lines)).encode()
    path.write_bytes(gzip.compress(content) if packed else content)


def table_of(folder: Path, name: str) -> Path:
    pattern = {"chestxray14": "Data_Entry*", "chexpert": "train.csv", "plco": "train_set*"}[name]
    return next(folder.rglob(pattern))


def mutated(name: str, title: str, change: Callable[[list[str]], list[str]], group: str) -> None:
    """A dataset whose table was changed must be refused."""

    @case(group, f"{name}: {title}")
    def _(world: World) -> Outcome:
        folder = world.dataset(name)
        edit(table_of(folder, name), change)
        return read_refused(READERS[name].read, folder)


def cells(line: int, change: Callable[[list[str]], list[str]]) -> Callable:
    def edited(lines: list[str]) -> list[str]:
        lines[line] = ",".join(change(lines[line].split(",")))
        return lines

    return edited


def double_column(lines: list[str], column: int = -1) -> list[str]:
    """A column twice, with other values."""
    header, *rest = lines
    return [f"{header},{header.split(',')[column]}", *(f"{line},1" for line in rest)]


def double_findings(lines: list[str]) -> list[str]:
    return double_column(lines, 1)


for dataset in READERS:
    mutated(
        dataset,
        "a field too many in a row",
        cells(3, lambda row: [*row[:2], "0.0", *row[2:]]),
        "A3",
    )
    mutated(dataset, "a field too few in a row", cells(3, lambda row: row[:-1]), "A3")
    mutated(dataset, "a line cut short", lambda lines: [*lines[:-1], lines[-1][:20]], "A3")
    mutated(
        dataset,
        "a column twice",
        double_column if dataset != "chestxray14" else double_findings,
        "A9",
    )
    mutated(dataset, "an image twice", lambda lines: [*lines, lines[1]], "A15")
    mutated(dataset, "an open quote", cells(2, lambda row: ['"' + row[0], *row[1:]]), "A3")
    mutated(dataset, "only the header", lambda lines: lines[:1], "C10")
    mutated(dataset, "an empty table", lambda lines: [], "C10")
mutated(
    "chestxray14",
    "a comma in the findings",
    cells(2, lambda row: [row[0], "Mass,Edema", *row[2:]]),
    "A3",
)
mutated(
    "chestxray14",
    "another patient than in the file name",
    cells(2, lambda row: [*row[:3], "77777", *row[4:]]),
    "A10",
)
mutated(
    "chestxray14",
    "Patient ID twice in the header",
    lambda lines: double_column(lines, 3),
    "C10",
)
mutated(  # the other datasets have no list that says how many images there are
    "chestxray14",
    "the table cut in half",
    lambda lines: lines[: len(lines) // 2],
    "C10",
)
mutated(
    "chexpert",
    "columns Edema and ' Edema'",
    lambda lines: double_column([lines[0].replace(",Support Devices", ", Edema"), *lines[1:]]),
    "B15",
)


@case("A7", "plco: one patient in two spellings")
def _(world):
    folder = world.dataset("plco")
    path = table_of(folder, "plco")

    def respelled(lines):
        rows = [line.split(",") for line in lines]
        column = rows[0].index("plco_id")
        rows[2][column] = f"{rows[1][column]}.0"
        return [",".join(row) for row in rows]

    edit(path, respelled)
    outcome = read_refused(plco.read, folder)
    if outcome.code == 2:
        return outcome
    patients = plco.read(folder)["patient_id"]
    return "two patients of one" if any(str(each).endswith(".0") for each in patients) else ""


# Flags

RANGES = {
    "--epochs": ("0", "-3", "1.5", "x", ""),
    "--learning-rate": ("-1", "nan", "inf", "0"),
    "--batch-size": ("0", "-4"),
    "--size": ("0", "-5", "1", "1e9"),
    "--resize": ("0", "16"),
    "--seeds": ("-1", str(2**40), "a", ""),
    "--resamples": ("0", "-1", "x"),
    "--phantoms": ("0", "-5", "1.5"),
    "--backbone": ("nothing",),
    "--no-such-flag": ("1",),
}
for flag, values in RANGES.items():
    for value in values:
        group = "A8" if flag in ("--epochs", "--learning-rate") else "B11"

        @case("C3" if value in ("nan", "inf") else group, f"{flag} {value!r}")
        def _(world, flag=flag, value=value):
            given = ["--results-dir", world.new(), f"{flag}={value}"]
            if flag != "--phantoms":
                given += ["--data-dir", "/no/such"]  # reached only where the flag was accepted
            outcome = run("reproduce.chen2019", *given)
            return outcome.refused or ("" if flag in outcome.err else f"accepts {flag}={value}")


for script, flags, named in (
    ("mo2019", ("--size=1",), "--size 1"),
    ("mo2019", ("--seeds=x",), "give whole numbers from 0"),
    ("chen2019", ("--resamples=x",), "give a whole number of at least 1"),
):

    @case("C8", f"{script} {flags[0]} is named as it was typed")
    def _(world, script=script, flags=flags, named=named):
        outcome = run(f"reproduce.{script}", "--results-dir", world.new(), *flags)
        odd = [word for word in ("invalid", "--resize", "_seeds") if word in outcome.message]
        return outcome.refused or ("" if named in outcome.message and not odd else outcome.message)


for script, flag, value in (
    *(("asadi2025", "--dropout", value) for value in ("2", "-1", "nan")),
    *(("pham2019", "--held-out", value) for value in ("0", "2", "nan")),
    *(("ge2018", "--step", value) for value in ("0", "-1")),
):

    @case("B11", f"{script} {flag} {value}")
    def _(world, script=script, flag=flag, value=value):
        outcome = run(f"reproduce.{script}", "--data-dir", "/no/such", f"{flag}={value}")
        return outcome.refused or ("" if flag in outcome.err else f"accepts {flag}={value}")


@case("B11", "--rows 'no such row'")
def _(world):
    return world.train(world.new(), rows=("no such row",))


@case("A16", "--phantoms beside --data-dir")
def _(world):
    return run("reproduce.chen2019", "--phantoms", 50, "--data-dir", world.dataset("plco"))


@case("C8", "--size 96 --resize 64")
def _(world):
    outcome = run("reproduce.chen2019", "--size", 96, "--resize", 64, "--results-dir", world.new())
    return outcome.refused or ("" if "--resize" in outcome.err else "does not name --resize")


for seconds in ("nan", "inf", "-1", "x"):

    @case("B11", f"doctor --seconds {seconds}")
    def _(world, seconds=seconds):
        return run("reproduce.doctor", f"--seconds={seconds}")


# Folders and images


@case("A14", "images of 1 x 1 and of 2000 x 10 pixels are prepared")
def _(world):
    folder, problems = world.new(), []
    for shape in ((1, 1), (2000, 10), (40, 400)):
        cv2.imwrite(
            str(folder / "a.png"),
            (np.arange(shape[0] * shape[1]) % 255).reshape(shape).astype(np.uint8),
        )
        arguments = folder, ["a.png"], world.new(), 32
        problems.append(read_refused(prepare.prepare, *arguments).refused)
    return "; ".join(filter(None, problems))


for title, content in (("an unknown image", "99999999_000.png"), ("one image twice", None)):

    @case("A15", f"test_list.txt names {title}")
    def _(world, content=content):
        folder = world.dataset("chestxray14")
        path = folder / "test_list.txt"
        edit(path, lambda lines: [*lines, content or lines[0]])
        return read_refused(chestxray14.read, folder)


@case("B14", "a loop of links in a folder")
def _(world):
    problems = []
    for name in ("chestxray14", "plco"):
        folder = world.dataset(name)
        (folder / "images_001").mkdir()
        (folder / "images_001" / "images").symlink_to(folder / "images_001" / "images")
        outcome = read_refused(READERS[name].read, folder)
        problems.append(outcome.refused if outcome.code else "")
    return "; ".join(filter(None, problems))


@case("B14", "a pipe as an image")
def _(world):
    folder = world.new()
    os.mkfifo(folder / "a.png")
    return read_refused(prepare.prepare, folder, ["a.png"], world.new(), 32)


@case("B15", "a radiologists' file with a study xx")
def _(world):
    folder = world.dataset("chexpert")
    path = next(folder.rglob("bc4.csv"))
    edit(path, cells(2, lambda row: ["xx", *row[1:]]))
    outcome = read_refused(chexpert.radiologists, folder)
    return outcome.refused or ("" if "xx" in outcome.err else "does not name the study")


@case("C1", "a link to an image that is gone")
def _(world):
    folder = world.dataset("chestxray14")
    image = sorted(folder.rglob("*.png"))[0]
    image.unlink()
    image.symlink_to("nowhere.png")
    outcome = read_refused(chestxray14.read, folder)
    return outcome.refused or ("" if "--allow-missing" in outcome.err else "no advice")


@case("C2", "CheXpert without train.csv")
def _(world):
    folder = world.dataset("chexpert")
    table_of(folder, "chexpert").unlink()
    places = ["--cache-dir", world.folder / "cache", "--results-dir", world.new()]
    given = ["--data-dir", folder, "--preset", "demo", *places]
    outcome = run("reproduce.pham2019", *given)
    return outcome.refused or ("" if "label file" in outcome.err else "does not name the file")


for path in ("/no/such/folder", "/etc/passwd", "x" * 300, "/proc/1"):

    @case("B17", f"--data-dir {path[:20]}")
    def _(world, path=path):
        return run("reproduce.chen2019", "--data-dir", path, "--results-dir", world.new())


@case("B16", "published numbers that are empty, binary or lack a column")
def _(world):
    problems = []
    for content in (b"", b"\xff\x00\xfe" * 9, b"table,row\nTable 1,A\n"):
        folder = Path(shutil.copytree(published.FOLDER, world.new() / "published"))
        (folder / "chen2019.csv").write_bytes(content)
        outcome = refuses(EvaluationError)(published.load, "chen2019", folder)
        problems.append(outcome.refused)
    return "; ".join(filter(None, problems))


@case("B17", "data.phantom sheet --out FOLDER")
def _(world):
    return run("data.phantom", "sheet", "--out", world.new())


for size, images in ((0, 60), (128, 0), (-5, 60), (10**9, 60)):

    @case("B11", f"data.phantom --size {size} --images {images}")
    def _(world, size=size, images=images):
        out = world.new() / "out"
        return run("data.phantom", "plco", "--out", out, f"--size={size}", f"--images={images}")
