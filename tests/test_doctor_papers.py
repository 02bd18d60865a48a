"""What each paper needs, and where its weights files are; without a network and without Keras."""

import hashlib
import subprocess
import sys

import pandas as pd
import pytest

from models import backbones, weights
from reproduce.doctor import papers
from reproduce.doctor.machine import OK, WARNING, Finding

GE = ("resnet18", "densenet121", "vgg16")


@pytest.mark.parametrize(
    ("dataset", "runs", "never"),
    [
        ("chestxray14", {"chen2019", "pham2019", "asadi2025", "mo2019"}, {"doerrich2025"}),
        ("chestmnist", {"chen2019", "pham2019", "asadi2025", "mo2019", "doerrich2025"}, set()),
        ("chexpert", {"chen2019", "pham2019", "asadi2025"}, {"mo2019", "ge2018"}),
        ("plco", {"chen2019"}, {"pham2019", "asadi2025"}),
    ],
)
def test_a_dataset_has_the_papers_that_run_on_it(dataset, runs, never):
    frame = pd.DataFrame({"split": ["train_val", "test"]})
    frame.attrs["dataset"] = dataset
    found = {need.paper for need in papers.needs(frame)}
    assert found >= runs
    assert not found & never


def test_needs_follow_from_the_scripts():
    needs = {need.paper: need for need in papers.needs()}
    assert {"chen2019", "mo2019", "wang2017"} <= needs.keys()
    wang = needs["wang2017"]
    assert (wang.dataset, wang.images, wang.training) == ("chestxray14", 112_120, 86_524)
    assert (wang.epochs, wang.cache) == (20, 112_120 * 224**2)  # two rows of ten epochs
    assert papers.time_needed(wang, 100, 224) == pytest.approx(20 * 86_524 / 100)
    assert papers.time_needed(wang, 100, 112) == pytest.approx(4 * 20 * 86_524 / 100)
    assert needs["chen2019"].cache == needs["chen2019"].images * 256**2
    assert (needs["asadi2025"].may_stop, wang.may_stop) == (True, False)
    assert needs["ge2018"].weights == dict.fromkeys(GE, "imagenet")
    assert {*needs["asadi2025"].weights.values()} == {"none"}
    parameters = backbones.BACKBONES["resnet50"].parameters
    assert wang.results == 2 * parameters * papers.STATE_BYTES


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def check(weights_of: dict[str, str], size_on_server: int = 0) -> Finding:
    return papers.starting_weights("ge2018", weights_of, lambda url: size_on_server)


def test_files_out_of_reach_are_named_with_their_addresses(cache):
    finding = check(dict.fromkeys(GE, "imagenet"))
    assert finding.state == WARNING
    assert finding.text == "ge2018: resnet18, densenet121, vgg16 out of reach"
    for name in GE:
        download = weights.download_of(name)
        assert f"{download.url} to {cache / download.file}" in finding.fix
    assert "--weights none" in finding.fix


def test_files_that_can_be_downloaded(cache):
    finding = check(dict.fromkeys(GE, "imagenet"), 46_807_446)
    assert finding.state == OK
    assert "resnet18 (47 MB), densenet121 (47 MB), vgg16 (47 MB) will be down" in finding.text


def test_intact_and_damaged_files(cache, monkeypatch):
    content = b"weights"
    md5 = hashlib.md5(content).hexdigest()
    for name in ("resnet18", "densenet121"):
        monkeypatch.setitem(weights.IMAGENET, name, weights.Download(name, f"https://{name}", md5))
    (cache / "resnet18").write_bytes(content)
    (cache / "densenet121").write_bytes(content[:3])
    finding = check({"resnet18": "imagenet", "densenet121": "imagenet", "vgg16": "none"})
    assert finding.text == "ge2018: resnet18 on this machine; densenet121 out of reach"


def test_own_files_and_none(tmp_path):
    own = tmp_path / "own.h5"
    wanted = {"resnet18": "none", "vgg16": str(own)}
    finding = check(wanted)
    assert (finding.state, finding.text) == (WARNING, "ge2018: vgg16 out of reach")
    own.touch()
    finding = check(wanted)
    assert (finding.state, finding.text) == (OK, "ge2018: vgg16 on this machine")
    finding = check({"resnet18": "none"})
    assert finding.text == "ge2018: none needed, its networks start from scratch"


def test_no_keras_is_imported():
    code = (
        "import sys; from reproduce.doctor import papers; need = papers.need_of('ge2018', "
        "'chestxray14'); papers.starting_weights('ge2018', need.weights, lambda url: 1);"
        "sys.exit('keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
