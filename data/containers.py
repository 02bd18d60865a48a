"""Read images that lie inside one large file: a ZIP archive, an .npz or a Parquet file.

The path of such an image goes on behind the file's name:
    images_001.zip/images/00000001_000.png          a member of a ZIP archive
    chestmnist_64.npz/train/17/00000001_000.png     row 17 of the array train_images; its name, if
                                                    there is one, follows
    train-00000.parquet/17/00000001_000.png         row 17 of a Parquet file with images
ZIP archives are read at random, Parquet files a row group at a time. The arrays of an .npz are
compressed as a whole, so they are read from the first row to the last without holding more than a
few rows; reading backwards starts anew.
"""

import bisect
import functools
import itertools
import re
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

import safefiles
from data import BadImage, DataError

_INSIDE = re.compile(r"(.+?\.(?:zip|npz|parquet))/(.+)", re.IGNORECASE)
_ONE_GROUP = threading.Lock()  # threads that need one row group of a Parquet file read it once
_KEPT = 1 << 27  # bytes of rows that stay in memory, because threads ask slightly out of order


def split(path: str | Path) -> tuple[Path, str] | None:
    """Return (container, member) of an image inside a container; None for a file of its own."""
    match = _INSIDE.fullmatch(str(path))
    return (Path(match[1]), match[2]) if match and Path(match[1]).is_file() else None


def read(container: Path, member: str) -> bytes | np.ndarray:
    """Return the bytes of a member, or the pixels of a row; raise a BadImage if that fails."""
    try:
        changed = container.stat().st_mtime_ns
        if container.suffix.lower() == ".zip":
            return _archive(container, changed).read(member)
        if container.suffix.lower() == ".parquet":
            return _parquet_row(container, int(member.partition("/")[0]), changed)
        array, row = member.split("/")[:2]
        return _rows(container, f"{array}_images", changed).read(int(row))
    except KeyError as error:
        raise BadImage(container / member, "is not in this archive") from error
    except safefiles.DAMAGED_ARCHIVE as error:
        raise BadImage(container / member, f"cannot be read from its archive: {error}") from error


@functools.lru_cache(maxsize=64)
def _archive(path: Path, changed: int) -> zipfile.ZipFile:  # noqa: ARG001
    return zipfile.ZipFile(path)


def names(container: Path) -> list[str]:
    """Return the members of a ZIP archive or a Parquet file, as `read` takes them."""
    try:
        if container.suffix.lower() == ".zip":
            with zipfile.ZipFile(container) as archive:
                return archive.namelist()
        column = _parquet(container).read(columns=["image.path"]).column("image")
        paths = [each["path"] for each in column.to_pylist()]
    except safefiles.DAMAGED_ARCHIVE as error:
        raise DataError(
            f"{container} cannot be read ({error}): get it again, or move it away."
        ) from error
    if not all(paths):
        raise DataError(
            f"{container} has no names of its images in image.path, so their patients are unknown; "
            "use another copy of the dataset (docs/data.md)."
        )
    return [f"{row}/{Path(path).name}" for row, path in enumerate(paths)]


def _parquet(path: Path) -> Any:
    """Open a Parquet file; raise a DataError if pyarrow is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f'{path} needs pyarrow: run "$PYTHON" -m pip install pyarrow, or use another copy of '
            "the dataset (docs/data.md)."
        ) from error
    return pyarrow.parquet.ParquetFile(path)


def _parquet_row(path: Path, row: int, changed: int) -> bytes:
    ends = _ends_of_groups(path, changed)
    group = bisect.bisect_right(ends, row)
    first = ends[group - 1] if group else 0
    with _ONE_GROUP:
        content: bytes = _parquet_group(path, group, changed)[row - first]["bytes"]
    return content


@functools.lru_cache(maxsize=64)
def _ends_of_groups(path: Path, changed: int) -> list[int]:  # noqa: ARG001
    facts = _parquet(path).metadata
    sizes = (facts.row_group(group).num_rows for group in range(facts.num_row_groups))
    return [*itertools.accumulate(sizes)]


@functools.lru_cache(maxsize=2)
def _parquet_group(path: Path, group: int, changed: int) -> list[dict[str, Any]]:  # noqa: ARG001
    images: list[dict[str, Any]] = (
        _parquet(path).read_row_group(group, columns=["image.bytes"]).column("image").to_pylist()
    )
    return images


@functools.lru_cache(maxsize=8)
def _rows(path: Path, array: str, changed: int) -> "Rows":  # noqa: ARG001
    return Rows(path, array)


def shape(path: Path, array: str) -> tuple[int, ...]:
    """Return the shape of an array of uint8 in an .npz; raise a DataError if it is another."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{array}.npy") as stream:
        return _read_header(path, array, stream)


def _read_header(path: Path, array: str, stream) -> tuple[int, ...]:
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    dimensions, column_order, kind = read_header(stream)
    if kind != np.uint8 or column_order:
        raise DataError(f"{path} has {kind} values in {array}, not 8-bit ones; get the file again.")
    return dimensions


class Rows:
    """The rows of an array in an .npz, read in order by several threads."""

    def __init__(self, path: Path, array: str) -> None:
        self._path, self._array, self._lock = path, array, threading.Lock()
        self._open()

    def _open(self) -> None:
        self._archive = zipfile.ZipFile(self._path)
        self._stream = self._archive.open(f"{self._array}.npy")
        rows, *self._shape = _read_header(self._path, self._array, self._stream)
        self._count, self._bytes = rows, int(np.prod(self._shape))
        self._next = 0  # the row that the stream gives next
        self._recent: OrderedDict[int, np.ndarray] = OrderedDict()

    def read(self, row: int) -> np.ndarray:
        """Return the pixels of a row."""
        with self._lock:
            if row in self._recent:
                return self._recent[row]
            if not 0 <= row < self._count:
                raise ValueError(f"it has {self._count:,} rows, not {row + 1:,}")
            if row < self._next:
                self._archive.close()
                self._open()
            while self._next <= row:
                content = self._stream.read(self._bytes)
                if len(content) < self._bytes:
                    raise EOFError("it is cut short")
                self._recent[self._next] = np.frombuffer(content, np.uint8).reshape(self._shape)
                self._next += 1
                if len(self._recent) * self._bytes > _KEPT:
                    self._recent.popitem(last=False)
            return self._recent[row]
