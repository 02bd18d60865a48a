"""Drawn chest phantoms in the released layouts of ChestX-ray14, CheXpert and PLCO.

For those who have no access to the datasets, and for tests: every paper runs on them end to end.
    python -m data.phantom chexpert --out DIR --images 600 --size 128 --seed 1
"""

import argparse
import json
import os
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data import DataError, labels, phantom_labels
from data.phantom_anatomy import Film, Pose, develop, sample_pose, sample_shape
from data.phantom_findings import PAINT, RESHAPE, benign, boxes

VERSION = 1  # raise it with every change that changes bytes
DATASETS = ("chestxray14", "chexpert", "plco")
SMALLEST, FEWEST = 32, 20  # pixels; images
CHEXPERT_FOLDER = "CheXpert-v1.0-small"
WORKING_SIDE = 128  # smaller images are drawn at this size and averaged down
POOL_FROM = 400  # images; fewer are drawn before a pool has started
ANATOMY, FILM, FINDING, PLAN = range(4)  # streams of random numbers


class Shot(NamedTuple):
    """One image to draw; `number` seeds the film, `patient` the anatomy."""

    path: str
    number: int
    patient: int
    female: bool
    view: str
    findings: tuple[tuple[str, float], ...]  # (label, strength)


def draw(
    shot: Shot, size: int, seed: int, pose: Pose | None = None
) -> tuple[np.ndarray, list[tuple[str, tuple[float, ...]]]]:
    """The radiograph, (size, size) uint8, and (label, box) of each focal finding in it."""
    shape = sample_shape(
        np.random.default_rng([seed, ANATOMY, shot.patient]), shot.view, shot.female
    )
    film_rng = np.random.default_rng([seed, FILM, shot.number])
    drawn_pose = sample_pose(film_rng, shot.view)
    pose = pose or drawn_pose
    streams = {
        label: [seed, FINDING, shot.patient, zlib.crc32(label.encode())]
        for label, _ in shot.findings
    }  # a patient keeps a finding's place
    for label, strength in shot.findings:
        if label in RESHAPE:
            RESHAPE[label](shape, np.random.default_rng([*streams[label], 1]), strength)
    film = Film(shape, max(size, WORKING_SIDE))
    benign(film, np.random.default_rng([seed, ANATOMY, shot.patient, 1]))
    planted = []
    for label, strength in shot.findings:
        masks = PAINT[label](film, np.random.default_rng(streams[label]), strength)
        planted += [(label, box) for box in boxes(masks, pose.matrix())]
    return develop(film, pose, size, film_rng), planted


def _draw_to_disk(job: tuple[list[Shot], Path, int, int]) -> list[str]:
    """Write the images of some shots; returns the lines of phantom_findings.csv."""
    shots, folder, size, seed = job
    cv2.setNumThreads(1)
    lines = []
    for shot in shots:
        image, planted = draw(shot, size, seed)
        quality = [cv2.IMWRITE_PNG_COMPRESSION, 3]
        if shot.path.endswith(".jpg"):
            quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
        written = cv2.imencode(Path(shot.path).suffix, image, quality)[1]
        (folder / shot.path).write_bytes(written.tobytes())
        lines += [
            ",".join([shot.path, label, *(f"{value:.4f}" for value in box)])
            for label, box in planted
        ]
    return lines


def _draw_all(shots: list[Shot], folder: Path, size: int, seed: int, progress: bool) -> list[str]:
    from tqdm import tqdm

    for parent in {(folder / shot.path).parent for shot in shots}:
        parent.mkdir(parents=True, exist_ok=True)
    chunk = 25
    jobs = [(shots[at : at + chunk], folder, size, seed) for at in range(0, len(shots), chunk)]
    lines = []
    with tqdm(total=len(shots), unit="image", desc="drawing", disable=not progress) as bar:
        if len(shots) < POOL_FROM:
            threads = cv2.getNumThreads()
            for job in jobs:
                lines += _draw_to_disk(job)
                bar.update(len(job[0]))
            cv2.setNumThreads(threads)
        else:  # spawn: a fork would copy the threads of a TensorFlow that the caller imported
            workers = len(os.sched_getaffinity(0))
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                for job, written in zip(jobs, pool.map(_draw_to_disk, jobs), strict=True):
                    lines += written
                    bar.update(len(job[0]))
    return lines


class Visits(NamedTuple):
    """Patients and what they have, one entry a visit (an image, or a study of CheXpert)."""

    patient: np.ndarray  # (visits,) 0, 1, ... in order
    number: np.ndarray  # (visits,) 0, 1, ... within the patient
    female: np.ndarray
    age: np.ndarray
    split: np.ndarray  # (visits,) index of the split; a patient lies in one
    truth: np.ndarray  # (visits, labels) bool
    strength: np.ndarray  # (visits, labels) about 1; subtle findings less


