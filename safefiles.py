"""Write files whole or not at all, lock folders, and explain a failed write in one sentence.

This module uses only the standard library, so every package may import it.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import lzma
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

SEALS = "checksums.json"  # the hashes of a folder's finished files
PART = ".part-"  # prefix of a file that is being written: .part-PID-NAME
_PART_NAME = re.compile(re.escape(PART) + r"(\d+)-")
DAMAGED_ARCHIVE = (  # what NumPy, zipfile and its decompressors raise on damaged or foreign bytes
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
_LONGEST_NAME = 200  # bytes of a file name that leave room for PART and the process id
_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)

_FREE_SPACE = "free some space and run the same command again; finished work is kept"
_ADVICE = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: _FREE_SPACE,
    errno.EACCES: "make its folder writable, or choose another",
    errno.EPERM: "make its folder writable, or choose another",
    errno.EROFS: "choose a folder on a disk that can be written to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "a folder has its name; move that folder away, or choose another name",
    errno.ENOTEMPTY: "a folder has its name; move that folder away, or choose another name",
    errno.ENOTDIR: "a part of its path is a file; choose another folder",
    errno.EEXIST: "a part of its path is a file; choose another folder",
}


class UserError(Exception):
    """An error that only the user can correct; the message says what is wrong and what to do."""


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to `path` if the block raises no error.

    The temporary path has the same suffix and folder, and is deleted after an error. A failed write
    becomes a UserError, also one inside h5py, which reports it as a RuntimeError.
    """
    path = Path(path)
    partial = path.with_name(f"{PART}{os.getpid()}-{_shortened(path.name)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _to_disk(partial)
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    except RuntimeError as error:
        if number := re.search(r"errno = (\d+)", str(error)):
            failed = int(number[1])
            raise cannot_write(path, OSError(failed, os.strerror(failed))) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write(path: str | Path, content: str | bytes) -> Path:
    """Write text or bytes, whole or not at all; return the path."""
    if isinstance(content, str):  # file names in the text may hold bytes that are not UTF-8
        content = content.encode("utf-8", "surrogateescape")
    with whole(path) as partial:
        partial.write_bytes(content)
    return Path(path)


def cannot_write(path: str | Path, error: OSError) -> UserError:
    """Return the error for a file or folder that cannot be written, with advice for its cause."""
    advice = _ADVICE.get(
        error.errno or 0, "free some space, or make its folder writable, and run again"
    )
    return UserError(f"{path} cannot be written ({error.strerror or error}): {advice}.")


def remove_parts(folder: str | Path) -> None:
    """Delete the unfinished files of processes that have ended; call it while holding the lock."""
    with contextlib.suppress(OSError):  # a file that remains is harmless
        for entry in list(os.scandir(folder)):
            match = _PART_NAME.match(entry.name)
            if match and not _is_running(int(match[1])):
                Path(entry.path).unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path: str | Path, waiting: str = "") -> Iterator[bool]:
    """Lock the file `path` for the block; yield False if another process holds the lock.

    With `waiting`, print that sentence and wait for the other process instead. The kernel releases
    the lock however a process ends. On a file system without locks, print a warning and continue.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        yield _lock_file(file, path, waiting)


def _lock_file(file, path: Path, waiting: str) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not waiting:
            return False
        print(waiting, file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise cannot_write(path, error) from error
        print(
            f"The file system of {path.parent} has no file locks: run one process at a time there.",
            file=sys.stderr,
            flush=True,
        )
    return True


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, paths: Iterable[Path]) -> None:
    """Record the hashes of finished files, so that later changes can be detected."""
    sums = {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(paths)}
    write(folder / SEALS, json.dumps(sums, indent=1))


def changed_since_sealed(folder: Path) -> list[str]:
    """Return the names of the files of a sealed folder that have changed or are missing."""
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


def _shortened(name: str) -> str:
    """Return the name, or its hash and last characters if the temporary name would be too long."""
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16] + "-" + name[-32:]


def _to_disk(path: Path) -> None:
    """Flush a written file to disk; ignore network file systems that cannot."""
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _NO_FSYNC:
                raise


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it belongs to another user
        return True
    return True
