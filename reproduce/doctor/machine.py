"""Check the machine: Python, packages, backend, GPU, disks.

Only the standard library is used, because the packages themselves may be missing.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any, NamedTuple

from reproduce import ROOT

OK, WARNING, PROBLEM = "ok", "warning", "problem"
OLDEST, NEWEST = (3, 11), (3, 13)  # Python versions that the suite is tested with
# GPU and CPU builds, and OpenCV with windows, have names of their own
OTHER_NAMES = {"tensorflow": "tensorflow-cpu", "opencv-python-headless": "opencv-python"}
START = 300  # seconds that a backend may take to start and to compile, on a slow disk
GPU_ADVICE = "conda env create -f environment.yml, or pip install 'tensorflow[and-cuda]' here"


class Finding(NamedTuple):
    """The result of one check."""

    state: str  # OK, WARNING or PROBLEM
    topic: str
    text: str
    fix: str = ""  # a sentence that says what to do


def ok(topic: str, text: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(OK, topic, text)


def warning(topic: str, text: str, fix: str = "") -> Finding:
    """Return a finding that works, but not as in the papers."""
    return Finding(WARNING, topic, text, fix)


def problem(topic: str, text: str, fix: str) -> Finding:
    """Return a finding that would make a run fail."""
    return Finding(PROBLEM, topic, text, fix)


def python(running: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Check that this Python is one that the suite is tested with."""
    text = f"{running[0]}.{running[1]}, {sys.executable}"
    if OLDEST <= running <= NEWEST:
        return ok("Python", text)
    fix = "Install Python 3.12, or set CXR_PYTHON to a Python 3.11 to 3.13."
    return problem("Python", f"{text}; the suite needs 3.11 to 3.13", fix)


def packages(requirements: str, installed: Callable[[str], str] = version) -> Finding:
    """Check each line NAME>=LOW,<HIGH of requirements.txt against the installed version."""
    right, wrong = [], []
    for name, low, high in re.findall(r"^([\w-]+)>=([\d.]+),<([\d.]+)", requirements, re.MULTILINE):
        package, present = _installed(name, installed)
        if not present:
            wrong.append(f"{name} is not installed")
        elif _numbers(low) <= _numbers(present) < _numbers(high):
            right.append(f"{package} {present}")
        else:
            wrong.append(f"{package} is {present} and must be >={low},<{high}")
    if not wrong:
        return ok("packages", ", ".join(right))
    install = f"{sys.executable} -m pip install -r {ROOT / 'requirements.txt'}"
    return problem(
        "packages", "; ".join(wrong), f"Run {install}, or let reproduce/*.sh create .venv."
    )


def _installed(name: str, installed: Callable[[str], str]) -> tuple[str, str]:
    """Return the name and version under which a package is installed; version "" if it is not."""
    for known_as in (name, OTHER_NAMES.get(name, name)):
        with contextlib.suppress(PackageNotFoundError):
            return known_as, installed(known_as)
    return name, ""


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def ask_keras(seconds: float, patience: float = START) -> dict[str, Any]:
    """Run reproduce.doctor.speed and return its facts; `ended` says how it failed, if it did."""
    command = [sys.executable, "-m", "reproduce.doctor.speed", "--seconds", str(seconds)]
    environment = os.environ | {
        "TF_CPP_MIN_LOG_LEVEL": "1",  # at this level TensorFlow logs why it sees no GPU
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    facts: dict[str, Any] = {}
    limit = patience + seconds
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, timeout=limit
        )
        output, log = done.stdout.decode(), done.stderr.decode(errors="replace")
        if done.returncode < 0:
            facts["ended"] = f"it was killed by {signal.Signals(-done.returncode).name}"
        elif done.returncode:
            last_line = log.strip().rpartition("\n")[2]
            facts["ended"] = last_line or f"it ended with code {done.returncode}"
    except subprocess.TimeoutExpired as late:
        output, log = (late.stdout or b"").decode(), (late.stderr or b"").decode(errors="replace")
        facts["ended"] = f"it did not answer within {limit:.0f} s"
    for line in output.splitlines():
        if line.startswith("{") and line.endswith("}"):
            facts |= json.loads(line)
    return facts | {"why_no_gpu": _why_no_gpu(log)}


def _why_no_gpu(log: str) -> str:
    """Return the last line of a backend's log about CUDA, without its time and source."""
    about_cuda = re.compile("cuda|cudnn|dlopen|cuInit", re.IGNORECASE)
    lines = [line for line in log.splitlines() if about_cuda.search(line)]
    return lines[-1].partition("] ")[2] or lines[-1] if lines else ""


