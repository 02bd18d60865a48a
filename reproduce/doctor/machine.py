"""Checks the machine: Python, packages, GPU, disks. Standard library only, as packages may lack."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import NamedTuple

from reproduce import ROOT

OK, WARNING, PROBLEM = "ok", "warning", "problem"
PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that the suite is tested with
# GPU and CPU builds, and OpenCV with windows, go by names of their own
OTHER_NAMES = {"tensorflow": "tensorflow-cpu", "opencv-python-headless": "opencv-python"}
START = 300  # seconds that a backend may take to start and to compile, on a slow disk
GPU_ADVICE = "conda env create -f environment.yml, or pip install 'tensorflow[and-cuda]' here"


class Finding(NamedTuple):
    state: str
    what: str
    text: str
    fix: str = ""  # what to do about it, a sentence


def python(running: tuple[int, int] = sys.version_info[:2]) -> Finding:
    text = "{}.{}".format(*running) + f", {sys.executable}"
    if PYTHONS[0] <= running <= PYTHONS[1]:
        return Finding(OK, "Python", text)
    fix = "Install Python 3.12, or set CXR_PYTHON to a Python 3.11 to 3.13."
    return Finding(PROBLEM, "Python", f"{text}; the suite needs 3.11 to 3.13", fix)


def packages(requirements: str, installed=version) -> Finding:
    """Each line NAME>=LOW,<HIGH of requirements.txt against what is installed."""
    fine, amiss = [], []
    for name, low, high in re.findall(r"^([\w-]+)>=([\d.]+),<([\d.]+)", requirements, re.MULTILINE):
        for known_as in filter(None, (name, OTHER_NAMES.get(name))):
            try:
                present = installed(known_as)
            except PackageNotFoundError:
                continue
            within = _numbers(low) <= _numbers(present) < _numbers(high)
            fine.append(f"{known_as} {present}")
            if not within:
                amiss.append(f"{known_as} is {present} and must be >={low},<{high}")
            break
        else:
            amiss.append(f"{name} is not installed")
    if not amiss:
        return Finding(OK, "packages", ", ".join(fine))
    fix = f"Run {sys.executable} -m pip install -r {ROOT / 'requirements.txt'}"
    return Finding(
        PROBLEM, "packages", "; ".join(amiss), f"{fix}, or let reproduce/*.sh make .venv."
    )


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def driver() -> str | None:
    """The GPUs by nvidia-smi, or why it fails; None where there is no driver at all."""
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


def ask_keras(seconds: float, patience: float = START) -> dict:
    """The facts of reproduce.doctor.speed; with `ended` if it did not come to its end."""
    command = [sys.executable, "-m", "reproduce.doctor.speed", "--seconds", str(seconds)]
    environment = os.environ | {
        "TF_CPP_MIN_LOG_LEVEL": "1",  # it says there why it sees no GPU
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    began = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    ended = ""
    try:
        out, error = began.communicate(timeout=patience + seconds)
        if began.returncode < 0:
            ended = f"it was killed by {signal.Signals(-began.returncode).name}"
        elif began.returncode:
            ended = error.strip().rpartition("\n")[2] or f"it ended with code {began.returncode}"
    except subprocess.TimeoutExpired:
        ended = f"it did not answer within {patience + seconds:.0f} s"
    finally:
        if began.poll() is None:  # a timeout or Ctrl-C: nothing may be left running
            os.killpg(began.pid, signal.SIGKILL)
            out, error = began.communicate()
    facts: dict = {"why_no_gpu": _why_no_gpu(error)} | ({"ended": ended} if ended else {})
    for line in out.splitlines():
        if line.startswith("{"):
            facts |= json.loads(line)
    return facts


def _why_no_gpu(log: str) -> str:
    """The last line of a backend's log that speaks of CUDA, without its time and source."""
    lines = [
        line for line in log.splitlines() if re.search(r"cuda|cudnn|dlopen|cuInit", line, re.I)
    ]
    return lines[-1].partition("] ")[2] or lines[-1] if lines else ""