def _visits(dataset: str, count: int, shares: tuple[float, ...], wanted: np.ndarray, rng) -> Visits:
    """Patients with one to eight visits, shared out among the splits."""
    sizes = rng.choice([1, 2, 3, 4, 5, 6, 8], count, p=[0.35, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05])
    patient = np.repeat(np.arange(count), sizes)[:count]
    sizes = np.bincount(patient)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    order = rng.permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order] / 2  # a patient goes where its middle falls
    split = np.empty(len(sizes), int)
    split[order] = np.searchsorted(np.cumsum(shares)[:-1], before / count, side="right")
    number = np.arange(count) - first[patient]
    uniforms = phantom_labels.persistent_uniforms(rng, patient, len(wanted))
    truth = phantom_labels.sample(dataset, wanted, uniforms)
    strength = np.clip(rng.normal(0.95, 0.22, truth.shape), 0.45, 1.4)
    age = np.clip(rng.normal(58, 15, len(sizes)), 18, 90).astype(int)[patient] + number
    female = (rng.random(len(sizes)) < 0.45)[patient]
    return Visits(patient, number, female, age, split[patient], truth, strength)


def _findings(dataset: str, visits: Visits) -> list[tuple[tuple[str, float], ...]]:
    names = phantom_labels.NAMES[dataset]
    return [
        tuple((label, round(float(strengths[names.index(label)]), 3)) for label in shown)
        for shown, strengths in zip(
            phantom_labels.to_draw(dataset, visits.truth), visits.strength, strict=True
        )
    ]


def _write_csv(path: Path, columns: dict) -> None:
    import pandas as pd

    pd.DataFrame(columns).to_csv(path, index=False, lineterminator="\n")


