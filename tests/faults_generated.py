"""Group E of tests/faults.py: files and flags changed at random, by a seeded generator.

A changed label file must be refused, or the reader's frame must equal the original's; a changed
file of predictions or truth must be refused, or be scored as what it says.
"""

import gzip
from collections.abc import Callable

import numpy as np
import pandas as pd

from data import DataError
from data.images import BadImage, read_gray, unlike_radiograph
from tests.faults_cases import READERS, read_refused, table_of
from tests.faults_tables import PREDICTED, TRUTH
from tests.faults_world import Case, Outcome, World, heard, run

CHANGES = ("field more", "field less", "quote", "cut", "column twice", "byte", "line twice", "NUL")


def changed(text: str, kind: str, generator: np.random.Generator) -> str:
    """A CSV with one thing changed."""
    lines = text.splitlines()
    row = int(generator.integers(1, len(lines)))
    fields = lines[row].split(",")
    at = int(generator.integers(len(fields)))
    if kind == "field more":
        fields.insert(at, str(generator.choice(["0.0", "", "x", "1"])))
    elif kind == "field less":
        del fields[at]
    elif kind == "quote":
        fields[at] = '"' + fields[at]
    elif kind == "NUL":
        fields[at] = "\x00"
    lines[row] = ",".join(fields)
    if kind == "cut":
        return "\n".join(lines)[: int(generator.integers(1, len(text) - 1))]
    if kind == "column twice":
        column = int(generator.integers(len(lines[0].split(","))))
        lines = [f"{line},{line.split(',')[column]}" for line in lines]
        lines[1] += "1"
    if kind == "line twice":
        lines.insert(row, lines[row])
    text = "\n".join(lines) + "\n"
    if kind == "byte":
        content = bytearray(text.encode())
        content[int(generator.integers(len(content)))] = int(generator.integers(128, 256))
        return content.decode("latin-1")
    return text


def label_file(name: str, kind: str, seed: int) -> Callable[[World], str]:
    def tried(world: World) -> str:
        folder = world.dataset(name)
        before = READERS[name].read(folder)
        path = table_of(folder, name)
        content = path.read_bytes()
        packed = content[:2] == b"\x1f\x8b"
        text = (gzip.decompress(content) if packed else content).decode()
        generator = np.random.default_rng(seed)
        mutant = changed(text, kind, generator)
        raw = mutant.encode("latin-1" if kind == "byte" else "utf-8")
        path.write_bytes(gzip.compress(raw) if packed else raw)
        outcome = read_refused(READERS[name].read, folder)
        if outcome.code:
            return outcome.refused
        after = READERS[name].read(folder)
        if kind in ("cut", "byte") and len(after) <= len(before):  # other, fewer or renamed rows
            kept = before.merge(after)
            return "" if len(kept) >= len(after) - 1 else "labels changed without a word"
        return "" if _equal(before, after) else "another frame without a word"

    return tried


def _equal(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    order = ["image_path"]
    return one.sort_values(order, ignore_index=True).equals(
        other.sort_values(order, ignore_index=True)
    )


def scored_file(which: str, kind: str, seed: int) -> Callable[[World], str]:
    def tried(world: World) -> str:
        folder, generator = world.new(), np.random.default_rng(seed)
        given = []
        for name, text in (("predictions", PREDICTED), ("truth", TRUTH)):
            content = (changed(text, kind, generator) if name == which else text).encode(
                "latin-1" if kind == "byte" and name == which else "utf-8"
            )
            (folder / f"{name}.csv").write_bytes(content)
            given += [f"--{name}", folder / f"{name}.csv"]
        outcome = run("reproduce.rescore", *given, "--resamples", 5, "--patient-column", "who")
        return _ended(outcome)

    return tried


def _ended(outcome: Outcome) -> str:
    return outcome.refused if outcome.code else ("Traceback" if "Traceback" in outcome.err else "")


def image_file(kind: str, seed: int) -> Callable[[World], str]:
    """A damaged image is decoded whole, or refused; never half of it in gray."""

    def tried(world: World) -> str:
        generator = np.random.default_rng(seed)
        path = world.new() / "image.png"
        content = bytearray(world.image.read_bytes())
        if kind == "cut":
            content = content[: int(generator.integers(len(content)))]
        elif kind == "zeros":
            start = int(generator.integers(len(content)))
            content[start : start + 200] = bytes(len(content[start : start + 200]))
        else:
            content[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        path.write_bytes(content)
        before = read_gray(world.image, 32)
        try:
            unlike_radiograph(path)
            after = read_gray(path, 32)
        except (BadImage, DataError) as error:
            return heard(Outcome(2, "", str(error))).refused
        return "" if np.array_equal(before, after) else "other pixels without a word"

    return tried


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


def flag(module: str, name: str, value: str) -> Callable[[World], str]:
    def tried(world: World) -> str:
        before = {
            "reproduce.rescore": ["--predictions", "none.csv"],
            "data.phantom": ["plco", "--out", world.new() / "out"],
            "reproduce.chen2019": ["--data-dir", "/no/such"],
            "reproduce.doctor": ["--data-dir", "/no/such"],
        }[module]
        return run(module, *before, f"{name}={value}").refused

    return tried


def cases(seed: int, count: int) -> list[Case]:
    """`count` cases, the same for the same seed."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        draw = int(generator.integers(2**31))
        pick = generator.choice(["label file", "label file", "scored", "image", "flag"])
        kind = str(generator.choice(CHANGES))
        if pick == "label file":
            name = str(generator.choice([*READERS]))
            made.append((f"{name} table: {kind}", label_file(name, kind, draw)))
        elif pick == "scored":
            which = str(generator.choice(["predictions", "truth"]))
            made.append((f"rescore {which}: {kind}", scored_file(which, kind, draw)))
        elif pick == "image":
            kind = str(generator.choice(["cut", "zeros", "bit"]))
            made.append((f"image: {kind}", image_file(kind, draw)))
        else:
            module = str(generator.choice([*FLAGS]))
            name, value = str(generator.choice(FLAGS[module])), str(generator.choice(VALUES))
            made.append((f"{module} {name}={value}", flag(module, name, value)))
        made[-1] = Case("E", f"{number} {made[-1][0]}", True, made[-1][1])
    return made
