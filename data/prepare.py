"""Decode every image once into a folder of uint8 shards, so that later passes never decode.

Shards are written under a temporary name and renamed when whole, and a shard's name carries a hash
of its settings and of its sources' sizes and times. So a killed run resumes with the shards that it
finished, a changed source redoes its shard only, and nothing half-written is ever read. Threads do
the work: OpenCV decodes outside the interpreter lock, and none outlives a killed run.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from data import DataError, template_crop
from data.cache import VERSION, is_whole
from data.images import BadImage, read_gray
from data.progress import shown

_TEMPORARY = ".tmp"
_CORRUPT = ".corrupt.json"  # beside a shard: what in it could not be read, and why


def prepare(
    root,
    image_paths: Iterable[str],
    cache_dir,
    size: int,
    template: np.ndarray | None = None,
    skip_corrupt: bool = False,
    workers: int | None = None,
    progress: bool = True,
    shard_images: int = 1024,
) -> Path:
    """Return the finished cache folder of images (paths relative to root) at size x size.

    With a template, each image is cropped to the template's size where it matches best.
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

    def decode(path: str) -> np.ndarray | str:
        try:
            image = read_gray(root / path, size)
        except BadImage as error:
            return error.reason
        return image if template is None else template_crop.crop(image, template)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder), _one_thread_each():
            _write_missing(
                folder, shards, decode, workers or len(os.sched_getaffinity(0)), progress
            )
            _finish(folder, shards, paths, sources, settings, stored, skip_corrupt)
    except OSError as error:
        raise DataError(
            f"Cannot write the image cache {folder}: {error.strerror}. Free some space or choose "
            "another cache folder, and run again: finished shards are kept."
        ) from error
    return folder


class Shard:
    """A run of consecutive images that is written, and found again, as one file."""

    def __init__(self, number: int, paths: list[str], size: int, sources: list, settings: dict):
        self.paths, self.size = paths, size
        self.name = f"{number:05d}-{_digest(settings, paths, sources)}.npy"

    def is_done(self, folder: Path) -> bool:
        return is_whole(folder / self.name, len(self.paths), self.size)

    def write(self, folder: Path, decoded: Iterator[np.ndarray | str]) -> None:
        """Take this shard's images from the stream; a corrupt one becomes black and is noted."""
        corrupt, black = {}, np.zeros((self.size, self.size), np.uint8)
        header = {"descr": "|u1", "fortran_order": False}
        header["shape"] = (len(self.paths), self.size, self.size)
        with _atomic(folder / self.name) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for path in self.paths:
                image = next(decoded)
                if isinstance(image, str):
                    corrupt[path], image = image, black
                file.write(image.data)
            if corrupt:  # renamed into place before the shard: a shard without it has none
                with _atomic(folder / (self.name + _CORRUPT)) as note:
                    note.write(json.dumps(corrupt).encode())

    def corrupt(self, folder: Path) -> dict[str, str]:
        note = folder / (self.name + _CORRUPT)
        return json.loads(note.read_text()) if note.exists() else {}


def _write_missing(folder: Path, shards: list[Shard], decode: Callable, workers: int, show: bool):
    for leftover in folder.glob("*" + _TEMPORARY):
        leftover.unlink()
    missing = [shard for shard in shards if not shard.is_done(folder)]
    paths = [path for shard in missing for path in shard.paths]
    if not paths:
        return
    needed = len(paths) * shards[0].size ** 2
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"The image cache {folder} needs {needed / 1e9:.1f} GB more and its disk has "
            f"{free / 1e9:.1f} GB free; make room or choose another cache folder."
        )
    done = sum(len(shard.paths) for shard in shards) - len(paths)
    pool = ThreadPoolExecutor(workers)
    try:
        decoded = _in_order(pool, decode, paths, ahead=32 * workers)
        counted = shown(decoded, "prepare", done + len(paths), done, show)
        with contextlib.closing(counted):
            for shard in missing:
                shard.write(folder, counted)
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(folder, shards, paths, sources, settings, stored: int, skip_corrupt: bool) -> None:
    """Write the index, which makes the cache readable, and drop the files of former sources."""
    corrupt = {path: why for shard in shards for path, why in shard.corrupt(folder).items()}
    listing = folder / "corrupt.csv"
    if corrupt and not skip_corrupt:
        with _atomic(listing) as file:
            lines = [",".join(("image_path", "reason"))]
            lines += [f"{_quoted(path)},{_quoted(why)}" for path, why in corrupt.items()]
            file.write(("\n".join(lines) + "\n").encode())
        first = "; ".join(f"{path} {why}" for path, why in list(corrupt.items())[:5])
        raise DataError(
            f"{len(corrupt)} of {len(paths)} images cannot be used: {first}"
            f"{'; …' if len(corrupt) > 5 else ''}. All are listed in {listing}. Replace them, or "
            "leave them out with --skip-corrupt."
        )
    index = {
        **settings,
        "size": stored,
        "resized": settings["size"],
        "shards": [shard.name for shard in shards],
        "skipped": corrupt,
        "paths": paths,
        "sources": sources,  # bytes and modification time (ns) of each
    }
    text = json.dumps(index).encode()
    if not (folder / "index.json").exists() or (folder / "index.json").read_bytes() != text:
        with _atomic(folder / "index.json") as file:
            file.write(text)
    names = {shard.name for shard in shards}
    kept = names | {name + _CORRUPT for name in names} | {"index.json"}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _sources(root: Path, paths: list[str]) -> list[tuple[int, int]]:
    """Size in bytes and modification time in ns of every source."""
    if not paths:
        raise DataError(f"There are no images to prepare in {root}.")
    if len(set(paths)) < len(paths):
        raise DataError(f"{len(paths) - len(set(paths))} images of {root} are listed twice.")
    found, missing = [], []
    for path in paths:
        try:
            status = os.stat(root / path)
        except OSError:
            missing.append(path)
        else:
            found.append((status.st_size, status.st_mtime_ns))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} images are not in {root}: "
            f"{', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}."
        )
    return found


def _digest(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _atomic(path: Path):
    """A file that appears under its name only when it is whole and on the disk."""
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def _alone(folder: Path):
    """Hold the folder's lock, which the kernel frees however a process ends."""
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is preparing {folder}; waiting for it.", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _one_thread_each():
    """The images are spread over threads already; OpenCV's own would only get in their way."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _in_order(pool, function: Callable, items: Iterable, ahead: int) -> Iterator:
    """Results in the order of items, with at most `ahead` of them under way or waiting."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