def _chestxray14(folder: Path, images: int, wanted: np.ndarray, rng) -> list[Shot]:
    """The label file and the two official lists; returns what to draw."""
    visits = _visits("chestxray14", images, (0.772, 0.228), wanted, rng)
    released = phantom_labels.noisy("chestxray14", visits.truth, wanted, rng)
    count = len(labels.CHESTXRAY14)
    found = [
        "|".join(sorted(np.array(labels.CHESTXRAY14)[row])) or labels.NO_FINDING
        for row in released[:, :count]
    ]
    names = [f"{p + 1:08d}_{n:03d}.png" for p, n in zip(visits.patient, visits.number, strict=True)]
    views = np.where(rng.random(images) < 0.6, "PA", "AP")
    _write_csv(
        folder / "Data_Entry_2017_v2020.csv",
        {
            "Image Index": names,
            "Finding Labels": found,
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
        listed = [name for name, of in zip(names, visits.split, strict=True) if of == split]
        (folder / list_name).write_text("".join(f"{name}\n" for name in listed))
    findings = _findings("chestxray14", visits)
    return [
        Shot(
            f"images/{names[i]}",
            i,
            int(visits.patient[i]),
            bool(visits.female[i]),
            str(views[i]),
            findings[i],
        )
        for i in range(images)
    ]


def _plco(folder: Path, images: int, wanted: np.ndarray, rng) -> list[Shot]:
    """The three lists, complete; returns what to draw."""
    visits = _visits("plco", images, (0.7, 0.1, 0.2), wanted, rng)
    released = phantom_labels.noisy("plco", visits.truth, wanted, rng)
    names = np.array([f"AD{i + 6848050206123000:017d}_v2" for i in range(images)])
    people = np.array([f"A-{patient + 1:06d}-2" for patient in visits.patient])
    inner = {
        labels.PLCO[node] for node in phantom_labels.label_tree.inner(phantom_labels.TREES["plco"])
    }
    for split, list_name in enumerate(("train", "val", "test")):
        rows = np.flatnonzero(visits.split == split)
        columns: dict = {"img_name": names[rows], "plco_id": people[rows]}
        for label, values in zip(labels.PLCO, released[rows].T, strict=True):
            columns[label] = values.astype(int if label in inner else float)  # as released
        columns |= {f"{label} preserve bool": 1.0 for label in labels.PLCO}
        _write_csv(folder / f"{list_name}_set_delete0.0.csv", columns)
    findings = _findings("plco", visits)
    return [
        Shot(
            f"images/{names[i]}.png",
            i,
            int(visits.patient[i]),
            bool(visits.female[i]),
            "PA",
            findings[i],
        )
        for i in range(images)
    ]


def _chexpert(folder: Path, images: int, wanted: np.ndarray, rng) -> list[Shot]:
    """train, valid and test with their label files and readers; returns what to draw."""
    splits = ("train", "valid", "test")
    visits = _visits("chexpert", images, (0.75, 0.1, 0.15), wanted, rng)
    findings = _findings("chexpert", visits)
    truth = phantom_labels.chexpert_table(visits.truth)
    reported = phantom_labels.noisy("chexpert", visits.truth, wanted, rng)
    from_reports = phantom_labels.chexpert_uncertain(phantom_labels.chexpert_table(reported), rng)
    from_images = phantom_labels.chexpert_table(
        phantom_labels.noisy("chexpert", visits.truth, wanted, rng)
    )
    lateral = rng.random(images) < 0.17
    view = np.where(rng.random(images) < 0.85, "AP", "PA")
    first_patient = (1, 64541, 64741)  # as released
    seen: dict[int, int] = {}
    shots, rows, studies = [], [], []
    for i in range(images):
        split, patient = int(visits.split[i]), int(visits.patient[i])
        start = first_patient[split]
        named = seen.setdefault(
            patient, start + sum(visits.split[visits.number == 0][:patient] == split)
        )
        study = f"{splits[split]}/patient{named:05d}/study{visits.number[i] + 1}"
        studies.append(study)
        for position in range(1 + lateral[i]):
            if len(shots) == images:
                break
            name = f"{study}/view{position + 1}_{('frontal', 'lateral')[position]}.jpg"
            shown = ("LATERAL" if position else str(view[i]),)
            shots.append(
                Shot(
                    f"{CHEXPERT_FOLDER}/{name}",
                    len(shots),
                    patient,
                    bool(visits.female[i]),
                    *shown,
                    findings[i],
                )
            )
            rows.append((i, position))
    unit, position = np.array(rows).T
    root = folder / CHEXPERT_FOLDER
    root.mkdir(parents=True, exist_ok=True)

    def table(name: str, split: int, values: np.ndarray, details: bool) -> None:
        here = np.flatnonzero(visits.split[unit] == split)
        of = unit[here]
        columns: dict = {"Path": [shots[i].path for i in here]}
        if details:
            columns["Sex"] = np.where(visits.female[of], "Female", "Male")
            columns["Age"] = visits.age[of]
            columns["Frontal/Lateral"] = np.where(position[here] == 1, "Lateral", "Frontal")
            columns["AP/PA"] = np.where(position[here] == 1, None, view[of])
        columns |= dict(zip(labels.CHEXPERT, values[of].T.astype(float), strict=True))
        _write_csv(root / name, columns)

    table("train.csv", 0, from_reports, True)
    table("train_visualCheXbert.csv", 0, from_images, True)
    table("valid.csv", 1, truth, True)
    table("test.csv", 2, truth, False)
    test = np.unique(unit[visits.split[unit] == 2])
    called = {"groundtruth.csv": truth[test]}
    strength = np.column_stack([np.ones(images), visits.strength[:, :-1]])[test]
    for name in phantom_labels.READERS:
        called[f"radiologists/{name}.csv"] = phantom_labels.reader(truth[test], strength, name, rng)
    order = list(labels.CHEXPERT)
    order[3:5] = order[4:2:-1]  # the released readers' files have these two swapped
    (root / "radiologists").mkdir(exist_ok=True)
    for name, values in called.items():
        columns = {"Study": [f"CheXpert-v1.0/{studies[i]}" for i in test]}
        columns |= dict(zip(labels.CHEXPERT, values.T.astype(int), strict=True))
        names = order if "/" in name else labels.CHEXPERT
        _write_csv(root / name, {key: columns[key] for key in ("Study", *names)})
    return shots


_LAYOUTS = {"chestxray14": _chestxray14, "chexpert": _chexpert, "plco": _plco}


def _finished(out: Path, settings: dict) -> bool:
    """Whether these phantoms lie there already; another content of the folder is an error."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise DataError(f"{out} is a file; name a folder with --out.")
    for name, done in (("phantom.json", True), ("phantom.unfinished.json", False)):
        try:
            there = json.loads((out / name).read_text())
        except FileNotFoundError:
            continue
        except ValueError:
            there = {}
        if there == settings:
            return done
        differing = [key for key in settings if there.get(key) != settings[key]]
        raise DataError(
            f"{out} holds phantoms of other settings ({', '.join(differing)} differ); choose "
            f"another --out, or delete that folder first."
        )
    raise DataError(
        f"{out} is not empty and holds no phantoms; nothing was written. Choose a new --out."
    )


def write(
    dataset: str,
    out: Path,
    images: int,
    size: int,
    seed: int,
    prevalence_floor: float = 0.0,
    progress: bool = True,
) -> Path:
    """Draw a dataset of phantoms, once; returns the folder to give to the dataset's reader."""
    out = Path(out)
    if dataset not in DATASETS:
        raise DataError(f"There are no {dataset} phantoms; choose from {', '.join(DATASETS)}.")
    if images < FEWEST or size < SMALLEST or seed < 0 or not 0 <= prevalence_floor <= 0.3:
        raise DataError(
            f"Phantoms need --images of at least {FEWEST}, --size of at least {SMALLEST}, --seed "
            f"of at least 0 and --prevalence-floor between 0 and 0.3."
        )
    settings = {
        "dataset": dataset,
        "images": images,
        "size": size,
        "seed": seed,
        "prevalence_floor": prevalence_floor,
        "version": VERSION,
    }
    root = out / CHEXPERT_FOLDER if dataset == "chexpert" else out
    if _finished(out, settings):
        if progress:
            print(f"{out} already holds these {images} phantoms; nothing to do.")
        return root
    try:
        out.mkdir(parents=True, exist_ok=True)
        marker = out / "phantom.unfinished.json"  # becomes phantom.json when all is written
        marker.write_text(json.dumps(settings, indent=2) + "\n")
        rng = np.random.default_rng([seed, PLAN])
        wanted = phantom_labels.prevalences(dataset, prevalence_floor)
        shots = _LAYOUTS[dataset](out, images, wanted, rng)
        lines = _draw_all(shots, out, size, seed, progress)
        if root != out:
            lines = [line.removeprefix(f"{root.name}/") for line in lines]
            (root / "phantom.json").write_text(marker.read_text())
        table = "\n".join(["image_path,label,x,y,width,height", *lines]) + "\n"
        (root / "phantom_findings.csv").write_text(table)
        os.replace(marker, out / "phantom.json")
    except OSError as error:
        raise DataError(
            f"Cannot write phantoms to {out} ({error.strerror}); free some space or choose another "
            f"--out, and run the same command again."
        ) from error
    return root


SHEET = (  # what the contact sheet shows: a view and the labels drawn
    ("PA", ()),
    ("AP", ("Support Devices",)),
    ("LATERAL", ()),
    *(("PA", (label,)) for label in (
        "Cardiomegaly", "Enlarged Cardiomediastinum", "Pleural Effusion", "Pneumothorax",
        "Consolidation", "Pneumonia", "Infiltration", "Edema", "Atelectasis", "Major Atelectasis",
        "Emphysema", "Fibrosis", "Scarring", "Pleural_Thickening", "Nodule", "Mass",
        "Pleural Based Mass", "Granuloma", "Hilar", "Hernia", "Fracture",
    )),
)  # fmt: skip


def sheet(out: Path, seed: int, tile: int = 168, columns: int = 6) -> None:
    """A picture of phantoms, one finding each with its name under it."""
    caption, tiles = 20, []
    for number, (view, found) in enumerate(SHEET):
        shot = Shot("", number, number, number % 2 == 1, view, tuple((one, 1.1) for one in found))
        image = cv2.resize(
            draw(shot, 2 * tile, seed)[0], (tile, tile), interpolation=cv2.INTER_AREA
        )
        text = ", ".join(found).replace("_", " ") or f"normal, {view.replace('LATERAL', 'lateral')}"
        strip = np.full((caption, tile), 255, np.uint8)
        scale = min(0.4, 0.4 * (tile - 4) / cv2.getTextSize(text, 0, 0.4, 1)[0][0])
        cv2.putText(strip, text, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, scale, 0, 1, cv2.LINE_AA)
        tiles.append(cv2.copyMakeBorder(np.vstack([image, strip]), 2, 2, 2, 2, 0, value=255))
    rows = [np.hstack(tiles[at : at + columns]) for at in range(0, len(tiles), columns)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(cv2.imencode(".png", np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data.phantom", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for dataset in DATASETS:
        command = commands.add_parser(dataset, help=f"phantoms in {dataset}'s layout")
        command.add_argument("--out", type=Path, required=True, help="an empty or new folder")
        command.add_argument("--images", type=int, default=600)
        command.add_argument("--size", type=int, default=128, help="pixels")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument(
            "--prevalence-floor",
            type=float,
            default=0.0,
            help="raise the prevalence of rarer labels to this, for small sets",
        )
    command = commands.add_parser("sheet", help="a contact sheet of the findings, as one PNG")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        if options.command == "sheet":
            sheet(options.out, options.seed)
            print(options.out)
        else:
            folder = write(
                options.command,
                options.out,
                options.images,
                options.size,
                options.seed,
                options.prevalence_floor,
            )
            print(f"Give this folder to the reader: {folder}")
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command starts over.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
