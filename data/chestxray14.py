"""Read NIH ChestX-ray14 (Wang et al. 2017) in the layouts in which it is found, or download it.

docs/data.md lists the layouts. A copy without NIH's lists is split by the official lists that the
suite ships; one without a label file gets the labels of 2017 from there.
"""

import os
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

import downloads
import safefiles
from data import DataError, containers, labels, public_lists, reading
from data.datasets import DATASETS

DATASET = DATASETS["chestxray14"]
COMPLETE = DATASET.complete  # images per split
LABEL_FILES = (  # the corrected file first; the last comes with Kaggle's sample
    *("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv"),
    "sample_labels.csv",
)
LISTS = {  # released split -> names of its list, NIH's and Kaggle's
    "train_val": ("train_val_list.txt", "train_val_list_NIH.txt"),
    "test": ("test_list.txt", "test_list_NIH.txt"),
}
_EXPECTED = (
    "Data_Entry_2017_v2020.csv  (or Data_Entry_2017.csv, also .gz)",
    "train_val_list.txt",
    "test_list.txt",
    "images/00000001_000.png …  (or images_001/images/ … images_012/images/,",
    "                            or images_001.zip … images_012.zip)",
)
ATTRIBUTES = {"sex": "Patient Gender", "age": "Patient Age", "view": "View Position"}
_FOLDERS = (  # of images, besides images_001/images/ and images_001/
    *("images", "images-224/images-224", "images-224", "sample/images", "sample/sample/images"),
    "images_normalized",
)
_ARCHIVES_IN = (".", "images", "data", "data/images")  # folders of ZIP and Parquet files
_NAME = re.compile(r"\d{8}_\d{3}\.png")
BOX = "https://nihcc.box.com/shared/static"
ARCHIVES = (  # name on NIH's Box, MD5, of images_001.tar.gz to images_012.tar.gz
    ("vfk49d74nhbxq3nqjg0900w5nvkorp5c.gz", "fe8ed0a6961412fddcbb3603c11b3698"),
    ("i28rlmbvmfjbl8p2n3ril0pptcmcu9d1.gz", "ab07a2d7cbe6f65ddd97b4ed7bde10bf"),
    ("f1t00wrtdk94satdfb9olcolqx20z2jp.gz", "2301d03bde4c246388bad3876965d574"),
    ("0aowwzs5lhjrceb3qp67ahp0rd1l1etg.gz", "9f1b7f5aae01b13f4bc8e2c44a4b8ef6"),
    ("v5e3goj22zr6h8tzualxfsqlqaygfbsn.gz", "1861f3cd0ef7734df8104f2b0309023b"),
    ("asi7ikud9jwnkrnkj99jnpfkjdes7l6l.gz", "456b53a8b351afd92a35bc41444c58c8"),
    ("jn1b4mw4n6lnh74ovmcjb8y48h8xj07n.gz", "1075121ea20a137b87f290d6a4a5965e"),
    ("tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j.gz", "b61f34cec3aa69f295fbb593cbd9d443"),
    ("upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj.gz", "442a3caa61ae9b64e61c561294d1e183"),
    ("l6nilvfa9cg3s28tqv1qc1olm3gnz54p.gz", "09ec81c4c31e32858ad8cf965c494b74"),
    ("hhq8fkdgvcari67vfhs7ppg2w6ni4jze.gz", "499aefc67207a5a97692424cf5dbeed5"),
    ("ioqwiy20ihqwyr8pf4c24eazhh281pbu.gz", "dc9fda1757c2de0032b63347a7d2895c"),
)


