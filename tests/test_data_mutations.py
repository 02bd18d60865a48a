"""Mutate real label files at random: each change is refused with its line or has no effect.

CXR_MUTATIONS is the total number of changes; the default is 500.
"""

import csv
import gzip
import io
import os
import random
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from data import DataError, chestxray14, chexpert, plco

MUTATIONS = int(os.environ.get("CXR_MUTATIONS", "500"))
ROWS = 300  # of each real file, so that reading takes milliseconds


def _touch(folder: Path, paths) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def _chestxray14(shared: Path, folder: Path) -> list[Path]:
    """Write the first rows of the label file, with the official lists of those images."""
    labels = shared / "chestxray14-labels"
    with gzip.open(labels / "Data_Entry_2017_v2020.csv.gz", "rt") as file:
        lines = [next(file) for _ in range(ROWS + 1)]
    (folder / "Data_Entry_2017_v2020.csv").write_text("".join(lines))
    images = {line.split(",")[0] for line in lines[1:]}
    for name in ("train_val_list.txt", "test_list.txt"):
        with gzip.open(labels / f"{name}.gz", "rt") as file:
            (folder / name).write_text("".join(line for line in file if line.strip() in images))
    _touch(folder, [f"images/{name}" for name in images])
    lists = [names[0] for names in chestxray14.LISTS.values()]
    return [folder / name for name in ("Data_Entry_2017_v2020.csv", *lists)]


def _plco(shared: Path, folder: Path) -> list[Path]:
    """Write rows of the released validation list, distributed to three lists by patient."""
    with gzip.open(
        shared / "plco-official-splits" / "val_set_delete0.0.csv.gz", "rt", newline=""
    ) as file:
        lines = [next(file) for _ in range(ROWS + 1)]
    paths = []
    for position, split in enumerate(plco.SPLITS):
        rows = [line for line in lines[1:] if sum(line.split(",")[1].encode()) % 3 == position]
        paths.append(folder / f"{split}_set_delete0.0.csv")
        paths[-1].write_text("".join([lines[0], *rows]), newline="")
    _touch(folder, [f"images/{line.split(',')[0]}.png" for line in lines[1:]])
    return paths


def _chexpert(shared: Path, folder: Path) -> list[Path]:
    """Copy the released test labels and the decisions of the three benchmark radiologists."""
    released = shared / "released" / "chexpert-test"
    shutil.copy(released / "groundtruth.csv", folder)
    shutil.copytree(released / "radiologists", folder / "radiologists")
    studies = pd.read_csv(folder / "groundtruth.csv")["Study"].str.removeprefix("CheXpert-v1.0/")
    _touch(folder, studies + "/view1_frontal.jpg")
    names = [f"radiologists/{name}.csv" for name in chexpert.RADIOLOGISTS]
    return [folder / name for name in ("groundtruth.csv", *names)]


DATASETS = {
    "chestxray14": (_chestxray14, chestxray14.read),
    "plco": (_plco, plco.read),
    "chexpert": (_chexpert, chexpert.read),
}


def a_field_more(line: str, numbers: random.Random) -> str:
    fields = line.split(",")
    added = numbers.choice(["", "0", "1.0", "x", numbers.choice(fields)])
    fields.insert(numbers.randint(0, len(fields)), added)
    return ",".join(fields)


def a_field_less(line: str, numbers: random.Random) -> str:
    fields = line.split(",")
    if len(fields) == 1:  # a line of a list, which is cut instead
        return a_line_cut(line, numbers)
    del fields[numbers.randrange(len(fields))]
    return ",".join(fields)


def a_quotation_mark(line: str, numbers: random.Random) -> str:
    at = numbers.randint(0, len(line))
    return line[:at] + '"' + line[at:]


def a_line_cut(line: str, numbers: random.Random) -> str:
    return line[: numbers.randint(1, len(line))]


def a_column_twice(text: str, numbers: random.Random) -> str:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    column, to = numbers.randrange(len(rows[0])), numbers.randint(0, len(rows[0]))
    values = [row[column] for row in rows]
    if numbers.random() < 0.5:  # other values under the same name
        values[1:] = numbers.sample(values[1:], len(values) - 1)
    doubled = [[*row[:to], value, *row[to:]] for row, value in zip(rows, values, strict=True)]
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(doubled)
    return file.getvalue()


CHANGES = (a_field_more, a_field_less, a_quotation_mark, a_line_cut, a_column_twice)


def changed(text: str, change, numbers: random.Random) -> str:
    """Change the text's columns, or one of its lines with at least two characters."""
    if change is a_column_twice:
        return change(text, numbers)
    lines = text.splitlines(keepends=True)
    at = numbers.choice([k for k, line in enumerate(lines) if len(line.strip()) > 1])
    line = lines[at].rstrip("\r\n")
    lines[at] = change(line, numbers) + lines[at][len(line) :]
    return "".join(lines)


def _read(read, folder: Path) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return the frame, without the hashes of its files, and the radiologists' decisions."""
    frame = read(folder)
    del frame.attrs["label_files"]
    return frame, chexpert.radiologists(folder)


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_changed_file_is_refused_or_reads_the_same(shared_data, tmp_path, dataset):
    build, read = DATASETS[dataset]
    paths = build(shared_data, tmp_path)
    frame, decisions = _read(read, tmp_path)
    numbers = random.Random(dataset)
    refused = 0
    for number in range(-(-MUTATIONS // len(DATASETS))):
        path, change = numbers.choice(paths), CHANGES[number % len(CHANGES)]
        original = path.read_bytes()
        path.write_bytes(changed(original.decode(), change, numbers).encode())
        try:
            after, decided = _read(read, tmp_path)
        except DataError as error:
            refused += 1
            message = str(error)
            assert path.name in message, f"{change.__name__}: {message}"
            # errors about the file as a whole name no line
            assert re.search(r"line \d|no column|more than once|names images|in both", message), (
                message
            )
        else:
            pd.testing.assert_frame_equal(after, frame, obj=f"{change.__name__} in {path.name}")
            assert after.attrs == frame.attrs
            assert decided.keys() == decisions.keys()
            for name in decisions:
                pd.testing.assert_frame_equal(decided[name], decisions[name])
        path.write_bytes(original)
    assert refused > MUTATIONS / len(DATASETS) / 2
    frame_again, _ = _read(read, tmp_path)
    pd.testing.assert_frame_equal(frame_again, frame)
