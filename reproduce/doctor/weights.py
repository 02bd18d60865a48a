"""What the doctor finds of each paper's starting weights: there, to be downloaded, or missing."""

import importlib
import urllib.request
from collections.abc import Callable
from pathlib import Path

from models import ModelError, backbones, weights
from reproduce.doctor.dataset import handful
from reproduce.doctor.machine import OK, PROBLEM, WARNING, Finding, size
from reproduce.engine.rows import Data, Row

TIMEOUT = 10  # seconds until a server counts as out of reach


def look(paper: str, dataset: str, reach: Callable | None = None) -> Finding:
    """The weights files of all networks of a paper, at its own settings."""
    script = importlib.import_module(f"reproduce.{paper}")
    config = script.Config()
    rows = script.rows(config, Data(handful(dataset), None, {"dataset": dataset}))
    names = [row.network["backbone"] for row in rows if isinstance(row, Row)]
    return _finding(paper, getattr(config, "weights", "none"), names, reach or server_size)


def _finding(paper: str, setting: str, names: list[str], reach: Callable) -> Finding:
    there: list[tuple[str, str, str | Path]] = []
    missing: list[tuple[str, str, str | Path]] = []
    online = []
    for name in dict.fromkeys(names):
        value = backbones.weights_of(setting, name)
        if value == "none":
            continue
        try:
            path = weights.find_weights(name, value)
        except ModelError as error:
            return Finding(PROBLEM, "weights", f"{paper}: {error}", "Choose another --weights.")
        if value != "imagenet":
            (there if path else missing).append((name, value, value))
            continue
        download = weights.download_of(name)
        if path and weights.is_whole(path, download):
            there.append((name, download.url, path))
        elif count := reach(download.url):
            online.append(f"{name} ({size(count)})")
        else:
            missing.append((name, download.url, weights.folder() / download.file))
    parts = [f"{', '.join(name for name, *_ in there)} on this machine"] if there else []
    parts += [f"{', '.join(online)} will be downloaded"] if online else []
    parts += [f"{', '.join(name for name, *_ in missing)} out of reach"] if missing else []
    text = f"{paper}: {'; '.join(parts) or 'none needed, its networks start from scratch'}"
    if not missing:
        return Finding(OK, "weights", text)
    files = "; ".join(f"{url} to {path}" for _, url, path in missing)
    fix = f"For {paper} download {files}; or start from scratch with --weights none."
    return Finding(WARNING, "weights", text, fix)


def server_size(url: str) -> int:
    """The bytes of a file on a server, by its answer to a HEAD request; 0 where there is none."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return int(answer.headers.get("Content-Length") or 1)
    except (OSError, ValueError):  # URLError and timeouts are OSErrors
        return 0
