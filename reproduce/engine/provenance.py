"""Describe the session of a run: versions, commit, host, device and command."""

import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reproduce import ROOT

PACKAGES = ("tensorflow", "keras", "jax", "torch", "numpy", "opencv-python-headless", "pandas")


def provenance(device: str) -> dict[str, Any]:
    """Return the facts about this session; `device` is empty if no network runs."""
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
        **(_gpu() if device not in ("", "cpu") else {}),
        "command": " ".join(sys.argv),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _gpu() -> dict[str, Any]:
    """Return driver, CUDA, cuDNN and TF32, as far as the running backend can tell."""
    facts: dict[str, Any] = {}
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists() and (named := re.search(r"Kernel Module\D*([\d.]+)", driver.read_text())):
        facts["driver"] = named[1]
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")  # with JAX, tf.data is imported too
    if backend == "tensorflow" and (tensorflow := sys.modules.get("tensorflow")):
        build = tensorflow.sysconfig.get_build_info()
        facts |= {"cuda": build.get("cuda_version"), "cudnn": build.get("cudnn_version")}
        facts["tf32"] = tensorflow.config.experimental.tensor_float_32_execution_enabled()
    elif backend == "jax" and (jax := sys.modules.get("jax")):
        for package in ("nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12"):
            try:
                facts[package] = version(package)
            except PackageNotFoundError:
                continue
        facts["matmul precision"] = str(jax.config.jax_default_matmul_precision)
    return facts
