"""Draw phantoms (synthetic chest radiographs) and write them as a dataset in a released layout.

`draw` makes one image from a `Shot` (patient, view and findings); `write` makes a whole folder with
label files and lists, which the dataset's reader reads.
"""

import json
import os
import pkgutil
import signal
import zlib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

import safefiles
from data import DataError
from data.datasets import DATASETS
from data.phantom import labels as drawn_labels
from data.phantom.anatomy import Film, sample_shape
from data.phantom.film import Pose, develop, sample_pose
from data.phantom.findings import LOOK_ALIKE, PAINT, RESHAPE, benign, boxes
from data.phantom.knobs import DEFAULT_KNOBS, Knobs
from data.phantom.layouts import Shot
from data.progress import with_progress

VERSION = 1  # raise it with every change of the written bytes
SMALLEST, LARGEST = 32, 4096  # pixels
FEWEST, MOST = 20, 1_000_000  # images
WORKING_SIDE = 128  # smaller images are drawn at this size and averaged down
POOL_FROM = 400  # images; fewer are drawn sooner without a process pool
ANATOMY, FILM, FINDING, PLAN = range(4)  # streams of random numbers


def draw(
    shot: Shot, size: int, seed: int, pose: Pose | None = None, knobs: Knobs = DEFAULT_KNOBS
) -> tuple[np.ndarray, list[tuple[str, tuple[float, ...]]]]:
    """Return the (size, size) uint8 radiograph, and (label, box) of each focal finding in it."""
    film_rng = np.random.default_rng([seed, FILM, shot.number])
    drawn_pose = sample_pose(film_rng, shot.view)
    if knobs.misaligned:
        drawn_pose.misalign(knobs.misaligned, np.random.default_rng([seed, FILM, shot.number, 1]))
    pose = pose or drawn_pose
    density, masks = _density(shot, size, seed, {})
    planted = [(label, box) for label, each in masks for box in boxes(each, pose.matrix())]
    if knobs.alike and any(label in LOOK_ALIKE for label, _ in shot.findings):
        alike = _density(shot, size, seed, LOOK_ALIKE)[0]
        density = (1 - np.float32(knobs.alike)) * density + np.float32(knobs.alike) * alike
    return develop(density, pose, size, film_rng), planted


def _density(shot: Shot, size: int, seed: int, drawn_as: dict[str, str]):
    """Return the chest's density before the film is taken, and (label, masks) of each finding.

    `drawn_as` maps a label to the one whose signature is drawn in its place.
    """
    shape = sample_shape(
        np.random.default_rng([seed, ANATOMY, shot.patient]), shot.view, shot.female
    )
    streams = {
        label: [seed, FINDING, shot.patient, zlib.crc32(label.encode())]
        for label, _ in shot.findings
    }  # a finding lies at the same place in all images of a patient
    for label, strength in shot.findings:
        look = drawn_as.get(label, label)
        if look in RESHAPE:
            RESHAPE[look](shape, np.random.default_rng([*streams[label], 1]), strength)
    film = Film(shape, max(size, WORKING_SIDE))
    benign(film, np.random.default_rng([seed, ANATOMY, shot.patient, 1]))
    masks = []
    for label, strength in shot.findings:
        paint = PAINT[drawn_as.get(label, label)]
        masks.append((label, list(paint(film, np.random.default_rng(streams[label]), strength))))
    return film.density(), masks


def _draw_to_disk(job: tuple[list[Shot], Path, int, int, Knobs]) -> list[str]:
    """Write the images of some shots; return their lines for phantom_findings.csv."""
    shots, folder, size, seed, knobs = job
    lines = []
    for shot in shots:
        image, planted = draw(shot, size, seed, knobs=knobs)
        quality = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        if shot.path.endswith(".jpg"):
            quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
        written = cv2.imencode(Path(shot.path).suffix, image, quality)[1]
        (folder / shot.path).write_bytes(written.tobytes())
        lines += [
            ",".join([shot.path, label, *(f"{value:.4f}" for value in box)])
            for label, box in planted
        ]
    return lines


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C


