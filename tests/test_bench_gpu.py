"""Test the GPU benchmark: a small run on the processor, and what the table says without a GPU."""

import importlib.util
import os
import subprocess
import sys

import keras
import pytest

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


def test_without_a_gpu_the_table_says_not_measured(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "gpu", lambda: "")
    monkeypatch.setattr(sys, "argv", ["bench.gpu"])
    gpu.main()
    table = capsys.readouterr().out
    assert table.startswith("No GPU; ")
    rows = [line for line in table.splitlines() if line.startswith("| ") and "measured |" in line]
    measured = [line for line in rows if gpu.MISSING not in line and "goal" not in line]
    assert not measured
    assert len(rows) == 1 + 9 + 5  # a heading, three networks in three precisions, five checks


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
