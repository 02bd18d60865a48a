"""Reading a prepared cache: uint8 shards, mapped into memory, behind one row number per image."""

import hashlib
import json
import mmap
from pathlib import Path

import numpy as np

from data import DataError

VERSION = 1
_NEAR = 8  # indices: runs with smaller gaps are read ahead in one go


class Cache:
    """A finished cache folder; `indices` finds images by their paths, `images` reads them."""

    def __init__(self, folder):
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / "index.json").read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} holds no finished image cache; prepare it first.") from error
        if index["version"] != VERSION:
            raise DataError(f"{folder} was prepared by another version; prepare it again.")
        self.size: int = index["size"]
        self.paths: list[str] = index["paths"]
        self.skipped: dict[str, str] = index["skipped"]  # path -> why it could not be read
        self.shard_images: int = index["shard_images"]
        # Changes with the settings and with any source file: names what a result was made from.
        self.fingerprint = hashlib.sha256("".join(index["shards"]).encode()).hexdigest()[:16]
        self._row = {path: row for row, path in enumerate(self.paths) if path not in self.skipped}
        self._maps = [self._map(name, k) for k, name in enumerate(index["shards"])]
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
        """Row numbers of images; those skipped as corrupt must have been left out before."""
        missing = [path for path in image_paths if path not in self._row]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(image_paths)} images are not in the cache {self.folder} "
                f"(the first: {missing[0]}); prepare it again, or leave out its skipped images."
            )
        return np.fromiter((self._row[path] for path in image_paths), np.int64)

    def images(self, indices: np.ndarray) -> list[np.ndarray]:
        """Read-only (size, size) uint8 views, one a row, without a copy."""
        shard, place = np.divmod(indices, self.shard_images)
        shards = self._shards
        pairs = zip(shard.tolist(), place.tolist(), strict=True)
        return [shards[shard][place] for shard, place in pairs]

    def read(self, indices: np.ndarray) -> np.ndarray:
        """(N, size, size) uint8 copy of indices."""
        return (
            np.stack(self.images(np.asarray(indices)))
            if len(indices)
            else np.empty((0, *self.shape))
        )

    def will_need(self, indices: np.ndarray) -> None:
        """Ask the kernel to read indices ahead; neighbours, given in order, become one request."""
        if not len(indices):
            return
        step = np.diff(indices)
        ends = (step < 1) | (step > _NEAR) | (np.diff(indices // self.shard_images) != 0)
        first = indices[np.concatenate([[True], ends])]
        last = indices[np.concatenate([ends, [True]])]
        shard, place = np.divmod(first, self.shard_images)
        start = place * self.size**2
        start -= start % mmap.PAGESIZE
        length = (last - first + 2) * self.size**2  # the header and the page cost less than a row
        for k, begin, size in zip(shard.tolist(), start.tolist(), length.tolist(), strict=True):
            mapped = self._maps[k][0]
            mapped.madvise(mmap.MADV_WILLNEED, begin, min(size, len(mapped) - begin))

    def _map(self, name: str, number: int) -> tuple[mmap.mmap, int]:
        count = min(self.shard_images, len(self) - number * self.shard_images)
        path = self.folder / name
        if not is_whole(path, count, self.size):
            raise DataError(f"{path} is missing or cut short; prepare the cache again.")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), count


def is_whole(shard: Path, count: int, size: int) -> bool:
    """Whether a shard file is there with all its images (a .npy header fills 64-byte blocks)."""
    try:
        header = shard.stat().st_size - count * size**2
    except OSError:
        return False
    return 0 < header <= 256 and header % 64 == 0