def backend(facts: dict) -> Finding:
    """Whether Keras and what it computes with can be imported."""
    if "backend" in facts:
        return Finding(
            OK, "Keras", f"runs on {facts['backend']}, started in {facts['started_in']:.0f} s"
        )
    name = os.environ.get("KERAS_BACKEND", "tensorflow")
    fix = f"Look at the whole error: {sys.executable} -c 'import keras'"
    if "SIGILL" in facts.get("ended", ""):
        fix = "This processor lacks AVX, which TensorFlow's wheels need; use another machine."
    return Finding(PROBLEM, "Keras", f"cannot start on {name}: {facts.get('ended')}", fix)


def gpu(smi: str | None, facts: dict, environ: Mapping[str, str], wheels: set[str]) -> Finding:
    """Whether training would use a GPU and, where it would not, why."""
    name, gpus = facts.get("backend", "tensorflow"), facts.get("gpus", [])
    if gpus:
        return Finding(OK, "GPU", f"{name} sees {', '.join(gpus)} ({smi or 'no nvidia-smi'})")
    if smi is None:
        text = "none: this machine has no NVIDIA driver, so training runs on the CPU"
        return Finding(
            WARNING,
            "GPU",
            text,
            "For the papers' settings use a machine with a GPU; "
            "in a container, start it with --gpus all.",
        )
    if "fails" in smi or "not found" in smi:
        return Finding(
            PROBLEM,
            "GPU",
            f"the NVIDIA driver does not work: {smi}",
            "Reboot after a driver update, or install the driver's utilities.",
        )
    hidden = environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and (not hidden.strip() or hidden.strip().startswith("-")):
        text = f"{smi}, hidden by CUDA_VISIBLE_DEVICES={hidden!r}"
        return Finding(WARNING, "GPU", text, "Run unset CUDA_VISIBLE_DEVICES to use the GPU.")
    if "backend" not in facts:
        return Finding(WARNING, "GPU", f"{smi}; not asked, as Keras cannot start")
    text = f"{smi}, but {name} sees none"
    if not facts["built_for_gpu"]:
        return Finding(PROBLEM, "GPU", f"{text}: this build of it is for CPUs", GPU_ADVICE)
    if name == "tensorflow" and not any(wheel.startswith("nvidia-cudnn") for wheel in wheels):
        text += ": the CUDA and cuDNN packages are not installed"
        return Finding(PROBLEM, "GPU", text, f"They come with {GPU_ADVICE}.")
    if hidden:
        text += f" under CUDA_VISIBLE_DEVICES={hidden!r}"
    return Finding(
        PROBLEM,
        "GPU",
        f"{text}: {facts['why_no_gpu'] or 'it does not say why'}",
        f"Update the driver to one for the installed CUDA, or make the environment "
        f"anew: {GPU_ADVICE}.",
    )


def wheels() -> set[str]:
    """The names of the installed packages."""
    return {package.metadata["Name"].lower() for package in distributions() if package.metadata}


def disk_space(
    folders: Mapping[str, tuple[Path, float]], short: str = PROBLEM, needs: str = "needed"
) -> Iterator[Finding]:
    """Each folder's disk against the bytes it will need; those on one disk share its space."""
    taken: dict[int, float] = {}
    for what, (folder, needed) in folders.items():
        above = (folder.absolute(), *folder.absolute().parents)
        there = next(folder for folder in above if _exists(folder))
        other = f"give another --{what}-dir."
        try:
            with tempfile.TemporaryFile(dir=there):
                disk, free = os.stat(there).st_dev, shutil.disk_usage(there).free
        except OSError as error:
            text = f"{folder} cannot be written: {error.strerror}"
            yield Finding(PROBLEM, what, text, f"Make it writable, or {other}")
            continue
        left = free - taken.get(disk, 0)
        taken[disk] = taken.get(disk, 0) + needed
        text = f"{folder}: about {size(needed)} {needs}, {size(free)} free"
        if left < free:
            text += ", less the cache's"
        if left > needed:
            yield Finding(OK, what, text)
        else:
            yield Finding(short, what, text, f"Make room, or {other}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no folder can have
        return False


def size(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
