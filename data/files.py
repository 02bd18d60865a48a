"""Files that are whole or not there: written beside, flushed to the disk, renamed.

Only the standard library is used here, so every folder of the suite may import it.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from data import DataError

PART = ".part-"  # begins the name of a file that is being written


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes `path` when the block ends without an error.

    It ends with the same suffix, lies in the same folder and is gone after an error.
    """
    path = Path(path)
    partial = path.with_name(f"{PART}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}): free some space, or make its "
            "folder writable, and run the same command again; what is finished stays."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write(path: str | Path, content: str | bytes) -> Path:
    """Write a text or bytes, whole or not at all."""
    with whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def sha256(path: str | Path) -> str:
    """The hash of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
