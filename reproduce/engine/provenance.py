"""What a run was made with: versions, commit, host and command."""

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version

from reproduce import ROOT

PACKAGES = ("tensorflow", "keras", "jax", "torch", "numpy", "opencv-python-headless", "pandas")


def provenance(device: str) -> dict:
    """The same as a dictionary, of what runs now."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    git = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
    )
    return {
        "versions": versions,
        "commit": git.stdout.strip() or "unknown",
        "host": platform.node(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": device,
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow") if device else "none",
        "command": " ".join(sys.argv),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