def _draw_all(
    shots: list[Shot], folder: Path, size: int, seed: int, show: bool, knobs: Knobs
) -> list[str]:
    """Write all images, in a process pool if there are many; return the lines of the findings."""
    for parent in {(folder / shot.path).parent for shot in shots}:
        parent.mkdir(parents=True, exist_ok=True)
    chunk = 25
    parts = [shots[at : at + chunk] for at in range(0, len(shots), chunk)]
    jobs = [(part, folder, size, seed, knobs) for part in parts]
    if len(shots) < POOL_FROM:
        return [line for job in jobs for line in _draw_to_disk(job)]
    workers = len(os.sched_getaffinity(0))
    spawn = get_context("spawn")  # a fork would copy the threads of the caller's TensorFlow
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker)
    try:
        drawn = zip(jobs, pool.map(_draw_to_disk, jobs), strict=True)
        counted = with_progress(
            drawn, "draw", len(shots), show=show, images=lambda pair: len(pair[0][0])
        )
        return [line for _, written in counted for line in written]
    finally:  # after an error or Ctrl-C, start no further jobs
        pool.shutdown(cancel_futures=True)


def _finished(out: Path, settings: dict) -> bool:
    """Return True if the folder holds exactly these phantoms, False if they are to be drawn.

    Raise a DataError if the folder holds anything else.
    """
    if not os.path.exists(out) or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise DataError(f"{out} is a file; give a folder with --out.")
    for name, done in (("phantom.json", True), ("phantom.unfinished.json", False)):
        try:
            recorded = json.loads((out / name).read_text())
        except FileNotFoundError:
            continue
        except ValueError:
            recorded = {}
        if recorded == settings:
            return done
        if not isinstance(recorded, dict):
            recorded = {}
        differing = [key for key in settings if recorded.get(key) != settings[key]]
        raise DataError(
            f"{out} holds phantoms of other settings ({', '.join(differing)} differ); choose "
            "another --out, or delete that folder first."
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
    *,
    knobs: Knobs = DEFAULT_KNOBS,
    progress: bool = True,
) -> Path:
    """Draw a dataset of phantoms if it is not there yet; return the folder for its reader."""
    out = Path(out)
    if dataset not in DATASETS:
        raise DataError(f"There are no {dataset} phantoms; choose from {', '.join(DATASETS)}.")
    knobs.check(DATASETS[dataset].hierarchy_labels)
    for flag, value, low, high in (
        ("images", images, FEWEST, MOST),
        ("size", size, SMALLEST, LARGEST),
        ("seed", seed, 0, 2**63 - 1),
        ("prevalence-floor", prevalence_floor, 0, 0.3),
    ):
        if not low <= value <= high:
            raise DataError(f"--{flag} {value}: give a number from {low} to {high:,}.")
    settings = {
        "dataset": dataset,
        "images": images,
        "size": size,
        "seed": seed,
        "prevalence_floor": prevalence_floor,
        "version": VERSION,
        **knobs.changed(),
    }
    root = out / DATASETS[dataset].phantom_folder
    try:
        if _finished(out, settings):
            if progress:
                print(f"{out} already holds these {images} phantoms; nothing to do.")
            return root
        out.mkdir(parents=True, exist_ok=True)
        marker = out / "phantom.unfinished.json"  # becomes phantom.json when all is written
        marker.write_text(json.dumps(settings, indent=2) + "\n")
        rng = np.random.default_rng([seed, PLAN])
        wanted = drawn_labels.prevalences(dataset, prevalence_floor)
        shots = DATASETS[dataset].write_layout(out, images, wanted, rng, knobs)
        lines = _draw_all(shots, out, size, seed, progress, knobs)
        if DATASETS[dataset].pack:
            packed = pkgutil.resolve_name(DATASETS[dataset].pack)(out, size)
            named = [line.partition(",") for line in lines]
            lines = [packed[path] + comma + rest for path, comma, rest in named]
        if root != out:
            lines = [line.removeprefix(f"{root.name}/") for line in lines]
            (root / "phantom.json").write_text(marker.read_text())
        table = "\n".join(["image_path,label,x,y,width,height", *lines]) + "\n"
        (root / "phantom_findings.csv").write_text(table)
        os.replace(marker, out / "phantom.json")
    except BrokenProcessPool as error:
        raise DataError(
            "A drawing process ended early: it ran out of memory, or the script that called "
            'drawing.write lacks `if __name__ == "__main__":`; correct that and run again.'
        ) from error
    except OSError as error:
        raise safefiles.cannot_write(out, error) from error
    return root
