"""Cases on datasets, flags, folders and images, all found by trying."""

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


# Flags

FLAGS = (  # of chen2019: group, flag, values
    ("A8", "--epochs", ("0", "-3", "1.5", "x", "")),
    ("A8", "--learning-rate", ("-1", "0")),
    ("C3", "--learning-rate", ("nan", "inf")),
    ("B11", "--batch-size", ("0", "-4")),
    ("B11", "--size", ("0", "-5", "1", "1e9")),
    ("B11", "--resize", ("0", "16")),
    ("B11", "--seeds", ("-1", str(2**40), "a", "")),
    ("B11", "--resamples", ("0", "-1", "x")),
    ("B11", "--phantoms", ("0", "-5", "1.5")),
    ("B11", "--backbone", ("nothing",)),
    ("B11", "--no-such-flag", ("1",)),
)


@cases({f"{group} {flag} {value!r}": (flag, value) for group, flag, vs in FLAGS for value in vs})
def _(world, flag, value):
    words = ["--results-dir", world.new(), f"{flag}={value}"]
    if flag != "--phantoms":
        words += ["--data-dir", "/no/such"]  # reached only if the flag is accepted
    return run("reproduce.chen2019", *words).refused(flag)


FLAGS_OF_OTHERS = (
    ("asadi2025", "--dropout", ("2", "-1", "nan")),
    ("pham2019", "--held-out", ("0", "2", "nan")),
    ("ge2018", "--step", ("0", "-1")),
)


@cases(
    {
        f"B11 {script} {flag} {value}": (script, flag, value)
        for script, flag, values in FLAGS_OF_OTHERS
        for value in values
    }
)
def _(world, script, flag, value):
    return run(f"reproduce.{script}", "--data-dir", "/no/such", f"{flag}={value}").refused(flag)


@cases(
    {
        "C8 mo2019 --size=1 is named as it was typed": ("mo2019", "--size=1", "--size 1"),
        "C8 mo2019 --seeds=x is named as it was typed": (
            *("mo2019", "--seeds=x", "give whole numbers from 0"),
        ),
        "C8 chen2019 --resamples=x is named as it was typed": (
            *("chen2019", "--resamples=x", "give a whole number of at least 1"),
        ),
    }
)
def _(world, script, flag, said):
    outcome = run(f"reproduce.{script}", "--results-dir", world.new(), flag)
    return outcome.refused(said, unsaid=("invalid", "--resize", "_seeds"))


@cases("C8 --size 96 --resize 64")
def _(world):
    words = ["--size", 96, "--resize", 64, "--results-dir", world.new()]
    return run("reproduce.chen2019", *words).refused("--resize")


@cases("B11 --rows 'no such row'")
def _(world):
    return world.train(world.new(), rows=("no such row",))


@cases("A16 --phantoms beside --data-dir")
def _(world):
    return run("reproduce.chen2019", "--phantoms", 50, "--data-dir", world.dataset("plco"))


@cases({f"B11 doctor --seconds {value}": value for value in ("nan", "inf", "-1", "x")})
def _(world, value):
    return run("reproduce.doctor", f"--seconds={value}")


@cases(
    {
        f"B11 data.phantom --size {size} --images {images}": (size, images)
        for size, images in ((0, 60), (128, 0), (-5, 60), (10**9, 60))
    }
)
def _(world, size, images):
    out = world.new() / "out"
    return run("data.phantom", "plco", "--out", out, f"--size={size}", f"--images={images}")


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


@cases(
    {
        f"B17 --data-dir {path[:20]}": path
        for path in ("/no/such/folder", "/etc/passwd", "x" * 300, "/proc/1")
    }
)
def _(world, path):
    return run("reproduce.chen2019", "--data-dir", path, "--results-dir", world.new())


@cases("B17 data.phantom sheet --out FOLDER")
def _(world):
    return run("data.phantom", "sheet", "--out", world.new())
