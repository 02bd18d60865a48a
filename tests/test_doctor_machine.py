"""The doctor: each finding from facts given to it, then the whole on real and on drawn images."""

import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from data import chestxray14, chexpert, label_tree, labels, plco
from data.phantom import drawing
from reproduce.doctor import __main__ as doctor
from reproduce.doctor import dataset, machine, speed
from reproduce.doctor.machine import OK, PROBLEM, WARNING, Finding

ROOT = Path(__file__).parent.parent
CARD = "NVIDIA H200, 143771 MiB, 550.54"
NO_GPU = {"backend": "tensorflow", "gpus": [], "built_for_gpu": True, "why_no_gpu": "no libcudnn"}
WHEELS = {"nvidia-cudnn-cu12"}


def run(*arguments, beside: str = ""):
    """The doctor as a user starts it; modules in the folder `beside` come before installed ones."""
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), beside])}
    return subprocess.run(
        [sys.executable, "-m", "reproduce.doctor", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


# The machine


@pytest.mark.parametrize(
    ("running", "state"), [((3, 10), PROBLEM), ((3, 11), OK), ((3, 13), OK), ((3, 14), PROBLEM)]
)
def test_python_must_be_one_the_suite_knows(running, state):
    assert machine.python(running).state == state


REQUIREMENTS = "# a note\ntensorflow>=2.21,<2.22\npandas>=2.2,<4\n"


@pytest.mark.parametrize(
    ("installed", "amiss"),
    [
        ({"tensorflow": "2.21.3", "pandas": "3.0"}, ""),
        ({"tensorflow-cpu": "2.21.0", "pandas": "2.10.1"}, ""),  # 2.10 is after 2.2
        (
            {"tensorflow": "2.22.0rc1", "pandas": "3.0"},
            "tensorflow is 2.22.0rc1 and must be >=2.21",
        ),
        ({"tensorflow": "2.21.0"}, "pandas is not installed"),
    ],
)
def test_packages_are_held_against_requirements(installed, amiss):
    def version(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    finding = machine.packages(REQUIREMENTS, version)
    assert (finding.state == PROBLEM) == bool(amiss)
    assert amiss in finding.text
    assert bool(finding.fix) == bool(amiss)


def test_every_line_of_the_requirements_is_checked():
    text = (ROOT / "requirements.txt").read_text()
    names = [line for line in text.splitlines() if line and line[0] != "#"]
    found = machine.packages(text, lambda name: "0.0").text
    assert found.count(" and must be ") == len(names)


@pytest.mark.parametrize(
    ("smi", "facts", "environment", "wheels", "state", "says"),
    [
        (CARD, NO_GPU | {"gpus": ["NVIDIA H200"]}, {}, WHEELS, OK, "sees NVIDIA H200"),
        (None, NO_GPU, {}, set(), WARNING, "no NVIDIA driver"),
        ("nvidia-smi fails: mismatch", NO_GPU, {}, WHEELS, PROBLEM, "driver does not work"),
        (CARD, NO_GPU, {"CUDA_VISIBLE_DEVICES": "-1"}, WHEELS, WARNING, "hidden by CUDA_VISIBLE"),
        (CARD, NO_GPU, {"CUDA_VISIBLE_DEVICES": ""}, WHEELS, WARNING, "hidden by CUDA_VISIBLE"),
        (CARD, NO_GPU, {"CUDA_VISIBLE_DEVICES": "7"}, WHEELS, PROBLEM, "DEVICES='7': no libcudnn"),
        (CARD, NO_GPU | {"built_for_gpu": False}, {}, WHEELS, PROBLEM, "is for CPUs"),
        (CARD, NO_GPU, {}, set(), PROBLEM, "cuDNN packages are not installed"),
        (CARD, NO_GPU, {}, WHEELS, PROBLEM, "sees none: no libcudnn"),
        (CARD, {"ended": "x"}, {}, WHEELS, WARNING, "Keras cannot start"),
    ],
)
def test_gpu_is_seen_or_it_is_said_why_not(smi, facts, environment, wheels, state, says):
    finding = machine.gpu(smi, facts, environment, wheels)
    assert finding.state == state
    assert says in finding.text
    assert finding.state == OK or "ended" in facts or finding.fix


@pytest.mark.parametrize(
    ("keras", "says"),
    [
        ("raise ImportError('libfoo.so: no such file')", "libfoo.so: no such file"),
        ("import os; os.kill(os.getpid(), 4)", "SIGILL"),
        ("import time; time.sleep(600)", "did not answer within 2 s"),
    ],
)
def test_a_broken_backend_is_a_finding_and_leaves_no_process(tmp_path, monkeypatch, keras, says):
    (tmp_path / "keras.py").write_text(keras)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    facts = machine.ask_keras(seconds=0, patience=2 if "sleep" in keras else 60)
    assert time.monotonic() - began < 60
    finding = machine.backend(facts)
    assert finding.state == PROBLEM
    assert says in finding.text
    if says == "SIGILL":
        assert "AVX" in finding.fix


def test_the_reason_is_the_last_line_on_cuda():
    log = (
        "I0000 1.2 1 a.cc:1] oneDNN is on\nW0000 1.3 1 b.cc:2] Could not load libcudart\n"
        "E0000 1.4 1 c.cc:3] failed call to cuInit: CUDA_ERROR_NO_DEVICE\nI0000 1 1 d.cc:4] bye"
    )
    assert machine._why_no_gpu(log) == "failed call to cuInit: CUDA_ERROR_NO_DEVICE"
    assert machine._why_no_gpu("") == ""


def test_folders_on_one_disk_share_its_space(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    folders = {"cache": (tmp_path / "new" / "cache", free * 0.6), "results": (tmp_path, free * 0.6)}
    cache, results = machine.disk_space(folders)
    assert (cache.state, results.state) == (OK, PROBLEM)
    assert "another --results-dir" in results.fix
    assert [found.state for found in machine.disk_space(folders, WARNING)] == [OK, WARNING]
    assert not (tmp_path / "new").exists()  # looking leaves nothing behind
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written_are_problems():
    (found,) = machine.disk_space({"cache": (Path("/proc/here"), 1)})
    assert found.state == PROBLEM
    assert "cannot be written" in found.text


# The dataset


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("phantoms")
    return {
        name: drawing.write(name, folder / name, 60, 32, seed=1, progress=False)
        for name in ("chestxray14", "chexpert", "plco")
    }


READERS = {"chestxray14": chestxray14, "chexpert": chexpert, "plco": plco}


@pytest.mark.parametrize("name", READERS)
def test_phantoms_of_every_layout_have_no_problem(folders, name):
    frame = dataset.read(folders[name], name)
    findings = list(dataset.findings(folders[name], name, frame, 32))
    assert {"layout", "images", "patients", "hierarchy", "prevalence", "decoding"} <= {
        finding.what for finding in findings
    }
    assert all(finding.state != PROBLEM for finding in findings)
    assert "drawn phantoms" in findings[0].text


def test_damaged_and_missing_images_are_named(folders, tmp_path):
    folder = shutil.copytree(folders["chestxray14"], tmp_path / "copy")
    first, second = sorted((folder / "images").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:300])
    second.unlink()
    frame = dataset.read(folder, "chestxray14")
    found = {
        finding.what: finding for finding in dataset.findings(folder, "chestxray14", frame, 32)
    }
    assert found["images"].state == found["decoding"].state == PROBLEM
    assert f"images/{first.name} is truncated" in found["decoding"].text
    assert second.name in found["images"].text
    assert "--allow-missing" in found["images"].fix


def test_patients_in_two_sets_are_a_problem(folders, tmp_path):
    folder = shutil.copytree(folders["plco"], tmp_path / "copy")
    train, test = (next(folder.rglob(f"{name}_set_delete0.0.csv*")) for name in ("train", "test"))
    header, *lines = test.read_text().splitlines()
    patient = train.read_text().splitlines()[1].split(",")[1]
    cells = lines[0].split(",")
    assert header.split(",")[1] == "plco_id"
    test.write_text("\n".join([header, ",".join([cells[0], patient, *cells[2:]]), *lines[1:]]))
    found = dataset.read(folder, "plco")
    assert isinstance(found, Finding)
    assert found.state == PROBLEM
    assert patient in found.text


def test_open_labels_are_a_share_in_chexpert_and_a_problem_in_plco(folders):
    frame = dataset.read(folders["plco"], "plco")
    assert dataset.closure(frame, "plco").state == OK
    child = labels.PLCO[int(label_tree.leaves(label_tree.PLCO)[0])]
    frame.loc[:2, list(labels.PLCO)] = 0.0
    frame.loc[:2, child] = 1.0
    finding = dataset.closure(frame, "plco")
    assert finding.state == PROBLEM
    assert f"{3 / len(frame):.1%} of images" in finding.text
    assert child in finding.text
    frame = dataset.read(folders["chexpert"], "chexpert")
    frame[list(labels.CHEXPERT)] = np.nan
    frame.loc[0, ["Cardiomegaly", "Edema"]] = 1.0
    frame.loc[0, "Lung Opacity"] = -1.0  # Edema's parent is uncertain, Cardiomegaly's is blank
    finding = dataset.closure(frame, "chexpert")
    assert finding.state == OK
    assert "most often Cardiomegaly" in finding.text
    frame.loc[0, "Cardiomegaly"] = 0.0
    assert "closed" in dataset.closure(frame, "chexpert").text


def test_labels_without_a_positive_test_image_are_named(folders):
    frame = dataset.read(folders["chestxray14"], "chestxray14")
    frame.loc[frame["split"] == "test", "Mass"] = 0.0
    *_, finding = dataset.prevalence(frame, "chestxray14")
    assert finding.state == WARNING
    assert "Mass" in finding.text


def test_a_complete_dataset_far_from_its_shares_is_pointed_out(shared_data):
    """The whole released label file, whose images are not needed to count."""
    folder = shared_data / "chestxray14-labels"
    table = chestxray14.reading.read_table(
        folder / "Data_Entry_2017_v2020.csv.gz", ("Image Index", "Finding Labels")
    )
    frame = table["Finding Labels"].str.get_dummies().astype(np.float32).assign(split="train_val")
    frame.attrs = {"complete": True, "phantom": False}
    (finding,) = dataset.prevalence(frame, "chestxray14")
    assert finding.state == OK
    assert "Infiltration 17.7% (17.7%)" in finding.text
    frame["Mass"] = 1 - frame["Mass"]
    (finding,) = dataset.prevalence(frame, "chestxray14")
    assert finding.state == WARNING
    assert "Look at Mass:" in finding.fix


# What the papers need


def test_needs_follow_from_the_scripts():
    needs = {need.paper: need for need in dataset.needs()}
    assert {"chen2019", "mo2019", "wang2017"} <= needs.keys()
    wang = needs["wang2017"]
    assert (wang.dataset, wang.images, wang.training) == ("chestxray14", 112_120, 86_524)
    assert (wang.epochs, wang.cache) == (20, 112_120 * 224**2)  # two rows of ten epochs
    assert dataset.time_needed(wang, 100, 224) == pytest.approx(20 * 86_524 / 100)
    assert dataset.time_needed(wang, 100, 112) == pytest.approx(4 * 20 * 86_524 / 100)
    assert needs["chen2019"].cache == needs["chen2019"].images * 256**2
    assert (needs["asadi2025"].may_stop, wang.may_stop) == (True, False)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 seconds"),
        (100, "100 seconds"),
        (7000, "117 minutes"),
        (9000, "2 hours"),
        (1e6, "12 days"),
    ],
)
def test_durations_are_readable(seconds, text):
    assert dataset.duration(seconds) == text


# The whole


@pytest.fixture
def light_keras(tmp_path_factory) -> str:
    """For a PYTHONPATH: a Keras that starts at once. The real one is asked below."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "keras.py").write_text("class backend:\n    backend = staticmethod(lambda: 'jax')\n")
    (folder / "jax.py").write_text("def devices():\n    return []\n")
    return str(folder)


def test_real_images_are_well(shared_data, tmp_path, light_keras):
    places = ["--cache-dir", tmp_path / "c", "--results-dir", tmp_path / "r", "--seconds", 0]
    folder = shared_data / "chestxray14-64px"
    done = run("--data-dir", folder, "--dataset", "chestxray14", *places, beside=str(light_keras))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "696 images (526 train_val, 170 test), a subset" in " ".join(done.stdout.split())
    assert "no problems" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= doctor.WIDTH
    assert not list(tmp_path.iterdir())


def test_a_wrong_folder_and_a_broken_keras_are_two_problems(tmp_path):
    (tmp_path / "keras.py").write_text("raise ImportError('broken on purpose')")
    done = run("--data-dir", tmp_path, "--dataset", "plco", "--seconds", 0, beside=str(tmp_path))
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
    done = run("--data-dir", folder, "--dataset", "plco", "--seconds", 0, beside=light_keras)
    assert done.returncode == 1, done.stderr
    assert "does not look like a PLCO folder" in " ".join(done.stdout.split())
    assert not done.stderr


def test_a_folder_needs_its_dataset():
    done = run("--data-dir", ".")
    assert done.returncode == 2
    assert "go together" in done.stderr
