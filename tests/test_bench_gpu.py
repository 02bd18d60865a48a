"""Test the GPU benchmark: a small run on the processor, and what happens without a GPU."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import bench
from bench import gpu
from tests.conftest import REPOSITORY


def test_multiplications_by_hand():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)  # 4 · 4 pixels, 3 · 3 · 3 · 4
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.SeparableConv2D(5, 3, padding="same")(x)  # 4 · 4 · (3 · 3 · 4 + 4 · 5)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2)(x))  # 5 · 2
    assert gpu.multiply_adds(model) == 16 * 108 + 16 * (36 + 20) + 10


def test_without_a_gpu_nothing_is_written(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "gpu", lambda: "")
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "--write"])
    page = bench.PERFORMANCE.read_text()
    with pytest.raises(SystemExit) as stopped:
        gpu.main()
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith(
        "No GPU is visible. Use a machine with one, or --quick for the processor.\n"
    )
    assert bench.PERFORMANCE.read_text() == page


def test_the_gradient_of_hlup_by_hand():
    """One parent with one child, both logits 0, the child absent: p = 1/4 and d/dy = 1/6 each.

    The parent is present, which adds −1/2 to its own logit.
    """
    ancestors = np.array([[1, 0], [1, 1]])
    gradient = gpu.hlup_gradient(np.array([[1.0, 0.0]]), np.zeros((1, 2)), ancestors)
    np.testing.assert_allclose(gradient, [[1 / 6 - 1 / 2, 1 / 6]], rtol=1e-12)


def test_a_failed_method_is_not_measured(capsys):
    way = gpu.Way("fast", "no such network")
    plan = gpu.QUICK
    assert gpu.seconds_of_steps(plan, {"TensorFlow": (way, sys.executable)}) == {}
    assert "TensorFlow: Way(how='fast', backbone='no such network'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_a_small_run_on_a_processor():
    """Run the parts that do not train whole rows, which take minutes."""
    command = [sys.executable, "-m", "bench.gpu", "--quick", "--only", "networks", "gather"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    _, jax, tensorflow, torch, ratio, share, fed, _ = lines[4].strip("| ").split(" | ")
    assert all(float(rate.replace(",", "")) > 0 for rate in (jax, tensorflow, fed))
    assert (torch, ratio) == (gpu.MISSING, gpu.MISSING)  # PyTorch does not have this network
    assert share.endswith("%")
    checks = "\n".join(lines[6:])
    assert gpu.MISSING not in checks
    assert checks.count("exact HLUP by `gather`") == 2
