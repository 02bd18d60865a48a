"""What authors released with their papers: which files they are, fetched where missing, and read.

Every file is known by its SHA-256, so a number made from it can only be about that file.
"""

import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

import safefiles
from data import chestxray14, labels
from evaluation import EvaluationError, predictions
from evaluation.predictions import Predictions

if TYPE_CHECKING:
    from reproduce.engine.rows import Run

CHUNK = 1 << 16
TIMEOUT = 30  # seconds without a byte
NETWORK_ERRORS = (
    *(urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError),
    *(ssl.SSLError, ValueError),  # the latter: an address that cannot be taken apart
)


class File(NamedTuple):
    path: str  # in the authors' repository
    sha256: str


class Source(NamedTuple):
    repository: str  # on github.com; for a person's download where there is no commit
    commit: str
    files: tuple[File, ...]
    licence: str

    @property
    def base_url(self) -> str:
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/"


NO_LICENCE = "none in the repository; the terms of CheXpert (Stanford AIMI) apply to its labels"

SOURCES = {
    "pham2019": Source(
        "rajpurkarlab/cheXpert-test-set-labels",
        "a03eb3438ca55c28eb4379dd0dd09e3b38c0c414",
        (
            File(
                "groundtruth.csv",
                "307325997d3260cf2a08b7d6314bb5707391fa255cf83cd9427f6d49b15867c0",
            ),
            File(
                "example_models/predictions/standard/hieupham_predictions.csv",
                "2a4bcc8e29aabd358b74b3205bf4ba3608ab69ac9a865f270d3025f38a096c9f",
            ),
            File(
                "radiologists/benchmark_radiologists/bc4.csv",
                "e38937132ea0b2f179ad39c72023966b9a93f5d0621537b85f10be3e45076c17",
            ),
            File(
                "radiologists/benchmark_radiologists/bc6.csv",
                "d16737506085753bc2e074bf6aaedada60cfb94f1a43f4fc54064607e2ad9dce",
            ),
            File(
                "radiologists/benchmark_radiologists/bc8.csv",
                "90bd6f9454d4904d248c214d57a62f613b7d481e7d9f0381f5032232a316a7b9",
            ),
        ),
        NO_LICENCE,
    ),
    "asadi2025": Source(
        "the-mercury/CIHMLC",
        "08c0102bbf829d34b701ebc18708c384424ff5fd",
        (
            File(
                "default_model_files/test_predictions/"
                "default_model_predictions_vs_groundtruth_with_errors.csv",
                "b7f21b58b6261fc0ae03df73bb42678c6499ffc460a3acdee88d5c4e9dd53a14",
            ),
        ),
        "MIT",
    ),
    "zech2018": Source(
        "jrzech/reproduce-chexnet",
        "a011a9ab108cb03a533aeab52dc934b02a823ac8",
        (
            File(
                "pretrained/preds.csv",
                "303332d593f56dc3c8191f2a903f09043c93f7205179d03189f3eaaf6247ad40",
            ),
            File(
                "pretrained/aucs.csv",
                "281cd22d37290a1a799ea79d311007d6f45bfc324dc9fabddbc1ae3e057cf337",
            ),
        ),
        "BSD-3-Clause, Copyright (c) 2018, John Zech",
    ),
    "experts": Source(
        "",
        "",
        (
            File(
                "all_findings_expert_labels/test_labels.csv",
                "2602080132c8a2366ff428adfef98b79c809f5be8cfcde9cc237c62561c7ae40",
            ),
            File(
                "all_findings_expert_labels/test_individual_readers.csv",
                "e6193ea748d66857ea2db11765c961eb1f8b21829df73dc9dfc11e9c63caa16c",
            ),
            File(
                "four_findings_expert_labels/test_labels.csv",
                "11de130facbebf91ffb0a08225bf7823747255fecacdef2fc84bead5d08b309c",
            ),
            File(
                "four_findings_expert_labels/validation_labels.csv",
                "d52d29031684e67e7f06bfdd2b9aa9187dd23c945356111ade1ad8c755a4ed1f",
            ),
            File(
                "four_findings_expert_labels/individual_readers.csv",
                "d91c58ba1fd6a97cdc59dd37e47500f6a7c243e9a593855ab9aa519baf657bd6",
            ),
        ),
        "research and education only, with citation of Majkowska et al., Radiology 2020 (four "
        "findings) and Nabulsi et al., Scientific Reports 2021 (all findings)",
    ),
}
EXPERTS_FROM = (
    "the Google Cloud bucket gcs-public-data--healthcare-nih-chest-xray-labels (see "
    "cloud.google.com/healthcare-api/docs/resources/public-datasets/nih-chest#additional_labels)"
)

