"""Run the tests of the losses on the other backends of Keras."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

FOLDER = Path(__file__).parent
OTHERS = [path for path in FOLDER.glob("test_losses_*.py") if path != Path(__file__)]
CORE = "extreme or hand_worked or wrongly or 50_digits and PLCO and (wide or all)"


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_losses_on_another_backend(backend):
    if backend == keras.backend.backend():
        pytest.skip(f"these tests already run on {backend}")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = dict(os.environ, KERAS_BACKEND=backend, JAX_ENABLE_X64="1")
    # property tests use many shapes, and JAX compiles each of them
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not hypothesis", "-k", CORE]
    command += OTHERS
    done = subprocess.run(
        command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
