"""The doctor as a user starts it, on real and on synthetic images."""

import os
import subprocess
import sys
import time

import pytest

from reproduce.doctor import __main__ as doctor
from reproduce.doctor import speed
from tests.conftest import REPOSITORY


def run(*arguments, modules: str = ""):
    """Run the doctor; modules in the folder `modules` hide installed ones."""
    environment = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), modules])}
    return subprocess.run(
        [sys.executable, "-m", "reproduce.doctor", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


@pytest.fixture
def light_keras(tmp_path_factory) -> str:
    """Return a folder with a Keras that starts at once; the real one is measured below."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "keras.py").write_text("class backend:\n    backend = staticmethod(lambda: 'jax')\n")
    (folder / "jax.py").write_text("def devices():\n    return []\n")
    return str(folder)


def test_real_images_are_well(shared_data, tmp_path, light_keras):
    places = ["--cache-dir", tmp_path / "c", "--results-dir", tmp_path / "r", "--seconds", 0]
    folder = shared_data / "chestxray14-64px"
    done = run("--data-dir", folder, "--dataset", "chestxray14", *places, modules=str(light_keras))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "696 images (526 train_val, 170 test), a subset" in " ".join(done.stdout.split())
    assert "no problems" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= doctor.WIDTH
    assert not list(tmp_path.iterdir())


def test_a_wrong_folder_and_a_broken_keras_are_two_problems(tmp_path):
    (tmp_path / "keras.py").write_text("raise ImportError('broken on purpose')")
    done = run("--data-dir", tmp_path, "--dataset", "plco", "--seconds", 0, modules=str(tmp_path))
    printed = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stdout + done.stderr
    assert "broken on purpose" in printed  # and the doctor went on
    assert "does not look like a PLCO folder" in printed
    assert "2 problems" in printed
    assert not done.stderr


def test_the_real_keras_is_asked_and_timed(monkeypatch):
    seen = speed.devices("tensorflow")
    assert seen.keys() == {"gpus", "built_for_gpu"}
    monkeypatch.setattr(speed, "NETWORK", "tiny")
    monkeypatch.setattr(speed, "SIZE", 16)
    began = time.perf_counter()
    measured = speed.training_speed(0.2, "tensorflow", gpu=False)
    assert measured["images_a_second"] > measured["batch"] / (time.perf_counter() - began)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "x", "1e9"])
def test_seconds_are_a_number_that_can_be_waited_for(seconds):
    done = run("--seconds", seconds)
    assert done.returncode == 2
    assert "give seconds from 0 to 3,600" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_locale_without_unicode_does_not_stop_it(tmp_path, monkeypatch, light_keras):
    folder = tmp_path / "胸部"
    folder.mkdir()
    monkeypatch.setenv("LC_ALL", "POSIX")
    monkeypatch.setenv("PYTHONUTF8", "0")
    done = run("--data-dir", folder, "--dataset", "plco", "--seconds", 0, modules=light_keras)
    assert done.returncode == 1, done.stderr
    assert "does not look like a PLCO folder" in " ".join(done.stdout.split())
    assert not done.stderr


def test_a_folder_needs_its_dataset():
    done = run("--data-dir", ".")
    assert done.returncode == 2
    assert "go together" in done.stderr