PHAM_FILE = "hieupham"
MODELS = {  # of the CheXpert leaderboard, in the same repository and commit as Pham's
    "desmond": "62e46bfefe05b8fe3a7c44f5c090a858d9790adf819a26583a666fea69473ba2",
    "drnet": "23e41262846ddef569182e1be90ed43a33694df772c3c97061545ee6af6e666d",
    PHAM_FILE: "2a4bcc8e29aabd358b74b3205bf4ba3608ab69ac9a865f270d3025f38a096c9f",
    "ihil": "f9e308f444711e8ae7cc13bb3911c965bacffc0bb5c2148644917d7f3aace2ce",
    "jfaboy": "0d81be5c2d2fdbdbaf1db763657f2c2d4d9ad5629f682c100818794a4fd85425",
    "ngango2": "b728649449c8e60a9d120bd415cf4b6c8579600667fe90ec72a2f352f8d5cf1d",
    "ngango3": "ad35c236742b81d4301203b4167771de76bf34a793251566ac33aa033a52e522",
    "sensexdr": "ad07189095c6f758ca93bc1648ad6030638a6c631e3f7bd479606c76cb38a658",
    "uestc": "3998f8948c602dbdfe9d4f17bc37336120f501b0167845487a516c23bd217e7b",
    "yww211": "18645ac8ab3e58d2f22ba1109f8a0fff99fbc0c5208dd7a38a0cb68c6123e38f",
}
MODELS_FOLDER = "example_models/predictions/standard"
SOURCES["leaderboard"] = SOURCES["pham2019"]._replace(
    files=(
        SOURCES["pham2019"].files[0],
        *(File(f"{MODELS_FOLDER}/{name}_predictions.csv", sha) for name, sha in MODELS.items()),
    )
)


class Released(NamedTuple):
    """What a paper's authors released on a test set."""

    predictions: Predictions  # of images or studies, with their truth
    decisions: dict[str, np.ndarray]  # radiologist -> 0/1 like the targets, where there are any
    about: dict[str, list[str]] = {}  # noqa: RUF012 - sex, age, view of each image, where known
    own_auc: dict[str, float] = {}  # noqa: RUF012 - by label, as the authors computed it


def read(paper: str, folder: Path, label_file: Path | None = None) -> Released:
    """The paper's released predictions from the files somewhere in `folder`.

    Those of zech2018 need the label file of ChestX-ray14, which the NIH provides.
    """
    paths = find(paper, folder)
    if paper == "zech2018":
        return _read_zech(paths, label_file or find_label_file(folder))
    return {"pham2019": _read_pham, "asadi2025": _read_asadi}[paper](paths)


def find_label_file(folder: Path) -> Path:
    """ChestX-ray14's label file anywhere below a folder, the corrected version first.

    Of several the largest: a part of the dataset comes with a shorter one.
    """
    for name in chestxray14.LABEL_FILES:
        if paths := [path for path in sorted(folder.rglob(f"{name}*")) if path.is_file()]:
            return max(paths, key=lambda path: path.stat().st_size)
    raise EvaluationError(
        f"{folder} has no {chestxray14.LABEL_FILES[0]} (or .csv.gz), which holds the truth of "
        "ChestX-ray14; get it from https://nihcc.app.box.com/v/ChestXray-NIHCC, or name it with "
        "--truth FILE."
    )


def as_run(paper: str, released_folder: Path, run_folder: Path, name: str) -> "Run":
    """The authors' own predictions as a finished row, to stand in a table beside trained ones."""
    from reproduce.engine.rows import Combined, Run  # imports OpenCV, which re-scoring needs not

    theirs = read(paper, released_folder).predictions
    row = Combined(name, (), note="released by the authors, not trained")
    theirs = theirs._replace(ids=np.arange(len(theirs.ids)), meta={"row": row.name})
    predictions.save(run_folder / "predictions.npz", theirs)
    return Run(row, 0, run_folder, {})


