"""Find, download and read the predictions that authors released with their papers.

released.toml lists the files. Each is identified by its SHA-256 and may lie anywhere below the
folder of --released, so a number computed from a file can only be about the released one.
"""

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import downloads
import safefiles
from data import chestxray14, labels
from evaluation import EvaluationError, predictions
from evaluation.predictions import Predictions

if TYPE_CHECKING:
    from reproduce.engine.rows import Run


@dataclass(frozen=True)
class Source:
    """Where released files come from, and on which terms."""

    licence: str
    files: dict[str, str]  # path in the repository -> SHA-256
    same_images: bool = False  # the printed numbers are of these images
    why: str = ""  # the reason for same_images
    repository: str = ""  # on github.com
    commit: str = ""
    page: str = ""  # of files without a repository, which each person has to download

    @property
    def address(self) -> str:
        """The origin of the files, for people."""
        return self.page or f"github.com/{self.repository} at {self.commit[:12]}"

    @property
    def base_url(self) -> str:
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/"

    def __str__(self) -> str:
        return f"Source: {self.address}, files known by their SHA-256. Licence: {self.licence}."


SOURCES = {
    name: Source(**entry)
    for name, entry in tomllib.loads(
        Path(__file__).with_name("released.toml").read_text(encoding="utf-8")
    ).items()
}


KNOWN = {digest for source in SOURCES.values() for digest in source.files.values()}
ABOUT = {"sex": "Patient Gender", "age": "Patient Age", "view": "View Position"}


@dataclass(frozen=True)
class Released:
    """The predictions that a paper's authors released on a test set."""

    predictions: Predictions  # of images or studies, with their truth
    decisions: dict[str, np.ndarray] = field(default_factory=dict)  # radiologist -> 0/1 per target
    about: dict[str, list[str]] = field(default_factory=dict)  # sex, age, view of each image
    own_auc: dict[str, float] = field(default_factory=dict)  # by label, as the authors computed it


def read(paper: str, folder: Path, label_file: Path | None = None) -> Released:
    """Read the paper's released predictions from anywhere below `folder`.

    The predictions of zech2018 need the label file of ChestX-ray14, which the NIH provides.
    """
    paths = find(paper, folder)
    if paper == "zech2018":
        return _read_zech(paths, label_file or find_label_file(folder))
    return {"pham2019": _read_pham, "asadi2025": _read_asadi}[paper](paths)


def as_run(paper: str, released_folder: Path, run_folder: Path, name: str) -> "Run[Any]":
    """Save the authors' predictions as a finished run, to be shown in a table beside our rows."""
    from reproduce.engine.rows import Combined, Run  # imports OpenCV, which rescore does not need

    theirs = read(paper, released_folder).predictions
    row = Combined(name, (), note="released by the authors, not trained")
    theirs = theirs._replace(ids=np.arange(len(theirs.ids)), meta={"row": row.name})
    predictions.save(run_folder / "predictions.npz", theirs)
    return Run(row, 0, run_folder, {})


def find_label_file(folder: Path) -> Path:
    """Return the label file of ChestX-ray14 below a folder, preferring the corrected version.

    If there are several, return the largest: a part of the dataset comes with a shorter one.
    """
    for name in chestxray14.LABEL_FILES:
        if paths := [path for path in sorted(folder.rglob(f"{name}*")) if path.is_file()]:
            return max(paths, key=_uncompressed_size)
    raise EvaluationError(
        f"{folder} has no {chestxray14.LABEL_FILES[0]} (or .csv.gz), the label file of "
        "ChestX-ray14; get it from https://nihcc.app.box.com/v/ChestXray-NIHCC, or name it with "
        "--truth FILE."
    )


def _uncompressed_size(path: Path) -> int:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        end = file.seek(-4 if is_gzip else 0, os.SEEK_END)
        return int.from_bytes(file.read(4), "little") if is_gzip else end


def _read_pham(paths: list[Path]) -> Released:
    truth, predicted, *decisions = (pd.read_csv(path, index_col="Study") for path in paths)
    names = [*labels.CHEXPERT_COMPETITION]
    probabilities, *readers = (
        frame.loc[truth.index, names].to_numpy(float) for frame in (predicted, *decisions)
    )
    by_reader = dict(zip((path.stem for path in paths[2:]), readers, strict=True))
    targets = truth[names].to_numpy(float)
    return Released(
        _predictions(truth.index, patients(truth.index), names, targets, probabilities), by_reader
    )


def _read_asadi(paths: list[Path]) -> Released:
    frame = pd.read_csv(paths[0], index_col="Path")
    targets, probabilities = (
        frame[[f"{label}_{kind}" for label in labels.ASADI]].to_numpy(float)
        for kind in ("GT", "Pred")
    )
    return Released(
        _predictions(frame.index, patients(frame.index), labels.ASADI, targets, probabilities)
    )


