"""Read and write `predictions.npz`, the boundary between networks and numbers.

The file contains ids, patients, labels, targets (0, 1 or NaN), probabilities with a leading axis of
members (ensemble, test-time draws or Monte-Carlo passes; one for a plain network), and a digest of
all of them. Damaged, incomplete or inconsistent files raise EvaluationError.

Probabilities are float64, so that they differ wherever float32 logits differ, up to logits of about
24. As float32, neighbouring logits would tie from 3 on, and all would be 1 above 17.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import safefiles
from evaluation import EvaluationError, Names

VALIDATION = "validation.npz"  # predictions on a run's validation images, for thresholds
DIGEST = "digest"  # name of the array with `content_digest` of all others
WHAT_TO_DO = "If a run wrote it, delete it and rerun the command"


class Predictions(NamedTuple):
    ids: np.ndarray  # (images,)
    patients: np.ndarray  # (images,)
    labels: np.ndarray  # (labels,)
    targets: np.ndarray  # (images, labels) float32, NaN where unknown
    probabilities: np.ndarray  # (members, images, labels) float64
    meta: dict

    @property
    def mean(self) -> np.ndarray:
        """Return the mean over members, (images, labels), which is scored."""
        return self.probabilities.mean(axis=0)


def pooled(predictions: Predictions, units: Sequence[str], pool: Callable = np.mean) -> Predictions:
    """Return one prediction per unit, such as a study: the mean (or `pool`) of its images."""
    names, first, unit = np.unique(np.asarray(units, str), return_index=True, return_inverse=True)
    truth = predictions.targets
    if not np.array_equal(truth, truth[first][unit], equal_nan=True):
        raise EvaluationError("The images of a study have different truths; score them one by one.")
    images = [np.flatnonzero(unit == each) for each in range(len(names))]
    probabilities = [pool(predictions.probabilities[:, each], axis=1) for each in images]
    return predictions._replace(
        ids=names,
        patients=predictions.patients[first],
        targets=truth[first],
        probabilities=np.stack(probabilities, axis=1),
    )


def save(path: str | Path, predictions: Predictions) -> None:
    """Write a predictions file atomically; raise EvaluationError if `load` would refuse it."""
    arrays: dict[str, Any] = {
        "ids": np.asarray([str(each) for each in predictions.ids]),
        "patients": np.asarray([str(each) for each in predictions.patients]),
        "labels": np.asarray([str(each) for each in predictions.labels]),
        "targets": np.asarray(predictions.targets, np.float32),
        "probabilities": np.asarray(predictions.probabilities, np.float64),
        "meta": np.asarray(json.dumps(predictions.meta)),
    }
    if problem := _problem(arrays):
        raise EvaluationError(f"These predictions are not written to {path}: {problem}.")
    arrays[DIGEST] = np.asarray(content_digest(arrays))
    with safefiles.whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load(path: str | Path, *, require_digest: bool = False) -> Predictions:
    """Read a predictions file; raise EvaluationError if anything is wrong with it.

    A digest in the file is always checked. `require_digest` also refuses files without one: the
    engine sets it, while scoring reads older and foreign files too.
    """
    arrays = _read(Path(path))
    if DIGEST not in arrays and require_digest:
        raise _refusal(path, "it has no digest, so an older version or another program wrote it")
    if DIGEST in arrays and str(arrays[DIGEST]) != content_digest(arrays):
        raise _refusal(path, "its content does not match its digest: it was changed or damaged")
    if problem := _problem(arrays):
        raise _refusal(path, problem)
    return Predictions(
        ids=arrays["ids"].astype(str),
        patients=arrays["patients"].astype(str),
        labels=arrays["labels"],
        targets=arrays["targets"].astype(np.float32),
        probabilities=arrays["probabilities"].astype(np.float64),
        meta=json.loads(str(arrays["meta"])),
    )


def content_digest(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of the arrays of a predictions file and their types, uncompressed."""
    total = hashlib.sha256()
    for name in Predictions._fields:
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def truth_digest(ids: Names, targets: np.ndarray, labels: Names) -> str:
    """Return the SHA-256 of what predictions are scored against: images, labels and targets.

    The order of the labels matters; that of the images does not.
    """
    images, targets = np.asarray([str(each) for each in ids]), np.asarray(targets, np.float32)
    order = np.argsort(images, kind="stable")
    known = np.where(np.isnan(targets), -1, targets).astype("<f4")[order]
    names = json.dumps([[str(each) for each in labels], images[order].tolist()])
    return hashlib.sha256(names.encode() + np.ascontiguousarray(known).tobytes()).hexdigest()


