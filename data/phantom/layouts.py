"""Write the label files of synthetic patients in the released layouts and plan their images."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import images as image_files
from data import label_tree, labels
from data.datasets import DATASETS
from data.phantom import labels as drawn_labels
from data.phantom.knobs import DEFAULT_KNOBS, Knobs


class Shot(NamedTuple):
    """One image to draw; `number` seeds the film, `patient` the anatomy."""

    path: str
    number: int
    patient: int
    female: bool
    view: str
    findings: tuple[tuple[str, float], ...]  # (label, strength)


class Visits(NamedTuple):
    """Patients and their findings, one entry per visit (an image, or a study of CheXpert)."""

    patient: np.ndarray  # (visits,) 0, 1, ... in order
    number: np.ndarray  # (visits,) 0, 1, ... within the patient
    female: np.ndarray
    age: np.ndarray
    split: np.ndarray  # (visits,) index of the split; a patient lies in one
    truth: np.ndarray  # (visits, labels) bool
    strength: np.ndarray  # (visits, labels) about 1; subtle findings less


def _visits(
    dataset: str, count: int, shares: tuple[float, ...], wanted: np.ndarray, rng, knobs: Knobs
) -> Visits:
    """Sample patients with one to eight visits and assign them to the splits, the test set last."""
    sizes = rng.choice([1, 2, 3, 4, 5, 6, 8], count, p=[0.35, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05])
    patient = np.repeat(np.arange(count), sizes)[:count]
    sizes = np.bincount(patient)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    order = rng.permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order] / 2  # a patient goes where its middle falls
    split = np.empty(len(sizes), int)
    split[order] = np.searchsorted(np.cumsum(shares)[:-1], before / count, side="right")
    for part in range(len(shares)):  # in a small set, one patient may fill a whole split
        if part not in split:
            split[np.where(split == 0, sizes, count).argmin()] = part
    number = np.arange(count) - first[patient]
    uniforms = drawn_labels.persistent_uniforms(rng, patient, len(wanted))
    truth = drawn_labels.sample(dataset, wanted, uniforms)
    if knobs.odds:
        trained = split[patient] < len(shares) - 1
        own = rng.spawn(1)[0]  # a stream of its own, so all other draws stay the same
        truth = drawn_labels.sample_by_odds(dataset, knobs, trained, uniforms, own)
    strength = np.clip(rng.normal(0.88, 0.28, truth.shape), 0.3, 1.4)
    age = np.clip(rng.normal(58, 15, len(sizes)), 18, 90).astype(int)[patient] + number
    female = (rng.random(len(sizes)) < 0.45)[patient]
    return Visits(patient, number, female, age, split[patient], truth, strength=strength)


def _findings(dataset: str, visits: Visits) -> list[tuple[tuple[str, float], ...]]:
    """Return (label, strength) of the findings to draw, per visit."""
    names = DATASETS[dataset].hierarchy_labels
    shown = drawn_labels.to_draw(dataset, visits.truth)
    findings = []
    for specific, strengths in zip(shown, visits.strength.tolist(), strict=True):
        drawn = [(label, round(strengths[names.index(label)], 3)) for label in specific]
        findings.append(tuple(drawn))
    return findings


def _shot(path: str, number: int, visits: Visits, visit: int, view: str, findings) -> Shot:
    person = int(visits.patient[visit]), bool(visits.female[visit])
    return Shot(path, number, *person, str(view), findings[visit])


def _write_csv(path: Path, columns: dict) -> None:
    import pandas as pd

    pd.DataFrame(columns).to_csv(path, index=False, lineterminator="\n")


def chestxray14(
    folder: Path, images: int, wanted: np.ndarray, rng, knobs: Knobs = DEFAULT_KNOBS
) -> list[Shot]:
    """Write the label file and the two official lists; return the images to draw."""
    visits = _visits("chestxray14", images, (0.772, 0.228), wanted, rng, knobs)
    released = drawn_labels.noisy("chestxray14", visits.truth, wanted, rng, knobs.label_noise)
    count = len(labels.CHESTXRAY14)
    finding_labels = [
        "|".join(sorted(np.array(labels.CHESTXRAY14)[row])) or labels.NO_FINDING
        for row in released[:, :count]
    ]
    names = [f"{p + 1:08d}_{n:03d}.png" for p, n in zip(visits.patient, visits.number, strict=True)]
    views = np.where(rng.random(images) < 0.6, "PA", "AP")
    _write_csv(
        folder / "Data_Entry_2017_v2020.csv",
        {
            "Image Index": names,
            "Finding Labels": finding_labels,
            "Follow-up #": visits.number,
            "Patient ID": visits.patient + 1,
            "Patient Age": visits.age,
            "Patient Gender": np.where(visits.female, "F", "M"),
            "View Position": views,
            "OriginalImage[Width": 2500,
            "Height]": 2500,
            "OriginalImagePixelSpacing[x": 0.168,
            "y]": 0.168,
        },
    )
    for split, list_name in enumerate(("train_val_list.txt", "test_list.txt")):
        listed = [name for name, its in zip(names, visits.split, strict=True) if its == split]
        (folder / list_name).write_text("".join(f"{name}\n" for name in listed))
    findings = _findings("chestxray14", visits)
    return [_shot(f"images/{names[i]}", i, visits, i, views[i], findings) for i in range(images)]


def chestmnist(
    folder: Path, images: int, wanted: np.ndarray, rng, knobs: Knobs = DEFAULT_KNOBS
) -> list[Shot]:
    """Write the labels; return the images to draw, which `pack_chestmnist` puts into one file."""
    visits = _visits("chestmnist", images, (0.7, 0.1, 0.2), wanted, rng, knobs)
    released = drawn_labels.noisy("chestmnist", visits.truth, wanted, rng, knobs.label_noise)
    views = np.where(rng.random(images) < 0.6, "PA", "AP")
    findings = _findings("chestmnist", visits)
    shots: list[Shot] = []
    arrays: dict[str, Any] = {}
    for split, name in enumerate(DATASETS["chestmnist"].complete):
        rows = np.flatnonzero(visits.split == split).tolist()
        arrays[f"{name}_labels"] = released[rows, : len(labels.CHESTXRAY14)].astype(np.uint8)
        for row, i in enumerate(rows):
            path = f"drawn/{name}/{row:06d}.png"
            shots.append(_shot(path, i, visits, i, views[i], findings))
    np.savez(folder / "labels.npz", **arrays)
    return shots


def pack_chestmnist(folder: Path, size: int) -> dict[str, str]:
    """Put drawn images and their labels into one file, as MedMNIST released them.

    Return each image's path in the file by the path where it was drawn.
    """
    with np.load(folder / "labels.npz") as released:
        arrays = dict(released)
    file, packed = f"chestmnist_{size}.npz", {}
    for split in DATASETS["chestmnist"].complete:
        paths = sorted((folder / "drawn" / split).iterdir())
        arrays[f"{split}_images"] = np.stack([image_files.read_gray(path, size) for path in paths])
        for row, path in enumerate(paths):
            packed[path.relative_to(folder).as_posix()] = f"{file}/{split}/{row}"
    np.savez_compressed(folder / file, **arrays)
    shutil.rmtree(folder / "drawn")
    (folder / "labels.npz").unlink()
    return packed


def plco(
    folder: Path, images: int, wanted: np.ndarray, rng, knobs: Knobs = DEFAULT_KNOBS
) -> list[Shot]:
    """Write the three complete lists; return the images to draw."""
    visits = _visits("plco", images, (0.7, 0.1, 0.2), wanted, rng, knobs)
    released = drawn_labels.noisy("plco", visits.truth, wanted, rng, knobs.label_noise)
    names = np.array([f"AD{i + 6848050206123000:017d}_v2" for i in range(images)])
    people = np.array([f"A-{patient + 1:06d}-2" for patient in visits.patient])
    inner = {labels.PLCO[node] for node in label_tree.inner(label_tree.PLCO)}
    for split, list_name in enumerate(("train", "val", "test")):
        rows = np.flatnonzero(visits.split == split)
        columns: dict = {"img_name": names[rows], "plco_id": people[rows]}
        for label, values in zip(labels.PLCO, released[rows].T, strict=True):
            columns[label] = values.astype(int if label in inner else float)  # as released
        columns |= {f"{label} preserve bool": 1.0 for label in labels.PLCO}
        _write_csv(folder / f"{list_name}_set_delete0.0.csv", columns)
    findings = _findings("plco", visits)
    return [_shot(f"images/{names[i]}.png", i, visits, i, "PA", findings) for i in range(images)]


def chexpert(
    folder: Path, images: int, wanted: np.ndarray, rng, knobs: Knobs = DEFAULT_KNOBS
) -> list[Shot]:
    """Write the label files of the splits and of the readers; return the images to draw."""
    splits = ("train", "valid", "test")
    lateral = rng.random(images) < 0.17  # has the study a lateral view too?
    count = 1 + int(np.searchsorted(np.cumsum(1 + lateral), images))
    lateral = lateral[:count]
    lateral[-1] &= count + lateral.sum() <= images
    visits = _visits("chexpert", count, (0.75, 0.1, 0.15), wanted, rng, knobs)
    findings = _findings("chexpert", visits)
    truth = drawn_labels.chexpert_table(visits.truth)
    noisy = partial(drawn_labels.noisy, "chexpert", visits.truth, wanted, rng, knobs.label_noise)
    from_reports = drawn_labels.chexpert_uncertain(drawn_labels.chexpert_table(noisy()), rng)
    from_images = drawn_labels.chexpert_table(noisy())
    view = np.where(rng.random(count) < 0.85, "AP", "PA")
    split_of = visits.split[visits.number == 0]  # (patients,)
    named = _patient_numbers(split_of)
    studies = [
        f"{splits[split]}/patient{named[patient]:05d}/study{number + 1}"
        for split, patient, number in zip(visits.split, visits.patient, visits.number, strict=True)
    ]
    root = folder / DATASETS["chexpert"].phantom_folder
    root.mkdir(parents=True, exist_ok=True)
    shots: list[Shot] = []
    rows = []
    for i, study in enumerate(studies):
        for position in range(1 + lateral[i]):
            name = f"{study}/view{position + 1}_{('frontal', 'lateral')[position]}.jpg"
            shown = "LATERAL" if position else view[i]
            path = f"{root.name}/{name}"
            shots.append(_shot(path, len(shots), visits, i, shown, findings))
            rows.append((i, position))
    unit, position = np.array(rows).T
    details = {
        "Sex": np.where(visits.female, "Female", "Male")[unit],
        "Age": visits.age[unit],
        "Frontal/Lateral": np.where(position == 1, "Lateral", "Frontal"),
        "AP/PA": np.where(position == 1, np.array(None), view[unit]),
    }
    paths = np.array([shot.path for shot in shots])
    split = visits.split[unit]  # of each image
    for name, number, values in (
        ("train.csv", 0, from_reports),
        ("train_visualCheXbert.csv", 0, from_images),
        ("valid.csv", 1, truth),
        ("test.csv", 2, truth),
    ):
        images_of_split = split == number
        columns = {"Path": paths, **(details if name != "test.csv" else {})}
        columns |= dict(zip(labels.CHEXPERT, values[unit].T.astype(float), strict=True))
        columns = {key: column[images_of_split] for key, column in columns.items()}
        _write_csv(root / name, columns)
    test = np.unique(unit[split == 2])
    strength = np.column_stack([np.ones(count), visits.strength[:, :-1]])[test]
    _write_readers(root, [studies[i] for i in test], truth[test], strength, rng)
    return shots


def _patient_numbers(split: np.ndarray) -> np.ndarray:
    """Return each patient's number: from 1, 64541 or 64741 as released, or higher in large sets."""
    named, free = np.empty(len(split), int), 1
    for number, first in enumerate((1, 64541, 64741)):
        count = (split == number).sum()
        free = max(first, free)
        named[split == number] = free + np.arange(count)
        free += count
    return named


def _write_readers(
    root: Path, studies: list[str], truth: np.ndarray, strength: np.ndarray, rng
) -> None:
    """Write the true labels of the test studies and the calls of each simulated radiologist."""
    called = {"groundtruth.csv": truth}
    for name in drawn_labels.READERS:
        called[f"radiologists/{name}.csv"] = drawn_labels.reader(truth, strength, name, rng)
    order = list(labels.CHEXPERT)
    order[3:5] = order[4:2:-1]  # the released readers' files have these two swapped
    (root / "radiologists").mkdir(exist_ok=True)
    for name, values in called.items():
        columns: dict = {"Study": [f"CheXpert-v1.0/{study}" for study in studies]}
        columns |= dict(zip(labels.CHEXPERT, values.T.astype(int), strict=True))
        names = order if "/" in name else labels.CHEXPERT
        _write_csv(root / name, {key: columns[key] for key in ("Study", *names)})
