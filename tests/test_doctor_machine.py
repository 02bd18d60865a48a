"""The doctor's checks of the machine: each finding from facts given to it."""

import shutil
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from reproduce.doctor import machine
from reproduce.doctor.machine import OK, PROBLEM, WARNING
from tests.conftest import REPOSITORY

CARD = "NVIDIA H200, 143771 MiB, 550.54"
NO_GPU = {"backend": "tensorflow", "gpus": [], "built_for_gpu": True, "why_no_gpu": "no libcudnn"}
WHEELS = {"nvidia-cudnn-cu12"}


@pytest.mark.parametrize(
    ("running", "state"), [((3, 10), PROBLEM), ((3, 11), OK), ((3, 13), OK), ((3, 14), PROBLEM)]
)
def test_python_must_be_a_tested_version(running, state):
    assert machine.python(running).state == state


REQUIREMENTS = "# a note\ntensorflow>=2.21,<2.22\npandas>=2.2,<4\n"


@pytest.mark.parametrize(
    ("installed", "amiss"),
    [
        ({"tensorflow": "2.21.3", "pandas": "3.0"}, ""),
        ({"tensorflow-cpu": "2.21.0", "pandas": "2.10.1"}, ""),  # 2.10 is after 2.2
        (
            {"tensorflow": "2.22.0rc1", "pandas": "3.0"},
            "tensorflow is 2.22.0rc1 and must be >=2.21",
        ),
        ({"tensorflow": "2.21.0"}, "pandas is not installed"),
    ],
)
def test_packages_are_compared_with_the_requirements(installed, amiss):
    def version(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    finding = machine.packages(REQUIREMENTS, version)
    assert (finding.state == PROBLEM) == bool(amiss)
    assert amiss in finding.text
    assert bool(finding.fix) == bool(amiss)


def test_every_line_of_the_requirements_is_checked():
    text = (REPOSITORY / "requirements.txt").read_text()
    names = [line for line in text.splitlines() if line and line[0] != "#"]
    found = machine.packages(text, lambda name: "0.0").text
    assert found.count(" and must be ") == len(names)


@pytest.mark.parametrize(
    ("smi", "facts", "environment", "wheels", "state", "says"),
    [
        (CARD, NO_GPU | {"gpus": ["NVIDIA H200"]}, {}, WHEELS, OK, "sees NVIDIA H200"),
        (None, NO_GPU, {}, set(), WARNING, "no NVIDIA driver"),
        ("nvidia-smi fails: mismatch", NO_GPU, {}, WHEELS, PROBLEM, "driver does not work"),
        (CARD, NO_GPU, {"CUDA_VISIBLE_DEVICES": "-1"}, WHEELS, WARNING, "hidden by CUDA_VISIBLE"),
        (CARD, NO_GPU, {"CUDA_VISIBLE_DEVICES": ""}, WHEELS, WARNING, "hidden by CUDA_VISIBLE"),
        (CARD, NO_GPU, {"CUDA_VISIBLE_DEVICES": "7"}, WHEELS, PROBLEM, "DEVICES='7': no libcudnn"),
        (CARD, NO_GPU | {"built_for_gpu": False}, {}, WHEELS, PROBLEM, "is for CPUs"),
        (CARD, NO_GPU, {}, set(), PROBLEM, "cuDNN packages are not installed"),
        (CARD, NO_GPU, {}, WHEELS, PROBLEM, "sees none: no libcudnn"),
        (CARD, {"ended": "x"}, {}, WHEELS, WARNING, "Keras cannot start"),
    ],
)
def test_a_gpu_is_seen_or_the_finding_says_why_not(smi, facts, environment, wheels, state, says):
    finding = machine.gpu(smi, facts, environment, wheels)
    assert finding.state == state
    assert says in finding.text
    assert finding.state == OK or "ended" in facts or finding.fix


@pytest.mark.parametrize(
    ("keras", "says"),
    [
        ("raise ImportError('libfoo.so: no such file')", "libfoo.so: no such file"),
        ("import os; os.kill(os.getpid(), 4)", "SIGILL"),
        ("import time; time.sleep(600)", "did not answer within 2 s"),
    ],
)
def test_a_broken_backend_is_a_finding_and_leaves_no_process(tmp_path, monkeypatch, keras, says):
    (tmp_path / "keras.py").write_text(keras)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    facts = machine.ask_keras(seconds=0, patience=2 if "sleep" in keras else 60)
    assert time.monotonic() - began < 60
    finding = machine.backend(facts)
    assert finding.state == PROBLEM
    assert says in finding.text
    if says == "SIGILL":
        assert "AVX" in finding.fix


def test_the_reason_is_the_last_line_on_cuda():
    log = (
        "I0000 1.2 1 a.cc:1] oneDNN is on\nW0000 1.3 1 b.cc:2] Could not load libcudart\n"
        "E0000 1.4 1 c.cc:3] failed call to cuInit: CUDA_ERROR_NO_DEVICE\nI0000 1 1 d.cc:4] bye"
    )
    assert machine._why_no_gpu(log) == "failed call to cuInit: CUDA_ERROR_NO_DEVICE"
    assert machine._why_no_gpu("") == ""


def test_folders_on_one_disk_share_its_space(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    folders = {"cache": (tmp_path / "new" / "cache", free * 0.6), "results": (tmp_path, free * 0.6)}
    cache, results = machine.disk_space(folders)
    assert (cache.state, results.state) == (OK, PROBLEM)
    assert "another --results-dir" in results.fix
    assert [found.state for found in machine.disk_space(folders, WARNING)] == [OK, WARNING]
    assert not (tmp_path / "new").exists()  # looking leaves nothing behind
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written_are_problems():
    (finding,) = machine.disk_space({"cache": (Path("/proc/here"), 1)})
    assert finding.state == PROBLEM
    assert "cannot be written" in finding.text
