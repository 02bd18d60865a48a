"""Download files whole or not at all: resumed after an interruption, verified by their hash.

This module uses only the standard library and tqdm, so every package may import it.
"""

import hashlib
import http.client
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import safefiles

TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 4  # of a connection that is cut
PAUSE = 1.0  # seconds before the second attempt; doubled before every further one
_BLOCK = 1 << 18  # bytes
_CUT = (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)
_ALGORITHMS = {32: "md5", 64: "sha256"}  # by the number of hex digits


class DownloadError(safefiles.UserError):
    """A file could not be downloaded; the message says why and what to do instead."""


def check_base_url(base_url: str) -> None:
    """Raise a DownloadError if the address of a mirror is none."""
    if not re.match(r"https?://[^/]", base_url):
        raise DownloadError(
            f"--base-url {base_url} is no address; give one that begins with https:// or http://."
        )


def digest(path: Path, like: str) -> str:
    """Return a file's MD5 or SHA-256 in hex, whichever has the length of `like`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _ALGORITHMS[len(like)]).hexdigest()


def fetch(url: str, target: Path, expected: str, by_hand: str) -> Path:
    """Return `target` with the hash `expected`, downloaded unless it is there already.

    `by_hand` is a sentence that says how to get the file without this program. A second process
    waits for the first. A partial download stays beside the target, and the next call resumes it.
    """
    if target.is_file() and digest(target, expected) == expected:
        return target
    waiting = f"Another process is downloading {target.name}; waiting for it."
    with safefiles.lock(target.with_name(f".{target.name}.lock"), waiting):
        if target.is_file() and digest(target, expected) == expected:
            return target  # the other process has finished it
        partial = target.with_name(f"{target.name}.part")
        resumed = partial.exists()
        print(f"fetching {url}", file=sys.stderr, flush=True)
        while True:
            try:
                _receive(url, partial)
            except OSError as error:
                if isinstance(error, (urllib.error.URLError, *_CUT)):
                    raise _failed(url, error, partial, by_hand) from error
                raise safefiles.cannot_write(target, error) from error
            except (http.client.HTTPException, ValueError) as error:
                raise _failed(url, error, partial, by_hand) from error
            actual = digest(partial, expected)
            if actual == expected:
                partial.replace(target)
                return target
            partial.unlink()
            if not resumed:
                break
            resumed = False  # the part may have been of another version: once more, from the start
    name = {"md5": "MD5", "sha256": "SHA-256"}[_ALGORITHMS[len(expected)]]
    raise DownloadError(
        f"{url} has {name} {actual} instead of {expected}: it is not the published file, so "
        f"nothing was kept. {by_hand}"
    )


def _failed(url: str, error: Exception, partial: Path, by_hand: str) -> DownloadError:
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    if isinstance(error, http.client.IncompleteRead):
        reason = "the connection was cut"
    kept = "; run this again to resume" if partial.exists() and partial.stat().st_size else ""
    return DownloadError(f"{url} cannot be fetched ({reason}){kept}. {by_hand}")


def _receive(url: str, partial: Path) -> None:
    """Append what is missing of a file; connect again if the connection is cut on the way."""
    for attempt in range(ATTEMPTS):
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _append(url, partial)
            return
        except _CUT:
            grown = partial.exists() and partial.stat().st_size > before
            if attempt + 1 == ATTEMPTS or not grown:
                raise
            time.sleep(PAUSE * 2**attempt)


def _append(url: str, partial: Path) -> None:
    """Append the rest of a file, or write all of it if the server ignores ranges."""
    size = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={size}-"} if size else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                size = 0
            length = int(response.headers.get("Content-Length") or 0)
            _check_space(partial, length)
            with partial.open("ab" if size else "wb") as file:
                received = _copy(response, file, partial.name, size, length)
            if received < length:
                raise http.client.IncompleteRead(b"", length - received)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # The server has nothing left to send; the hash shows if the partial file is complete.


def _check_space(partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if free < needed:
        raise DownloadError(
            f"{partial.parent} needs {needed / 1e9:.1f} GB for {partial.stem} and has "
            f"{free / 1e9:.1f} GB free; free some space or choose another folder."
        )


def _copy(response, file, name: str, done: int, length: int) -> int:
    """Copy a response to a file, with a progress bar on a terminal; return the bytes received."""
    from tqdm import tqdm  # commands that download nothing start without it

    received = 0
    with tqdm(
        desc=name.removesuffix(".part"),
        initial=done,
        total=done + length if length else None,
        unit="B",
        unit_scale=True,
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        while block := response.read(_BLOCK):
            file.write(block)
            received += len(block)
            bar.update(len(block))
    return received
