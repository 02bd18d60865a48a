"""Shared fixtures; tests share one process because importing TensorFlow takes seconds."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def environment_as_before():
    """What a file's tests set, such as where compiled programs lie, ends with the file."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Released label files and images in ../shared/data; tests that read them skip without it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder} with the released files that this test reads")
    return folder
