"""Rows on JAX: asynchronous callbacks, and one row on several devices.

JAX divides a processor into virtual devices when it starts, so each training runs in a process of
its own; several tests check the output of the same process.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reproduce import RunError
from reproduce.engine import backend
from tests.conftest import REPOSITORY

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed: pip install jax"
)


def run_part(name: str, folder: Path, devices: int) -> dict:
    """Run a function of tests/devices.py in a process with so many devices; return its result."""
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.devices", name, str(folder), str(devices)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def one(folder) -> dict:
    return run_part("one_device", folder, 1)


@pytest.fixture(scope="module")
def two(folder, one) -> dict:
    return run_part("two_devices", folder, 2)


@needs_jax
def test_callbacks_are_asynchronous(one):
    assert one["callbacks are asynchronous"]


@needs_jax
def test_the_first_nan_of_an_epoch_lists_the_images_of_its_batch_only(one):
    assert "NaN in epoch 1" in one["failure"]
    assert one["images of the batch"] == one["images named"]


@needs_jax
def test_jax_reads_compiled_programs_of_another_process(folder, two):
    again = run_part("again", folder, 2)
    assert two["cache_misses"] > 10
    assert (again["cache_hits"] > 10, again["cache_misses"]) == (True, 0)
    assert again["probabilities"] == two["probabilities"]


XLA_ON_TENSORFLOW = """
import sys
from pathlib import Path
from reproduce.engine import backend
backend.start("cpu", compiled=Path(sys.argv[1]))
import keras, numpy as np
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
model.compile("sgd", "mse", jit_compile=True)
print(repr(model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0).history["loss"]))
"""


def test_tensorflow_reads_compiled_programs_of_another_process(tmp_path):
    compiled, losses = [], []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", XLA_ON_TENSORFLOW, str(tmp_path)],
            cwd=REPOSITORY,
            env=os.environ | {"KERAS_BACKEND": "tensorflow"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        losses.append(done.stdout)
        # a compiled program is written once and then only read
        compiled.append({path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.pb")})
    assert compiled[0] == compiled[1] != {}
    assert losses[0] == losses[1]


@needs_jax
def test_two_devices_train_as_one(one, two):
    assert two["devices of a variable"] == 2
    assert one["devices of a variable"] == 1
    difference = np.abs(np.array(two["probabilities"]) - np.array(one["probabilities"])).max()
    assert 0 < difference < 1.5e-6


@needs_jax
def test_a_resumed_run_on_two_devices_ends_with_the_same_bytes(two):
    assert two["resumed with equal bytes"]


@needs_jax
def test_batches_and_devices_that_cannot_be_divided_are_refused(two):
    assert two["an odd batch"] == (
        "Batches of 9 images cannot be divided among 2 devices: give a --batch-size that can, or "
        "another --devices-per-row."
    )
    assert two["too many devices"] == "--devices-per-row 4, but JAX sees only cpu:0, cpu:1."


def test_several_devices_are_refused_on_tensorflow(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(RunError, match=r"is for JAX: on TensorFlow each device would normalise by"):
        backend.check_devices(2, 32)
    backend.check_devices(1, 33)


@pytest.mark.parametrize(
    ("given", "count", "used"),
    [(None, 1, "0"), (None, 3, "0,1,2"), ("2,5,6", 1, "2"), ("2,5,6", 2, "2,5"), ("", 1, "")],
)
def test_no_more_gpus_are_opened_than_a_row_uses(monkeypatch, given, count, used):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    for name in ("TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    backend._open_gpus(count)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == used
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
