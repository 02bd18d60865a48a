"""Read a prepared image cache: memory-mapped uint8 shards, addressed by one row per image."""

import hashlib
import json
import mmap
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data import DataError

VERSION = 3
_NEAR = 8  # indices; sequences with smaller gaps are read ahead in one request
_CHUNK_BYTES = 1 << 20  # bytes of neighbouring images that are shuffled as one
_BLOCK = 1 << 20  # bytes per checksum call, which releases the interpreter lock
# Shards already verified in this process: path -> (device, inode, bytes, time, checksum)
_compared: dict[str, tuple] = {}


class Cache:
    """A finished cache folder: `indices` finds images by path, `images` reads them."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = _read_index(self.folder)
        self.size: int = index["size"]
        self.paths: list[str] = index["paths"]
        self.skipped: dict[str, str] = index["skipped"]  # path -> why it could not be used
        self.shard_images: int = index["shard_images"]
        self.resized: int = index["resized"]  # pixels per side, before a template cuts the images
        self.enlarged: int = index["enlarged"]  # images whose source is smaller than that
        self.shortest: int = index["shortest"]  # pixels of the shortest side of all sources
        # Changes with any path, pixel or setting and with nothing else, so a copy of the images
        # has the same fingerprint.
        self.fingerprint: str = index["fingerprint"]
        self._row = {path: row for row, path in enumerate(self.paths) if path not in self.skipped}
        files = [self.folder / shard["name"] for shard in index["shards"]]
        damaged = damaged_shards(files, [shard["crc32"] for shard in index["shards"]])
        if damaged:
            raise DataError(
                f"{files[damaged[0]]} is damaged, missing or cut short; run the same command "
                "again to repair it."
            )
        self._maps = [self._map(file, k) for k, file in enumerate(files)]
        self._shards = [
            np.frombuffer(mapped, np.uint8)[-count * self.size**2 :].reshape(count, *self.shape)
            for mapped, count in self._maps
        ]

    @property
    def shape(self) -> tuple[int, int]:
        return (self.size, self.size)

    def __len__(self) -> int:
        return len(self.paths)

    def indices(self, image_paths) -> np.ndarray:
        """Return the row numbers of images; raise a DataError if one is missing or was skipped."""
        missing = [path for path in image_paths if path not in self._row]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(image_paths)} images are not in the cache {self.folder} "
                f"(the first: {missing[0]}); prepare it again, or leave out its skipped images."
            )
        return np.fromiter((self._row[path] for path in image_paths), np.int64)

    def images(self, indices: np.ndarray) -> list[np.ndarray]:
        """Return read-only (size, size) uint8 views, one per index, without copying."""
        shard, position = np.divmod(indices, self.shard_images)
        shards = self._shards
        pairs = zip(shard.tolist(), position.tolist(), strict=True)
        return [shards[shard][position] for shard, position in pairs]

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return a (N, size, size) uint8 copy of the images."""
        if not len(indices):
            return np.empty((0, *self.shape), np.uint8)
        return np.stack(self.images(np.asarray(indices)))

    def will_need(self, indices: np.ndarray) -> None:
        """Ask the kernel to read images ahead; consecutive neighbours become one request."""
        if not len(indices):
            return
        step = np.diff(indices)
        ends = (step < 1) | (step > _NEAR) | (np.diff(indices // self.shard_images) != 0)
        first = indices[np.concatenate([[True], ends])]
        last = indices[np.concatenate([ends, [True]])]
        shard, position = np.divmod(first, self.shard_images)
        start = position * self.size**2
        start -= start % mmap.PAGESIZE
        length = (last - first + 2) * self.size**2  # the header and the page cost less than a row
        for k, begin, size in zip(shard.tolist(), start.tolist(), length.tolist(), strict=True):
            mapped = self._maps[k][0]
            mapped.madvise(mmap.MADV_WILLNEED, begin, min(size, len(mapped) - begin))

    def _map(self, file: Path, number: int) -> tuple[mmap.mmap, int]:
        count = min(self.shard_images, len(self) - number * self.shard_images)
        if not is_whole(file, count, self.size):
            raise DataError(f"{file} is missing or cut short; prepare the cache again.")
        with file.open("rb") as opened:
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), count


def chunk_images(cache: Cache, limit: int | None = None) -> int:
    """Return `chunk` for train_batches: 0 if the cache has at most `limit` bytes.

    The default limit is half of this machine's memory. The order of the images depends on the
    chunk, so choose it once per run and record it.
    """
    if limit is None:
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    image = cache.size**2
    return 0 if len(cache) * image <= limit else max(1, _CHUNK_BYTES // image)


def fingerprint(index: dict) -> str:
    """Return the hash of a cache's images: their order, paths, pixels, and which are skipped."""
    shards = [shard["pixels"] for shard in index["shards"]]
    facts = [index["size"], index["paths"], shards, sorted(index["skipped"])]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def index_checksum(index: dict) -> int:
    """Return the checksum of an index without its entry "check", which holds the checksum."""
    rest = {key: value for key, value in index.items() if key != "check"}
    return zlib.crc32(json.dumps(rest).encode())


def damaged_shards(files: Sequence[Path], checksums: Sequence[int]) -> list[int]:
    """Return the positions of the shard files that are unreadable or have another checksum.

    Each file is read once per process unless it changes. Threads share the reading; docs/data.md
    states its cost.
    """
    pairs = list(zip(map(str, files), checksums, strict=True))
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        intact = list(pool.map(_has_checksum, pairs))
    return [position for position, good in enumerate(intact) if not good]


def _has_checksum(pair: tuple[str, int]) -> bool:
    path, expected = pair
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            known = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, expected)
            if _compared.get(path) == known:
                return True
            checksum, block = 0, bytearray(_BLOCK)
            while count := file.readinto(block):
                checksum = zlib.crc32(memoryview(block)[:count], checksum)
    except OSError:
        return False
    if checksum != expected:
        return False
    _compared[path] = known
    return True


def is_whole(shard: Path, count: int, size: int) -> bool:
    """Return True if a shard file has all its images (a .npy header fills 64-byte blocks)."""
    try:
        header = shard.stat().st_size - count * size**2
    except OSError:
        return False
    return 0 < header <= 256 and header % 64 == 0


def _read_index(folder: Path) -> dict:
    """Return the index of a finished cache; raise a DataError if there is no valid one."""
    try:
        index = json.loads((folder / "index.json").read_text())
        version = index.get("version")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{folder} holds no finished image cache; prepare it first.") from error
    if version != VERSION:
        raise DataError(f"{folder} was prepared by another version; prepare it again.")
    if index.get("check") != index_checksum(index):
        raise DataError(f"{folder / 'index.json'} is damaged; prepare the cache again.")
    return index