def download(
    folder: Path, size: int, base_url: str | None = None, keep_archives: bool = False
) -> Path:
    """Download NIH's twelve archives, one after another, and keep their images at `size` pixels.

    Each archive becomes images_001-256px.zip and is deleted, unless `keep_archives`: 45 GB are
    never needed at once. Archives that are finished stay; return the folder.
    """
    waiting = f"Another process is downloading into {folder}; waiting for it."
    done = 0
    with safefiles.lock(folder / ".download.lock", waiting):
        safefiles.remove_parts(folder)
        for number, (name, expected) in enumerate(ARCHIVES, start=1):
            shrunk = folder / f"images_{number:03d}-{size}px.zip"
            if not shrunk.is_file():
                archive = folder / f"images_{number:03d}.tar.gz"
                by_hand = f"Or download {BOX}/{name} to {archive} yourself."
                url = f"{(base_url or BOX).rstrip('/')}/{name}"
                downloads.fetch(url, archive, expected, by_hand)
                _shrink(archive, shrunk, size, done)
                if not keep_archives:
                    archive.unlink()
            done += len(containers.names(shrunk))
    return folder


def _shrink(archive: Path, target: Path, size: int, done: int) -> None:
    """Write the radiographs of a tar archive, resized to 8-bit squares, into a ZIP archive.

    `done` images of earlier archives are counted in the progress.
    """
    import cv2

    from data import images, prepare
    from data.progress import with_progress

    def png(member: tuple[str, bytes]) -> tuple[str, bytes]:
        name, content = member
        image = images.decode(archive / name, content, size)[0]
        return name, cv2.imencode(".png", image)[1].tobytes()

    workers = len(os.sched_getaffinity(0))
    with (
        safefiles.whole(target) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as shrunk,
        tarfile.open(archive, "r|gz") as stream,
        ThreadPoolExecutor(workers) as pool,
    ):
        members = prepare.in_order(pool, png, _radiographs(stream), ahead=16 * workers)
        for name, content in with_progress(members, "resize", DATASET.images, done=done):
            shrunk.writestr(f"images/{name}", content)


