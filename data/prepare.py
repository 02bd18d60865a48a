"""Decode every image once into a folder of uint8 shards, so that later epochs never decode.

A shard is written whole or not at all, and its name holds a hash of its settings and of its
sources' sizes and times. An interrupted run therefore keeps its finished shards, a changed source
invalidates its own shard only, and a partly written file is never read. A note beside each shard
holds its checksum and a hash of its pixels: a damaged shard is prepared again, and equal pixels
give an equal fingerprint whatever the files' times. Threads share the work, because OpenCV decodes
outside the interpreter lock.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

import safefiles
from data import BadImage, DataError, containers, template_crop
from data.cache import VERSION, damaged_shards, fingerprint, index_checksum, is_whole
from data.images import read_sized
from data.progress import with_progress

_NOTE = ".json"  # suffix of a shard's note: checksum, hash of the pixels, corrupt images
_OWN = re.compile(r"\d{5}-[0-9a-f]{12}\.npy(\.json)?|corrupt\.csv")  # files that may be deleted


def prepare(
    root,
    image_paths: Iterable[str],
    cache_dir,
    size: int,
    template: np.ndarray | None = None,
    *,
    skip_corrupt: bool = False,
    workers: int | None = None,
    progress: bool = True,
    shard_images: int = 1024,
) -> Path:
    """Return the finished cache folder of images (paths relative to root) at size x size.

    With a template, crop each image where it matches the template best. Raise a DataError if an
    image cannot be read or is unlike a radiograph, unless `skip_corrupt`.
    """
    root, paths = Path(root).resolve(), [str(path) for path in image_paths]
    sources = _sources(root, paths)
    settings = {
        "version": VERSION,
        "size": size,
        "template": None if template is None else template_crop.digest(template),
        "shard_images": shard_images,
    }
    stored = size if template is None else len(template)
    folder = Path(cache_dir) / f"{size}px-{_digest(settings, str(root), paths)}"
    shards = [
        Shard(k, paths[at : at + shard_images], stored, sources[at : at + shard_images], settings)
        for k, at in enumerate(range(0, len(paths), shard_images))
    ]

    def decode(path: str) -> tuple[np.ndarray, int] | str:
        try:
            image, side = read_sized(root / path, size, radiograph=True)
        except BadImage as error:
            return error.reason
        return image if template is None else template_crop.crop(image, template), side

    waiting = f"Another process is preparing {folder}; waiting for it."
    try:
        with safefiles.lock(folder.parent / f".{folder.name}.lock", waiting), _one_thread_each():
            folder.mkdir(parents=True, exist_ok=True)
            safefiles.remove_parts(folder)
            missing = _missing(folder, shards)
            _write(folder, missing, len(paths), decode, workers, progress)
            facts = {**settings, "size": stored, "resized": size, "sources": sources}
            _finish(folder, shards, paths, facts, skip_corrupt)
    except OSError as error:
        raise safefiles.cannot_write(folder, error) from error
    return folder


class Shard:
    """Consecutive images that are stored in one file."""

    def __init__(self, number: int, paths: list[str], size: int, sources: list, settings: dict):
        self.paths, self.size, self.resized = paths, size, settings["size"]
        self.name = f"{number:05d}-{_digest(settings, paths, sources)}.npy"

    def write(self, folder: Path, decoded: Iterator[tuple[np.ndarray, int] | str]) -> None:
        """Write this shard from a stream of images and the shorter sides of their sources.

        A corrupt image comes as the reason; it is noted and stored as black.
        """
        corrupt, black = {}, np.zeros((self.size, self.size), np.uint8)
        sides: list[int] = []
        header = _header((len(self.paths), self.size, self.size))
        checksum, pixels = zlib.crc32(header), hashlib.sha256()
        with safefiles.whole(folder / self.name) as partial, partial.open("wb") as file:
            file.write(header)
            for path in self.paths:
                result = next(decoded)
                if isinstance(result, str):
                    corrupt[path], image = result, black
                else:
                    image, side = result
                    sides.append(side)
                checksum = zlib.crc32(image.data, checksum)
                pixels.update(image.data)
                file.write(image.data)
            file.flush()
            # the note is written before the shard, because a shard without a note is unfinished
            note = {"crc32": checksum, "pixels": pixels.hexdigest(), "corrupt": corrupt}
            note["enlarged"] = sum(side < self.resized for side in sides)
            note["shortest"] = min(sides, default=0)
            note["check"] = _digest(note)
            safefiles.write(folder / (self.name + _NOTE), json.dumps(note))

    def note(self, folder: Path) -> dict | None:
        """Return the note of a finished shard; None if it is not finished."""
        if not is_whole(folder / self.name, len(self.paths), self.size):
            return None
        try:
            note = json.loads((folder / (self.name + _NOTE)).read_text())
            return note if note.pop("check") == _digest(note) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


def _missing(folder: Path, shards: list[Shard]) -> list[Shard]:
    """Return the shards to prepare; print a message if some of them were finished before."""
    notes = [shard.note(folder) for shard in shards]
    finished = [shard for shard, note in zip(shards, notes, strict=True) if note]
    damaged = damaged_shards(
        [folder / shard.name for shard in finished], [note["crc32"] for note in notes if note]
    )
    intact = {shard.name for shard in finished} - {finished[position].name for position in damaged}
    missing = [shard for shard in shards if shard.name not in intact]
    lost = [shard.name for shard in missing if shard.name in _finished_before(folder)]
    if lost:
        print(
            f"{len(lost)} of {len(shards)} shards of the image cache {folder} are damaged or gone "
            f"(the first: {lost[0]}); their images are prepared again.",
            file=sys.stderr,
            flush=True,
        )
    return missing


def _finished_before(folder: Path) -> set[str]:
    """Return the names of the shards that were once finished: those indexed or with a file."""
    names = {path.name for path in folder.glob("*.npy")}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        index = json.loads((folder / "index.json").read_text())
        names |= {shard["name"] for shard in index["shards"]}
    return names


def _write(folder, missing: list[Shard], total: int, decode: Callable, workers, show: bool) -> None:
    """Decode and write the missing shards; raise a DataError if the disk is too small for them."""
    paths = [path for shard in missing for path in shard.paths]
    if not paths:
        return
    needed = len(paths) * missing[0].size ** 2
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"The image cache {folder} needs {needed / 1e9:.1f} GB more and its disk has "
            f"{free / 1e9:.1f} GB free; free some space or choose another cache folder."
        )
    workers = workers or len(os.sched_getaffinity(0))
    pool = ThreadPoolExecutor(workers)
    try:
        decoded = in_order(pool, decode, paths, ahead=32 * workers)
        counted = with_progress(decoded, "prepare", total, done=total - len(paths), show=show)
        with contextlib.closing(counted):
            for shard in missing:
                shard.write(folder, counted)
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(folder, shards, paths, facts: dict, skip_corrupt: bool) -> None:
    """Write the index, which makes the cache readable, and delete outdated shards.

    `facts` go into the index: the settings, and the bytes and modification time (ns) per source.
    """
    notes = [shard.note(folder) for shard in shards]
    if not all(notes):
        raise DataError(f"Files of {folder} were deleted during preparation; run again.")
    corrupt = {path: reason for note in notes for path, reason in note["corrupt"].items()}
    if corrupt and not skip_corrupt:
        raise _corrupt_error(folder / "corrupt.csv", corrupt, len(paths))
    if len(corrupt) == len(paths):
        first = paths[0]
        raise DataError(f"None of the {len(paths)} images can be used: {first} {corrupt[first]}.")
    index = {
        **facts,
        "shards": [
            {"name": shard.name, "crc32": note["crc32"], "pixels": note["pixels"]}
            for shard, note in zip(shards, notes, strict=True)
        ],
        "enlarged": sum(note["enlarged"] for note in notes),
        "shortest": min((note["shortest"] for note in notes if note["shortest"]), default=0),
        "skipped": corrupt,
        "paths": paths,
    }
    index["fingerprint"] = fingerprint(index)
    index["check"] = index_checksum(index)
    text = json.dumps(index).encode()
    index_file = folder / "index.json"
    if not index_file.is_file() or index_file.read_bytes() != text:
        safefiles.write(index_file, text)
    names = {shard.name for shard in shards}
    kept = names | {name + _NOTE for name in names}
    for path in folder.iterdir():
        if path.name not in kept and _OWN.fullmatch(path.name) and path.is_file():
            path.unlink()


def _corrupt_error(listing: Path, corrupt: dict[str, str], total: int) -> DataError:
    """Write the list of all corrupt images; return the error that names the first five."""
    lines = ["image_path,reason"]
    lines += [f"{_quoted(path)},{_quoted(reason)}" for path, reason in corrupt.items()]
    safefiles.write(listing, "\n".join(lines) + "\n")
    first = "; ".join(f"{path} {reason}" for path, reason in list(corrupt.items())[:5])
    return DataError(
        f"{len(corrupt)} of {total} images cannot be used: {first}"
        f"{'; …' if len(corrupt) > 5 else ''}. All are listed in {listing}. Replace them, or "
        "leave them out with --skip-corrupt."
    )


def _header(shape: Sequence[int]) -> bytes:
    """Return the header of a .npy file of uint8 images."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    )
    return file.getvalue()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _sources(root: Path, paths: list[str]) -> list[tuple[int, int]]:
    """Return (bytes, modification time in ns) per source; raise a DataError if one is absent."""
    if not paths:
        raise DataError(f"There are no images to prepare in {root}.")
    if len(set(paths)) < len(paths):
        raise DataError(f"{len(paths) - len(set(paths))} images of {root} are listed twice.")
    sources, missing = [], []
    for path in paths:
        inside = containers.split(root / path)
        try:
            status = os.stat(inside[0] if inside else root / path)
        except OSError:
            missing.append(path)
        else:
            sources.append((status.st_size, status.st_mtime_ns))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} images are not in {root}: "
            f"{', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}. Get them, or pass "
            "--allow-missing to go on without them."
        )
    return sources


def _digest(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _one_thread_each():
    """Limit OpenCV to one thread per call, because our threads already share the images."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def in_order(pool, function: Callable, items: Iterable, ahead: int) -> Iterator:
    """Yield results in the order of the items, with at most `ahead` of them submitted."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
