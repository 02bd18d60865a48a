"""Group E: files and flags that a seeded generator changes at random.

A changed label file must be refused, or the reader's frame must equal the original's; a changed
file of predictions or truth must be refused or scored; a damaged image must be decoded whole or
refused.
"""

import functools
import gzip
from collections.abc import Callable

import numpy as np
import pandas as pd

from data import DataError
from data.images import BadImage, read_gray, unlike_radiograph
from tests.campaigns.faults.inputs import READERS, read_refused, read_text, table_of
from tests.campaigns.faults.tables import PATIENTS, PREDICTED, TRUTH
from tests.campaigns.faults.world import Case, Outcome, World, run

CHANGES = ("field more", "field less", "quote", "cut", "column twice", "byte", "line twice", "NUL")
FLAGS = {
    "reproduce.rescore": ("--resamples", "--seed", "--labels", "--tree", "--results-dir"),
    "reproduce.chen2019": (
        *("--epochs", "--size", "--resize", "--learning-rate", "--seeds", "--batch-size"),
        *("--backbone", "--phantoms", "--resamples", "--hlup", "--deleted", "--device"),
    ),
    "reproduce.doctor": ("--seconds", "--dataset"),
    "data.phantom": ("--images", "--size"),
}
VALUES = ("nan", "-1", "1e400", "0x10", "½", "--", "9" * 30, "1_0", " 3", "None", "[]", "-inf")


def changed(text: str, kind: str, generator: np.random.Generator) -> bytes:
    """Return a CSV with one change."""
    lines = text.splitlines()
    row = int(generator.integers(1, len(lines)))
    fields = lines[row].split(",")
    position = int(generator.integers(len(fields)))
    if kind == "field more":
        fields.insert(position, str(generator.choice(["0.0", "", "x", "1"])))
    elif kind == "field less":
        del fields[position]
    elif kind == "quote":
        fields[position] = '"' + fields[position]
    elif kind == "NUL":
        fields[position] = "\x00"
    lines[row] = ",".join(fields)
    if kind == "cut":
        return "\n".join(lines)[: int(generator.integers(1, len(text) - 1))].encode()
    if kind == "column twice":
        column = int(generator.integers(len(lines[0].split(","))))
        lines = [f"{line},{line.split(',')[column]}" for line in lines]
        lines[1] += "1"
    elif kind == "line twice":
        lines.insert(row, lines[row])
    content = bytearray(("\n".join(lines) + "\n").encode())
    if kind == "byte":
        content[int(generator.integers(len(content)))] = int(generator.integers(128, 256))
    return bytes(content)


def label_file(name: str, kind: str, seed: int, world: World) -> str:
    """Change the label file of a dataset, and read it."""
    folder, read = world.dataset(name), READERS[name].read
    before, path = read(folder), table_of(folder, name)
    text, packed = read_text(path)
    content = changed(text, kind, np.random.default_rng(seed))
    path.write_bytes(gzip.compress(content) if packed else content)
    outcome = read_refused(read, folder)
    if outcome.code:
        return outcome.refused()
    after = read(folder)
    if kind in ("cut", "byte") and len(after) <= len(before):  # other, fewer or renamed rows
        unchanged = before.merge(after)
        return "" if len(unchanged) >= len(after) - 1 else "labels changed without a word"
    return "" if in_order(before).equals(in_order(after)) else "another frame without a word"


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["image_path"], ignore_index=True)


def scored_file(which: str, kind: str, seed: int, world: World) -> str:
    """Change a file of predictions or truth, and score it."""
    folder, words = world.new(), []
    for name, text in (("predictions", PREDICTED), ("truth", TRUTH)):
        path = folder / f"{name}.csv"
        generator = np.random.default_rng(seed)
        path.write_bytes(changed(text, kind, generator) if name == which else text.encode())
        words += [f"--{name}", path]
    outcome = run("reproduce.rescore", *words, "--resamples", 5, *PATIENTS)
    if outcome.code:
        return outcome.refused()
    return "Traceback" if "Traceback" in outcome.err else ""


def image_file(kind: str, seed: int, world: World) -> str:
    """Damage an image, and decode it."""
    generator = np.random.default_rng(seed)
    path, original = world.new() / "image.png", world.image
    content = bytearray(original.read_bytes())
    position = int(generator.integers(len(content)))
    if kind == "cut":
        del content[position:]
    elif kind == "zeros":
        content[position : position + 200] = bytes(len(content[position : position + 200]))
    else:
        content[position] ^= 1 << int(generator.integers(8))
    path.write_bytes(content)
    try:
        unlike_radiograph(path)
        pixels = read_gray(path, 32)
    except (BadImage, DataError) as error:
        return Outcome(2, "", str(error)).refused()
    equal = np.array_equal(read_gray(original, 32), pixels)
    return "" if equal else "other pixels without a word"


def flag(module: str, name: str, value: str, world: World) -> str:
    """Give a command a flag with a value that it must refuse."""
    words: dict[str, list[object]] = {
        "reproduce.rescore": ["--predictions", "none.csv"],
        "data.phantom": ["plco", "--out", world.new() / "out"],
        "reproduce.chen2019": ["--data-dir", "/no/such"],
        "reproduce.doctor": ["--data-dir", "/no/such"],
    }
    return run(module, *words[module], f"{name}={value}").refused()


def generated(seed: int, count: int) -> list[Case]:
    """Return `count` cases; the same ones for the same seed."""
    generator = np.random.default_rng(seed)

    def choice(values: object) -> str:
        return str(generator.choice(list(values)))

    made = []
    for number in range(count):
        draw = int(generator.integers(2**31))
        subject = choice(["label file", "label file", "scored", "image", "flag"])
        kind = choice(CHANGES)
        check: Callable[[World], str]
        if subject == "label file":
            dataset = choice(READERS)
            title = f"{dataset} table: {kind}"
            check = functools.partial(label_file, dataset, kind, draw)
        elif subject == "scored":
            which = choice(["predictions", "truth"])
            title = f"rescore {which}: {kind}"
            check = functools.partial(scored_file, which, kind, draw)
        elif subject == "image":
            kind = choice(["cut", "zeros", "bit"])
            title = f"image: {kind}"
            check = functools.partial(image_file, kind, draw)
        else:
            module = choice(FLAGS)
            name, value = choice(FLAGS[module]), choice(VALUES)
            title = f"{module} {name}={value}"
            check = functools.partial(flag, module, name, value)
        made.append(Case(f"E {number} {title}", True, check))
    return made
