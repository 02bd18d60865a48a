"""Light commands stay light: importing these modules loads none of the heavy libraries."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import data.datasets", "pandas cv2 tensorflow"),
        ("import data.augment, data.template_crop", "tensorflow"),
        ("import data.phantom", "tensorflow matplotlib"),
        ("import evaluation.audit, evaluation.tables", "tensorflow"),
        ("from evaluation import figures", "matplotlib.pyplot tensorflow keras"),
        (
            "from models import backbones, weights;"
            "weights.find_weights('vgg16', backbones.weights_of('imagenet', 'vgg16'));"
            "weights.fetch('vgg16', 'none')",
            "keras",
        ),
    ],
)
def test_heavy_libraries_are_not_loaded(code, heavy):
    code += f"; import sys; print(set({heavy.split()}) & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
