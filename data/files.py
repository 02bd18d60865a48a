"""Files that are whole or not there: written beside, flushed to the disk, renamed.

Only the standard library is used here, so every folder of the suite may import it.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
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


@contextlib.contextmanager
def locked(path: str | Path, waiting: str = "") -> Iterator[bool]:
    """Hold a lock file, which the kernel frees however a process ends; False if another holds it.

    With `waiting`, a sentence for the user, the lock is waited for instead.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    except OSError as error:
        raise DataError(
            f"{path.parent} cannot be written to ({error.strerror or error}): free some space, or "
            "make it writable, and run the same command again."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waiting:
                yield False
                return
            print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            _say_once(f"{path.parent} lies on a file system without locks: use one process on it.")
        yield True


@functools.cache
def _say_once(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def remove_orphans(folder: Path) -> None:
    """Delete what killed processes left half written in a folder whose lock is held."""
    for partial in folder.glob(f"{PART}*"):
        with contextlib.suppress(OSError):
            partial.unlink()


SEALS = "checksums.json"


def seal(folder: Path, paths: Iterable[Path]) -> None:
    """Write down the hashes of finished files, so that a reader can tell what has changed since."""
    sums = {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(paths)}
    write(folder / SEALS, json.dumps(sums, indent=1))


def changed_since_sealed(folder: Path) -> list[str]:
    """The files of a sealed folder that are not as they were written, or gone."""
    path = folder / SEALS
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))
        changed = []
        for name, digest in sums.items():
            if not (folder / name).is_file() or sha256(folder / name) != digest:
                changed.append(name)
        return changed
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError, TypeError):
        return [SEALS]