def _radiographs(stream: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the radiographs in an archive, in its order."""
    for member in stream:
        name = Path(member.name).name
        file: IO[bytes] | None = stream.extractfile(member) if member.isfile() else None
        if file and _NAME.fullmatch(name):
            yield name, file.read()


def read(folder: str | Path, allow_missing: bool = False) -> pd.DataFrame:
    """Return one row per image, in the order of the images' names.

    Columns: image_path, patient_id (without leading zeros), sex and age (as written, blank where
    the label file lacks them), view (PA, AP), split (train_val, test), then 15 labels, 0 or 1. An
    image that lies in several image folders is taken from the first: images/, images_001/, …
    """
    folder = reading.open_folder(folder)
    found = _images(folder)
    label_file = _label_file(folder, found)
    table = _of_public_lists(folder, found) if label_file is None else _table(label_file)
    where = label_file or public_lists.FILE
    names = reading.texts(table, "Image Index", where)
    reading.check_unique(names, where)
    patients = _patients(table, names, where)
    lists = {split: _list_of(folder, names) for split, names in LISTS.items()}
    split = _splits(names, patients, lists, where, allow_missing)
    released = (*labels.CHESTXRAY14, labels.NO_FINDING)
    findings = _findings(reading.texts(table, "Finding Labels", where), released, where)
    sex, age, view = (
        table.get(column, pd.Series("", table.index)).fillna("").to_numpy()
        for column in ATTRIBUTES.values()
    )
    about = {"patient_id": patients, "sex": sex, "age": age, "view": view, "split": split}
    frame = pd.DataFrame(about)
    frame = pd.concat([frame, pd.DataFrame(findings, columns=list(released))], axis=1)
    return reading.finish(
        frame.assign(block=0),
        [found.get(name.lower()) for name in names],
        names.reset_index(drop=True),
        folder,
        [path for path in (label_file, *lists.values()) if path] or [public_lists.FILE],
        allow_missing,
        dataset=DATASET.name,
        complete=frame["split"].value_counts().to_dict() == COMPLETE,
    )


def _table(label_file: Path) -> pd.DataFrame:
    """Return the columns of a label file that are used."""
    needed = ("Image Index", "Finding Labels", "Patient ID", "View Position")
    return reading.read_table(label_file, needed, optional=("Patient Gender", "Patient Age"))


def _of_public_lists(folder: Path, found: dict[str, str]) -> pd.DataFrame:
    """Return the labels of 2017 of the images that are there, in the form of a label file."""
    print(
        f"{folder} has no {LABEL_FILES[0]}: using the labels of 2017 from the public lists, "
        "without sex, age and view.",
        file=sys.stderr,
        flush=True,
    )
    listed = public_lists.images()
    listed = listed[listed["image"].isin(found)].reset_index(drop=True)
    known = public_lists.label_matrix(listed["findings"]).astype(bool)
    texts = ["|".join(np.array(labels.CHESTXRAY14)[row]) or labels.NO_FINDING for row in known]
    columns = {"Image Index": listed["image"], "Patient ID": listed["patient_id"]}
    table = pd.DataFrame(columns | {"Finding Labels": texts})
    return table.set_axis(pd.Index(range(len(table)), name="line"))


def _patients(table: pd.DataFrame, names: pd.Series, path: Path) -> np.ndarray:
    """Return the patient ids in one spelling; raise a DataError if a file name contradicts one.

    99, 099 and 99.0 are one patient, and 00000013_005.png is an image of patient 13.
    """
    patients = reading.texts(table, "Patient ID", path)
    patients = patients.str.replace(r"^0*(\d+)(?:\.0*)?$", r"\1", regex=True)
    in_name = names.str.extract(r"^0*(\d+)_\d+\.", expand=False)
    first = reading.first_true(in_name.notna() & (in_name != patients))
    if first is not None:
        raise DataError(
            f"{path} gives the image {names.iloc[first]} to patient {patients.iloc[first]} in line "
            f"{names.index[first]:,}, but its name says patient {in_name.iloc[first]}; correct "
            "that line, or get the file again."
        )
    return patients.to_numpy()


def label_files(folder: Path) -> list[Path]:
    """Return where the label file may lie in a folder, the preferred one first."""
    return [folder / (name + ending) for name in LABEL_FILES for ending in ("", ".gz")]


def _label_file(folder: Path, found: dict[str, str]) -> Path | None:
    """Return the label file, or None if there are images without one; else raise a DataError."""
    choices = label_files(folder)
    present = [path for path in choices if path.is_file()]
    if present:
        return present[0]
    inner = folder / "data"  # of the copy on Hugging Face
    if any(path.is_file() for path in label_files(inner)):
        raise DataError(f"{folder} has its label file in {inner}; pass that folder.")
    if any(map(_NAME.fullmatch, found)):
        return None
    marks = [path.name for path in choices]
    lacking = f"{' or '.join(LABEL_FILES[:2])}, and no images"
    raise reading.layout_error(folder, DATASET.title, lacking, _EXPECTED, marks)


def _list_of(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the list of a released split, if the folder has one."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _splits(
    names: pd.Series,
    patients: np.ndarray,
    lists: dict[str, Path | None],
    label_file: Path,
    allow_missing: bool,
) -> np.ndarray:
    """Return the split of each image; raise a DataError where lists and label file disagree."""
    paths = [path for path in lists.values() if path]
    if not paths:
        return _official(names, patients, label_file)
    if len(paths) < len(lists):
        lacking = next(LISTS[split][0] for split, path in lists.items() if not path)
        raise DataError(
            f"{paths[0].parent} has {paths[0].name} but no {lacking}: put it there, or move the "
            "other away to use the official lists that this suite has."
        )
    named = {path: reading.read_list(path) for path in paths}
    train_val, test = (names.isin(listed).to_numpy() for listed in named.values())
    in_both = names[train_val & test].tolist()
    if in_both:
        raise DataError(
            f"Images are in both lists of {paths[0].parent} ({len(in_both):,}), such as "
            f"{in_both[0]}."
        )
    unlisted = names[~(train_val | test)]
    if len(unlisted):
        raise DataError(
            f"{len(unlisted):,} of {len(names):,} images of {label_file} are in neither "
            f"{paths[0].name} nor {paths[1].name}, such as {unlisted.iloc[0]} in line "
            f"{unlisted.index[0]:,}; get the lists that belong to it."
        )
    known = set(names)
    for path, listed in named.items():
        unknown = [image for image in listed if image not in known]
        if unknown and not allow_missing:
            raise DataError(
                f"{path} names images that {label_file.name} lacks ({len(unknown):,}), such as "
                f"{unknown[0]}; get the whole label file, or pass --allow-missing to go on without "
                "them."
            )
    return np.where(test, "test", "train_val")


def _official(names: pd.Series, patients: np.ndarray, label_file: Path) -> np.ndarray:
    """Return the official split by the lists that the suite ships."""
    known = {*public_lists.patients()["patient"]}
    unknown = [name for name, patient in zip(names, patients, strict=True) if patient not in known]
    if unknown:
        raise DataError(
            f"{label_file.parent} has no {LISTS['train_val'][0]}, and {len(unknown):,} images are "
            f"not in the official lists, such as {unknown[0]}: put the lists beside the label file."
        )
    if label_file != public_lists.FILE:
        print(
            f"{label_file.parent} has no lists: using the official split that this suite has.",
            file=sys.stderr,
            flush=True,
        )
    return np.where(
        np.isin(patients, [*public_lists.official_test_patients()]), "test", "train_val"
    )


def _findings(texts: pd.Series, released: tuple[str, ...], path: Path) -> np.ndarray:
    """Return (images, labels) float32 of texts such as Effusion|Mass; parse equal texts once."""
    codes, different = pd.factorize(texts)
    known = np.zeros((len(different), len(released)), np.float32)
    unknown: dict[str, int] = {}  # finding -> its first line
    for row, text in enumerate(different):
        named = [finding.strip() for finding in text.split("|")]
        for finding in named:
            if finding not in released:
                unknown.setdefault(finding, texts.index[codes == row][0])
        known[row] = [name in named for name in released]
        if labels.NO_FINDING in named and len(named) > 1:
            line = texts.index[codes == row][0]
            raise DataError(
                f"{path} has the contradictory Finding Labels {text!r} in line {line:,}."
            )
    if unknown:
        raise DataError(
            f"{path} has unknown Finding Labels: {', '.join(map(repr, unknown))}, first in line "
            f"{min(unknown.values()):,}; known are {', '.join(released)}."
        )
    return known[codes]


def _images(folder: Path) -> dict[str, str]:
    """Return lower-cased file name -> path relative to the folder, of all images.

    Files come before members of archives, and larger archives before those of smaller images.
    """
    numbered = [path.name for path in reading.subfolders(folder) if path.name.startswith("images_")]
    found: dict[str, str] = {}
    for directory in (*_FOLDERS, *(f"{name}/images" for name in numbered), *numbered):
        for lower, name in reading.list_names(folder / directory).items():
            found.setdefault(lower, f"{directory}/{name}")
    for directory in _ARCHIVES_IN:
        archives = [
            name
            for lower, name in reading.list_names(folder / directory).items()
            if lower.endswith(".parquet") or re.fullmatch(r"images.*\.zip", lower)
        ]
        for archive in sorted(archives, key=_pixels, reverse=True):
            path = Path(directory, archive)
            for member in containers.names(folder / path):
                name = member.rpartition("/")[2].lower()
                if _NAME.fullmatch(name):
                    found.setdefault(name, f"{path.as_posix()}/{member}")
    return found


def _pixels(archive: str) -> int:
    """Return the pixels in the name of a shrunk archive; more than any for an original one."""
    match = re.search(r"-(\d+)px\.zip$", archive)
    return int(match[1]) if match else sys.maxsize
