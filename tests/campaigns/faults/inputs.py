"""Cases on label files, folders and images, all found by trying."""

import functools
import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from data import DataError, chestxray14, chexpert, plco, prepare
from evaluation import EvaluationError, published
from tests.campaigns.faults.world import Outcome, World, cases, refuses, run, together

READERS = {"chestxray14": chestxray14, "chexpert": chexpert, "plco": plco}
NAMES = {"chestxray14": "Data_Entry*", "chexpert": "train.csv", "plco": "train_set*"}
Lines = list[str]

read_refused = refuses(DataError)


def read_text(path: Path) -> tuple[str, bool]:
    """Return the text of a file, and whether it is gzipped."""
    content = path.read_bytes()
    packed = content[:2] == b"\x1f\x8b"
    return (gzip.decompress(content) if packed else content).decode(), packed


def edit(path: Path, change: Callable[[Lines], Lines]) -> None:
    """Change the lines of a text file, gzipped or not."""
    text, packed = read_text(path)
    content = "".join(f"{line}\n" for line in change(text.splitlines())).encode()
    path.write_bytes(gzip.compress(content) if packed else content)


def table_of(folder: Path, dataset: str) -> Path:
    """Return the file with the labels of the training images."""
    return next(folder.rglob(NAMES[dataset]))


# Label files


def cells(line: int, change: Callable[[Lines], Lines]) -> Callable[[Lines], Lines]:
    """Return a change of the fields of one line."""

    def changed(lines: Lines) -> Lines:
        lines[line] = ",".join(change(lines[line].split(",")))
        return lines

    return changed


def double_column(lines: Lines, column: int = -1) -> Lines:
    """Repeat a column, with other values."""
    header, *rest = lines
    return [f"{header},{header.split(',')[column]}", *(f"{line},1" for line in rest)]


def double_edema(lines: Lines) -> Lines:
    """Add a column whose name differs from another by a space."""
    return double_column([lines[0].replace(",Support Devices", ", Edema"), *lines[1:]])


DAMAGED: dict[str, Callable[[Lines], Lines]] = {
    "A3 {}: a field too many in a row": cells(3, lambda row: [*row[:2], "0.0", *row[2:]]),
    "A3 {}: a field too few in a row": cells(3, lambda row: row[:-1]),
    "A3 {}: a line cut short": lambda lines: [*lines[:-1], lines[-1][:20]],
    "A9 {}: a column twice": double_column,
    "A15 {}: an image twice": lambda lines: [*lines, lines[1]],
    "A3 {}: an open quote": cells(2, lambda row: ['"' + row[0], *row[1:]]),
    "C10 {}: only the header": lambda lines: lines[:1],
    "C10 {}: an empty table": lambda lines: [],
}
DAMAGED_NIH: dict[str, Callable[[Lines], Lines]] = {
    "A9 {}: a column twice": functools.partial(double_column, column=1),
    "A3 {}: a comma in the findings": cells(2, lambda row: [row[0], "Mass,Edema", *row[2:]]),
    "A10 {}: another patient than in the file name": cells(
        2, lambda row: [*row[:3], "77777", *row[4:]]
    ),
    "C10 {}: Patient ID twice in the header": functools.partial(double_column, column=3),
    # only this dataset has a list that says how many images there are
    "C10 {}: the table cut in half": lambda lines: lines[: len(lines) // 2],
}
LABEL_FILES: dict[str, dict] = {
    "chestxray14": DAMAGED | DAMAGED_NIH,
    "chexpert": DAMAGED | {"B15 {}: columns Edema and ' Edema'": double_edema},
    "plco": DAMAGED,
}


@cases(
    {
        name.format(dataset): (dataset, change)
        for dataset, damaged in LABEL_FILES.items()
        for name, change in damaged.items()
    }
)
def _(world, dataset, change):
    folder = world.dataset(dataset)
    edit(table_of(folder, dataset), change)
    return read_refused(READERS[dataset].read, folder)


@cases("A7 plco: one patient in two spellings")
def _(world):
    folder = world.dataset("plco")

    def respelled(lines: Lines) -> Lines:
        rows = [line.split(",") for line in lines]
        column = rows[0].index("plco_id")
        rows[2][column] = f"{rows[1][column]}.0"
        return [",".join(row) for row in rows]

    edit(table_of(folder, "plco"), respelled)
    outcome = read_refused(plco.read, folder)
    if outcome.code == 2:
        return outcome
    patients = plco.read(folder)["patient_id"]
    return "two patients of one" if any(str(each).endswith(".0") for each in patients) else ""


@cases(
    {
        "A15 test_list.txt names an unknown image": lambda lines: [*lines, "99999999_000.png"],
        "A15 test_list.txt names one image twice": lambda lines: [*lines, lines[0]],
    }
)
def _(world, change):
    folder = world.dataset("chestxray14")
    edit(folder / "test_list.txt", change)
    return read_refused(chestxray14.read, folder)


@cases("B15 a radiologists' file with a study xx")
def _(world):
    folder = world.dataset("chexpert")
    edit(next(folder.rglob("bc4.csv")), cells(2, lambda row: ["xx", *row[1:]]))
    return read_refused(chexpert.radiologists, folder).refused("xx")


@cases("C2 CheXpert without train.csv")
def _(world):
    folder = world.dataset("chexpert")
    table_of(folder, "chexpert").unlink()
    folders = ["--cache-dir", world.folder / "cache", "--results-dir", world.new()]
    outcome = run("reproduce.pham2019", "--data-dir", folder, "--preset", "demo", *folders)
    return outcome.refused("label file")


@cases("B16 published numbers that are empty, binary or lack a column")
def _(world):
    problems = []
    for content in (b"", b"\xff\x00\xfe" * 9, b"table,row\nTable 1,A\n"):
        folder = Path(shutil.copytree(published.FOLDER, world.new() / "published"))
        (folder / "chen2019.csv").write_bytes(content)
        problems.append(refuses(EvaluationError)(published.load, "chen2019", folder).refused())
    return together(problems)


# Folders and images


@cases("A14 images of 1 x 1 and of 2000 x 10 pixels are prepared")
def _(world):
    folder, problems = world.new(), []
    for shape in ((1, 1), (2000, 10), (40, 400)):
        pixels = (np.arange(shape[0] * shape[1]) % 255).reshape(shape).astype(np.uint8)
        cv2.imwrite(str(folder / "a.png"), pixels)
        problems.append(prepared(world, folder).refused())
    return together(problems)


def prepared(world: World, folder: Path) -> Outcome:
    return read_refused(prepare.prepare, folder, ["a.png"], world.new(), 32)


@cases("B14 a pipe as an image")
def _(world):
    folder = world.new()
    os.mkfifo(folder / "a.png")
    return prepared(world, folder)


@cases("B14 a loop of links in a folder")
def _(world):
    problems = []
    for name in ("chestxray14", "plco"):
        folder = world.dataset(name)
        loop = folder / "images_001" / "images"
        loop.parent.mkdir()
        loop.symlink_to(loop)
        outcome = read_refused(READERS[name].read, folder)
        problems.append(outcome.refused() if outcome.code else "")
    return together(problems)


@cases("C1 a link to an image that is gone")
def _(world):
    folder = world.dataset("chestxray14")
    image = sorted(folder.rglob("*.png"))[0]
    image.unlink()
    image.symlink_to("nowhere.png")
    return read_refused(chestxray14.read, folder).refused("--allow-missing")