def backend(facts: Mapping[str, Any]) -> Finding:
    """Check that Keras and its backend start."""
    if "backend" in facts:
        return ok("Keras", f"runs on {facts['backend']}, started in {facts['started_in']:.0f} s")
    name = os.environ.get("KERAS_BACKEND", "tensorflow")
    fix = f"Look at the whole error: {sys.executable} -c 'import keras'"
    if "SIGILL" in facts.get("ended", ""):
        fix = "This processor lacks AVX, which TensorFlow's wheels need; use another machine."
    return problem("Keras", f"cannot start on {name}: {facts.get('ended')}", fix)


def driver() -> str | None:
    """Return the GPUs that nvidia-smi lists, or why it fails; None if there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "nvidia-smi is not found" if Path("/dev/nvidia0").exists() else None
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi fails: {error}"
    answer = " ".join((done.stdout or done.stderr).split("\n")).strip()
    return f"nvidia-smi fails: {answer}" if done.returncode else answer


def wheels() -> set[str]:
    """Return the names of the installed packages."""
    return {package.metadata["Name"].lower() for package in distributions() if package.metadata}


def gpu(
    smi: str | None, facts: Mapping[str, Any], environ: Mapping[str, str], wheels: set[str]
) -> Finding:
    """Say which GPUs training would use or, if none, why not."""
    name, gpus = facts.get("backend", "tensorflow"), facts.get("gpus", [])
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if gpus:
        return ok("GPU", f"{name} sees {', '.join(gpus)} ({smi or 'no nvidia-smi'})")
    if smi is None:
        return warning(
            "GPU",
            "none: this machine has no NVIDIA driver, so training runs on the CPU",
            "For the papers' settings, use a machine with a GPU; in a container, start it with "
            "--gpus all.",
        )
    if "fails" in smi or "not found" in smi:
        fix = "Reboot after a driver update, or install the driver's utilities."
        return problem("GPU", f"the NVIDIA driver does not work: {smi}", fix)
    if visible is not None and visible.strip()[:1] in ("", "-"):
        text = f"{smi}, hidden by CUDA_VISIBLE_DEVICES={visible!r}"
        return warning("GPU", text, "Run unset CUDA_VISIBLE_DEVICES to use the GPU.")
    if "backend" not in facts:
        return warning("GPU", f"{smi}; not checked, because Keras cannot start")
    text = f"{smi}, but {name} sees none"
    if not facts["built_for_gpu"]:
        return problem("GPU", f"{text}: this build of it is for CPUs", f"Run {GPU_ADVICE}.")
    if name == "tensorflow" and not any(wheel.startswith("nvidia-cudnn") for wheel in wheels):
        text += ": the CUDA and cuDNN packages are not installed"
        return problem("GPU", text, f"To install them, run {GPU_ADVICE}.")
    if visible:
        text += f" under CUDA_VISIBLE_DEVICES={visible!r}"
    return problem(
        "GPU",
        f"{text}: {facts['why_no_gpu'] or 'its log does not say why'}",
        "Update the driver to one for the installed CUDA, or create the environment again: "
        f"{GPU_ADVICE}.",
    )


def disk_space(
    folders: Mapping[str, tuple[Path, float]], short: str = PROBLEM, needs: str = "needed"
) -> Iterator[Finding]:
    """Compare each folder's disk with the bytes it will need; folders on one disk share it.

    `short` is the state of a folder that lacks space.
    """
    taken: dict[int, float] = {}
    for topic, (folder, needed) in folders.items():
        parents = (folder.absolute(), *folder.absolute().parents)
        existing = next(filter(os.path.exists, parents))  # also False for an impossible name
        other = f"give another --{topic}-dir."
        try:
            with tempfile.TemporaryFile(dir=existing):
                disk, free = os.stat(existing).st_dev, shutil.disk_usage(existing).free
        except OSError as error:
            text = f"{folder} cannot be written: {error.strerror}"
            yield problem(topic, text, f"Make it writable, or {other}")
            continue
        left = free - taken.get(disk, 0)
        taken[disk] = taken.get(disk, 0) + needed
        text = f"{folder}: about {size(needed)} {needs}, {size(free)} free"
        if left < free:
            text += ", less the cache's"
        if left > needed:
            yield ok(topic, text)
        else:
            yield Finding(short, topic, text, f"Make room, or {other}")


def size(count: float) -> str:
    """Return a number of bytes in MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
