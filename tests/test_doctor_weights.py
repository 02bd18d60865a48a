"""What the doctor says of weights files, without a network and without Keras."""

import hashlib
import subprocess
import sys

import pytest

from models import weights
from reproduce.doctor import weights as doctor
from reproduce.doctor.machine import OK, WARNING


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def offline(url):
    return 0


def test_a_paper_whose_files_are_out_of_reach(cache):
    finding = doctor.look("ge2018", "chestxray14", offline)
    assert finding.state == WARNING
    assert finding.text == "ge2018: resnet18, densenet121, vgg16 out of reach"
    for name in ("resnet18", "densenet121", "vgg16"):
        download = weights.download_of(name)
        assert f"{download.url} to {cache / download.file}" in finding.fix
    assert "--weights none" in finding.fix


def test_a_paper_whose_files_can_be_downloaded(cache):
    finding = doctor.look("ge2018", "chestxray14", lambda url: 46_807_446)
    assert finding.state == OK
    assert "resnet18 (47 MB), densenet121 (47 MB), vgg16 (47 MB) will be down" in finding.text


def test_files_there_and_damaged(cache, monkeypatch):
    content = b"weights"
    for name in ("resnet18", "densenet121"):
        published = weights.Download(
            name, f"https://e.org/{name}", hashlib.md5(content).hexdigest()
        )
        monkeypatch.setitem(weights.IMAGENET, name, published)
    (cache / "resnet18").write_bytes(content)
    (cache / "densenet121").write_bytes(content[:3])
    finding = doctor._finding("ge2018", "imagenet,vgg16=none", ["resnet18", "densenet121"], offline)
    assert finding.text == "ge2018: resnet18 on this machine; densenet121 out of reach"


def test_own_files_and_none(tmp_path):
    own = tmp_path / "own.h5"
    setting = f"none,vgg16={own}"
    finding = doctor._finding("ge2018", setting, ["resnet18", "vgg16"], offline)
    assert (finding.state, finding.text) == (WARNING, "ge2018: vgg16 out of reach")
    own.touch()
    finding = doctor._finding("ge2018", setting, ["resnet18", "vgg16"], offline)
    assert (finding.state, finding.text) == (OK, "ge2018: vgg16 on this machine")
    finding = doctor.look("asadi2025", "chexpert", offline)
    assert finding.text == "asadi2025: none needed, its networks start from scratch"


def test_no_keras_is_imported():
    code = (
        "import sys; from reproduce.doctor import weights;"
        "weights.look('ge2018', 'chestxray14', lambda url: 1); sys.exit('keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