def label_file_of(folder: Path) -> Path:
    """The label file directly in the folder of ChestX-ray14."""
    names = [name + ending for name in chestxray14.LABEL_FILES for ending in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise EvaluationError(
        f"{folder} has no {names[0]} (or .gz); give the folder with ChestX-ray14's label file."
    )


def _read_pham(paths: list[Path]) -> Released:
    truth, predicted, *decisions = (pd.read_csv(path, index_col="Study") for path in paths)
    names = [*labels.CHEXPERT_COMPETITION]
    probabilities, *readers = (
        frame.loc[truth.index, names].to_numpy(float) for frame in (predicted, *decisions)
    )
    patients = truth.index.str.extract(r"(patient\d+)", expand=False).to_numpy()
    by_name = dict(zip((path.stem for path in paths[2:]), readers, strict=True))
    targets = truth[names].to_numpy(float)
    return Released(_predictions(truth.index, patients, names, targets, probabilities), by_name)


def _read_asadi(paths: list[Path]) -> Released:
    frame = pd.read_csv(paths[0], index_col="Path")
    targets, probabilities = (
        frame[[f"{label}_{kind}" for label in labels.ASADI]].to_numpy(float)
        for kind in ("GT", "Pred")
    )
    patients = frame.index.str.extract(r"(patient\d+)", expand=False).to_numpy()
    return Released(_predictions(frame.index, patients, labels.ASADI, targets, probabilities), {})


def _read_zech(paths: list[Path], label_file: Path) -> Released:
    predicted = pd.read_csv(paths[0], index_col="Image Index")
    try:
        truth = pd.read_csv(label_file, index_col="Image Index", dtype=str)
        truth = truth.loc[predicted.index]
        findings, patients = truth["Finding Labels"].str.get_dummies("|"), truth["Patient ID"]
        columns = {"sex": "Patient Gender", "age": "Patient Age", "view": "View Position"}
        about = {name: truth[column].tolist() for name, column in columns.items()}
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(
            f"{label_file} is not ChestX-ray14's whole label file ({error}); get "
            f"{chestxray14.LABEL_FILES[0]} from the NIH."
        ) from error
    names = labels.CHESTXRAY14
    targets = findings.reindex(columns=list(names), fill_value=0).to_numpy(float)
    probabilities = predicted[[f"prob_{name}" for name in names]].to_numpy(float)
    made = _predictions(predicted.index, patients.to_numpy(), names, targets, probabilities)
    own_auc = pd.read_csv(paths[1], index_col="label")["auc"].to_dict()
    return Released(made, {}, about, own_auc)


def _predictions(ids, patients, names, targets, probabilities) -> Predictions:
    """Of one model, a member of its own."""
    arrays = np.asarray(ids), patients, np.asarray(names), targets, probabilities[None]
    return Predictions(*arrays, meta={})


def find(paper: str, folder: Path) -> list[Path]:
    """The paths of the released files in the order of SOURCES, anywhere below `folder`."""
    return _find(paper, SOURCES[paper].files, folder)


def _find(paper: str, wanted: tuple[File, ...], folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise EvaluationError(f"There is no folder {folder}. {_hint(paper, folder)}")
    paths, missing, changed = [], [], []
    for file in wanted:
        named_alike = folder.rglob(f"*{Path(file.path).name}")
        candidates = sorted(path for path in named_alike if path.is_file())
        match = next((path for path in candidates if safefiles.sha256(path) == file.sha256), None)
        if match:
            paths.append(match)
        elif candidates:
            changed.append(f"{candidates[0]} (SHA-256 {safefiles.sha256(candidates[0])[:12]}…)")
        else:
            missing.append(Path(file.path).name)
    if changed:
        raise EvaluationError(
            f"Not the file that was released: {', '.join(changed)}. Another version, a broken "
            f"download or changed line endings do this; fetch it again. {_hint(paper, folder)}"
        )
    if missing:
        raise EvaluationError(f"{folder} lacks {', '.join(missing)}. {_hint(paper, folder)}")
    return paths


def find_file(paper: str, name: str, folder: Path) -> Path:
    """One released file, anywhere below `folder`."""
    source = SOURCES[paper]
    only = tuple(file for file in source.files if Path(file.path).name == name)
    return _find(paper, only, folder)[0]


def _hint(paper: str, folder: Path) -> str:
    download_first = "Add --download to fetch it. " if SOURCES[paper].repository else ""
    return f"{download_first}{_by_hand(paper, folder)}"


def _by_hand(paper: str, folder: Path) -> str:
    """Which files to put where."""
    source = SOURCES[paper]
    if not source.repository:
        return f"The experts' labels are free at {EXPERTS_FROM}; put both folders into {folder}."
    listed = "".join(f"\n  {file.path}\n    SHA-256 {file.sha256}" for file in source.files)
    return (
        f"Without a network, put these files of github.com/{source.repository} anywhere in "
        f"{folder}:{listed}"
    )


def download(paper: str, folder: Path, base_url: str | None = None) -> None:
    """Fetch what is not there yet; an interrupted file goes on where it stopped."""
    source = SOURCES[paper]
    if base_url and not re.match(r"https?://[^/]", base_url):
        raise EvaluationError(
            f"--base-url {base_url} is no address; give one that begins with https:// or http://."
        )
    for file in source.files:
        target = folder / file.path
        if target.is_file() and safefiles.sha256(target) == file.sha256:
            continue
        url = (base_url or source.base_url).rstrip("/") + "/" + file.path
        print(f"fetching {url}", flush=True)
        try:
            _fetch(url, target, file.sha256)
        except NETWORK_ERRORS as error:
            reason = getattr(error, "reason", None) or error
            raise EvaluationError(
                f"{url} cannot be fetched ({reason}). {_by_hand(paper, folder)}"
            ) from error


def _fetch(url: str, target: Path, expected: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    _append(url, partial)
    if safefiles.sha256(partial) != expected:  # perhaps the old part was of another version
        partial.unlink()
        _append(url, partial)
    if (actual := safefiles.sha256(partial)) != expected:
        partial.unlink()
        raise EvaluationError(
            f"{url} has SHA-256 {actual} instead of {expected}: it is not the file that the "
            "authors released, so nothing was kept."
        )
    os.replace(partial, target)


def _append(url: str, partial: Path) -> None:
    """Fetch the rest of a partial file, or all of it where the server cannot say."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            with partial.open("ab" if resumed else "wb") as file:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
            expected = response.headers.get("Content-Length")
            received = partial.stat().st_size - (have if resumed else 0)
            if expected is not None and received < int(expected):
                raise http.client.IncompleteRead(b"", int(expected) - received)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # Nothing is left to fetch: the hash says whether the part is whole.
