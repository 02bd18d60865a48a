"""The flags that bring real images into a script: --download, --patients, and what they refuse."""

import hashlib
import sys

import numpy as np
import pytest

from data import DataError, chestmnist
from data.phantom import drawing
from downloads import DownloadError
from reproduce import RunError, mo2019
from reproduce.engine import dataset
from reproduce.engine.options import parse
from tests import mnist
from tests.file_server import file_server  # noqa: F401

DATASETS = ["chestxray14", "chestmnist", "chexpert"]


def parsed(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["mo2019", *map(str, words)])
    return parse(mo2019.Config, mo2019.DEMO, "", DATASETS)


@pytest.fixture
def small_file(tmp_path, monkeypatch, file_server):  # noqa: F811
    """Return the address of a server with a small ChestMNIST of 64 px, and the server's handler."""
    listed = mnist.listed().groupby("chexnet").head(40)
    noise = np.random.default_rng(0)

    def pixels_of(names):
        return noise.integers(0, 256, (len(names), 64, 64), np.uint8)

    path = mnist.write(tmp_path / "chestmnist_64.npz", listed, pixels_of)
    handler, address = file_server
    handler.files = {f"/{path.name}": path.read_bytes()}
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(chestmnist.FILES, 64, (path.name, digest))
    path.unlink()
    return address, handler


def load(config, options):
    return dataset.load(options, config, mo2019.split, [], phantoms=20, resize=config.size)


@pytest.mark.parametrize("to_folder", [False, True])
def test_download_then_run(small_file, tmp_path, monkeypatch, to_folder):
    address, handler = small_file
    words = ["--dataset", "chestmnist", "--size", 64, "--download", "--base-url", address]
    words += ["--cache-dir", tmp_path / "cache"] + ["--data-dir", tmp_path / "own"] * to_folder
    for _ in range(2):
        config, options = parsed(monkeypatch, *words)
        assert options.preset == "paper"
        data = load(config, options)
    assert len(handler.asked) == 1
    target = tmp_path / "own" if to_folder else tmp_path / "cache/downloads/chestmnist"
    assert (target / "chestmnist_64.npz").is_file()
    assert len(data.frame) == 120
    assert data.facts["source"] == {"shortest_side": 64, "enlarged": 0}
    assert data.not_comparable == "subset of 120 images"
    assert data.note.startswith("patients unknown (120 rows instead of")


def test_a_complete_file_in_the_papers_split_and_size_is_comparable(
    small_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(chestmnist, "COMPLETE", dict.fromkeys(mnist.SETS, 40))
    words = ["--dataset", "chestmnist", "--download", "--base-url", small_file[0], "--size", 64]
    for split, reason in (
        ("chexnet", None),
        ("official", "the dataset's own split, because its patients are unknown"),
    ):
        more = ["--split", split, "--cache-dir", tmp_path]
        assert load(*parsed(monkeypatch, *words, *more)).not_comparable == reason


def test_images_that_are_enlarged_are_not_comparable(small_file, tmp_path, monkeypatch):
    words = ["--dataset", "chestmnist", "--download", "--base-url", small_file[0]]
    config, options = parsed(monkeypatch, *words, "--size", 64, "--cache-dir", tmp_path)
    load(config, options)
    words = ["--dataset", "chestmnist", "--data-dir", tmp_path / "downloads/chestmnist"]
    config, options = parsed(monkeypatch, *words, "--size", 65, "--cache-dir", tmp_path)
    data = load(config, options)
    assert data.facts["source"] == {"shortest_side": 64, "enlarged": 120}
    assert data.not_comparable.endswith("images enlarged from 64 to 65 px")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "chexpert", "--download"], "CheXpert needs a registration"),
        (["--base-url", "https://e.org"], "--base-url says where --download fetches from"),
        (["--download", "--base-url", "e.org", "--dataset", "chestmnist"], "no address"),
        (["--patients", "1-5"], "--patients is for a dataset"),
        (["--download", "--dataset", "chestmnist", "--phantoms", 20], "leave one of them"),
    ],
)
def test_flags_without_effect_are_refused(words, message, monkeypatch):
    with pytest.raises((RunError, DownloadError), match=message):
        parsed(monkeypatch, *words)


def test_patients_restrict_every_dataset(tmp_path, monkeypatch):
    folder = drawing.write("chestxray14", tmp_path / "x", 60, 64, seed=0, progress=False)
    everything = parsed(monkeypatch, "--data-dir", folder, "--cache-dir", tmp_path / "cache")[1]
    whole = dataset.read(everything, 64, 20, 64)
    (tmp_path / "ids.txt").write_text("00000001\n3\n\n")
    for given in ("1,3", tmp_path / "ids.txt"):
        words = ["--data-dir", folder, "--cache-dir", tmp_path / "cache", "--patients", given]
        some = dataset.read(parsed(monkeypatch, *words)[1], 64, 20, 64)
        assert {*some["patient_id"]} == {"1", "3"}
        assert len(some) == whole["patient_id"].isin(["1", "3"]).sum()
        facts = some.attrs["patients"]
        assert facts["count"] == 2
        assert facts["sha256"] == hashlib.sha256(b"1\n3").hexdigest()
        assert not some.attrs["complete"]
    words = ["--data-dir", folder, "--patients", "first"]
    options = parsed(monkeypatch, *words)[1]
    with pytest.raises(DataError, match="give ranges such as 1-100,205, or a file"):
        dataset.read(options, 64, 20, 64)