def read_label_file(label_file: Path, images: pd.Index) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the rows of ChestX-ray14's label file for these images, and their labels, 0 or 1."""
    try:
        rows = pd.read_csv(label_file, index_col="Image Index", dtype=str)
        if missing := len(images.difference(rows.index)):
            raise ValueError(f"it lacks {missing:,} of {len(images):,} images")
        rows = rows.loc[images, ["Finding Labels", "Patient ID", *ABOUT.values()]]
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(
            f"{label_file} is not ChestX-ray14's whole label file ({error}); get "
            f"{chestxray14.LABEL_FILES[0]} from the NIH."
        ) from error
    findings = rows["Finding Labels"].str.get_dummies("|")
    return rows, findings.reindex(columns=[*labels.CHESTXRAY14], fill_value=0).to_numpy(float)


def _read_zech(paths: list[Path], label_file: Path) -> Released:
    predicted = pd.read_csv(paths[0], index_col="Image Index")
    rows, targets = read_label_file(label_file, predicted.index)
    about = {name: rows[column].tolist() for name, column in ABOUT.items()}
    names = labels.CHESTXRAY14
    probabilities = predicted[[f"prob_{name}" for name in names]].to_numpy(float)
    own_auc = pd.read_csv(paths[1], index_col="label")["auc"].to_dict()
    patient_ids = rows["Patient ID"].to_numpy()
    scored = _predictions(predicted.index, patient_ids, names, targets, probabilities)
    return Released(scored, about=about, own_auc=own_auc)


def patients(studies: pd.Index) -> np.ndarray:
    """Return the patient in each path of CheXpert, such as patient64741/study1."""
    names: np.ndarray = studies.str.extract(r"(patient\d+)", expand=False).to_numpy()
    return names


def _predictions(
    ids: Any, patient_ids: Any, names: Any, targets: np.ndarray, probabilities: np.ndarray
) -> Predictions:
    """Return the predictions of one model as one member."""
    arrays = np.asarray(ids), patient_ids, np.asarray(names), targets, probabilities[None]
    return Predictions(*arrays, meta={})


def find(paper: str, folder: Path, name: str = "") -> list[Path]:
    """Return the paths of the paper's files below `folder`, in the order of released.toml.

    Only the files called `name` are searched, if it is given.
    """
    if not folder.is_dir():
        raise EvaluationError(f"There is no folder {folder}. {_how_to_get(paper, folder)}")
    csvs = sorted(path for path in folder.rglob("*.csv") if path.is_file())
    names = [Path(file).name for file in SOURCES[paper].files]
    paths, missing, changed = [], [], []
    for file, expected in SOURCES[paper].files.items():
        released_as = Path(file).name
        if name not in ("", released_as):
            continue
        named = [path for path in csvs if path.name.endswith(released_as)]
        digests = {path: safefiles.sha256(path) for path in named}
        others = [path for path, digest in digests.items() if digest not in KNOWN]
        matches = [path for path, digest in digests.items() if digest == expected]
        if matches:
            paths.append(matches[0])
        elif others:
            changed.append(f"{others[0]} (SHA-256 {digests[others[0]][:12]}…)")
        else:
            missing.append(file if names.count(released_as) > 1 else released_as)
    if changed:
        raise EvaluationError(
            f"Not the file that was released: {', '.join(changed)}. It may be another version, a "
            "broken download, or have changed line endings; fetch it again. "
            f"{_how_to_get(paper, folder)}"
        )
    if missing:
        raise EvaluationError(f"{folder} lacks {', '.join(missing)}. {_how_to_get(paper, folder)}")
    return paths


def _how_to_get(paper: str, folder: Path) -> str:
    advice = "Add --download to fetch it. " if SOURCES[paper].repository else ""
    return advice + _by_hand(paper, folder)


def _by_hand(paper: str, folder: Path) -> str:
    source = SOURCES[paper]
    if source.page:
        return f"The files are free at {source.page}; put both folders into {folder}."
    listed = "".join(f"\n  {path}\n    SHA-256 {sha}" for path, sha in source.files.items())
    return (
        f"Without a network, put these files of github.com/{source.repository} anywhere in "
        f"{folder}:{listed}"
    )


def download(paper: str, folder: Path, base_url: str | None = None) -> None:
    """Fetch the paper's files that `folder` lacks; resume a file that was interrupted."""
    source = SOURCES[paper]
    if base_url:
        downloads.check_base_url(base_url)
    by_hand = _by_hand(paper, folder)
    for path, expected in source.files.items():
        url = (base_url or source.base_url).rstrip("/") + "/" + path
        downloads.fetch(url, folder / path, expected, by_hand)