def _refusal(path: str | Path, problem: str) -> EvaluationError:
    return EvaluationError(f"{path} is no predictions file of this suite: {problem}. {WHAT_TO_DO}.")


def _read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file; each is checked against its CRC before NumPy reads it."""
    if not path.exists():
        raise EvaluationError(f"There is no predictions file {path}; check the path.")
    if not path.is_file():
        raise EvaluationError(f"{path} is not a file; name a predictions.npz.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = {*archive.namelist()}
            wanted = [name for name in (*Predictions._fields, DIGEST) if f"{name}.npy" in names]
            stored = {name: archive.read(f"{name}.npy") for name in wanted}
        arrays = {
            name: np.load(io.BytesIO(content), allow_pickle=False)
            for name, content in stored.items()
        }
    except PermissionError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror}).") from error
    except (*safefiles.DAMAGED_ARCHIVE, MemoryError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise _refusal(path, f"it is damaged, or another kind of file ({reason})") from error
    if missing := [name for name in Predictions._fields if name not in arrays]:
        raise _refusal(path, f"it lacks {', '.join(missing)}")
    return arrays


def _problem(arrays: dict[str, np.ndarray]) -> str:
    """Return why the arrays are not valid predictions; empty if they are."""
    return _wrong_types(arrays) or _wrong_shapes(arrays) or _wrong_values(arrays)


def _wrong_types(arrays: dict[str, np.ndarray]) -> str:
    texts, numbers = ("text", "U"), ("numbers", "biuf")
    kinds = {
        "ids": ("text or whole numbers", "Uiu"),
        "patients": ("text or whole numbers", "Uiu"),
        "labels": texts,
        "targets": numbers,
        "probabilities": ("numbers with decimals", "f"),
        "meta": texts,
    }
    for name, (words, allowed) in kinds.items():
        if arrays[name].dtype.kind not in allowed:
            return f"its {name} are of the type {arrays[name].dtype} where {words} should be"
    return ""


def _wrong_shapes(arrays: dict[str, np.ndarray]) -> str:
    for name, dimensions in (("ids", 1), ("labels", 1), ("probabilities", 3), ("meta", 0)):
        if arrays[name].ndim != dimensions:
            return f"its {name} have {arrays[name].ndim} dimensions instead of {dimensions}"
    images, labels = len(arrays["ids"]), len(arrays["labels"])
    members = len(arrays["probabilities"])
    if not (images and labels and members):
        return f"it has {images} images, {labels} labels and {members} members; none may be 0"
    expected = {
        "patients": (images,),
        "targets": (images, labels),
        "probabilities": (members, images, labels),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            return (
                f"its {name} have the shape {arrays[name].shape} instead of {shape} for "
                f"{images} ids and {labels} labels"
            )
    return ""


def _wrong_values(arrays: dict[str, np.ndarray]) -> str:
    for name in ("ids", "labels"):
        values, counts = np.unique(arrays[name], return_counts=True)
        if len(twice := values[counts > 1]):
            return f"its {name} contain {str(twice[0])!r} more than once"
    targets, probabilities = arrays["targets"].astype(float), arrays["probabilities"]
    odd = ~((targets == 0) | (targets == 1) | np.isnan(targets))
    if odd.any():
        return f"{odd.sum()} targets are not 0, 1 or NaN, such as {targets[odd][0]:g}"
    odd = ~((probabilities >= 0) & (probabilities <= 1))  # NaN as well
    if odd.any():
        return (
            f"{odd.sum():,} of {odd.size:,} probabilities are NaN or outside [0, 1], such as "
            f"{probabilities[odd][0]:g}"
        )
    try:
        meta = json.loads(str(arrays["meta"]))
    except (ValueError, RecursionError) as error:
        return f"its meta is not JSON ({error})"
    return "" if isinstance(meta, dict) else "its meta is not a JSON object"
