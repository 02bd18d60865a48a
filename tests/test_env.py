"""reproduce/env.sh: which interpreter is taken, what is made, and what each failure says."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def checkout(tmp_path):
    """A copy of what env.sh reads, with nothing to install, so that making .venv takes seconds."""
    (tmp_path / "reproduce").mkdir()
    shutil.copy(REPOSITORY / "reproduce/env.sh", tmp_path / "reproduce")
    shutil.copy(REPOSITORY / "requirements.txt", tmp_path)
    (tmp_path / "requirements.lock").write_text("# nothing\n")
    return tmp_path


def source(checkout: Path, **variables: str) -> subprocess.CompletedProcess:
    """Source env.sh as a script does, with no environment but PATH and `variables`."""
    script = f'set -euo pipefail; source "{checkout}/reproduce/env.sh"; echo "$PYTHON"'
    environment = {"PATH": os.environ["PATH"], "HOME": str(checkout), **variables}
    return subprocess.run(
        ["/bin/bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )


def test_own_interpreter_is_taken_and_nothing_is_made(checkout):
    result = source(checkout, CXR_PYTHON=sys.executable)
    assert (result.returncode, result.stdout.strip()) == (0, sys.executable), result.stderr
    assert not (checkout / ".venv").exists()


def test_active_venv_is_taken_if_it_has_the_packages(checkout):
    prefix = Path(sys.prefix)
    result = source(checkout, VIRTUAL_ENV=str(prefix))
    assert result.stdout.strip() == str(prefix / "bin/python"), result.stderr


@pytest.mark.parametrize("wanted", ["/no/such/python", "/bin/true"])
def test_own_interpreter_that_does_not_do_is_one_sentence(checkout, wanted):
    result = source(checkout, CXR_PYTHON=wanted)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "CXR_PYTHON" in result.stderr


def test_wrong_version_is_named(checkout):
    requirements = checkout / "requirements.txt"
    requirements.write_text(requirements.read_text().replace("keras>=3.15,<3.16", "keras>=9,<10"))
    result = source(checkout, CXR_PYTHON=sys.executable)
    assert result.returncode == 2
    assert "keras>=9,<10" in result.stderr


def test_venv_is_made_once_then_found_at_once(checkout):
    first = source(checkout)
    assert first.returncode == 0, first.stderr
    assert "Making the Python environment" in first.stderr
    started = time.perf_counter()
    second = source(checkout)
    assert (second.stderr, second.stdout) == ("", first.stdout)
    assert time.perf_counter() - started < 0.3


def test_interrupted_venv_heals_on_the_next_run(checkout):
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/made-by-env.sh").touch()  # the mark without the stamp: killed in between
    (checkout / ".venv/bin/python").touch()
    result = source(checkout)
    assert result.returncode == 0, result.stderr
    assert subprocess.run([checkout / ".venv/bin/python", "-c", ""]).returncode == 0


def test_foreign_venv_without_the_packages_is_left_alone(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv/precious").touch()
    result = source(checkout)
    assert result.returncode == 2
    assert "is not ours" in result.stderr
    assert (checkout / ".venv/precious").exists()


def test_no_network_is_one_sentence_and_the_next_run_starts_over(checkout):
    (checkout / "requirements.lock").write_text("absl-py==0.0.1 --hash=sha256:" + "0" * 64 + "\n")
    result = source(checkout, PIP_NO_INDEX="1")
    assert result.returncode == 2
    assert "Installing the packages failed" in result.stderr
    (checkout / "requirements.lock").write_text("# nothing\n")
    assert source(checkout).returncode == 0


def test_no_python_is_one_sentence(checkout):
    tools = checkout / "tools"
    tools.mkdir()
    for tool in ("dirname", "cmp", "flock", "rm", "mkdir"):
        (tools / tool).symlink_to(shutil.which(tool))
    result = source(checkout, PATH=str(tools))
    assert result.returncode == 2
    assert "No Python 3.11, 3.12 or 3.13" in result.stderr


def test_lock_pins_and_hashes_everything_that_is_asked_for():
    lock = (REPOSITORY / "requirements.lock").read_text()
    pins = {line.split("==")[0]: line for line in lock.splitlines() if "==" in line}
    assert "http" not in lock  # no index addresses
    assert all(lock.split(pin, 1)[1].lstrip().startswith("--hash=") for pin in pins.values())
    for line in (REPOSITORY / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert line.split(">=")[0] in pins


def test_conda_environment_resolves():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"]
    assert [name.split("=")[0] for name in conda] == ["python", "pip"]
    wanted = [word for line in pip["pip"] for word in line.split(" ")]
    assert wanted[:2] == ["-r", "requirements.txt"]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", *wanted]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if "No matching distribution found for nvidia" in result.stderr:
        pytest.skip("no network: the CUDA packages cannot be looked up")
    assert result.returncode == 0, result.stderr
