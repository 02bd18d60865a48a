"""env.sh and all.sh: the interpreter that is chosen, the environment that is made, each error."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent


def write_checkout(folder: Path) -> Path:
    """Copy what env.sh reads, with nothing to install, so that making .venv takes seconds."""
    (folder / "reproduce/doctor").mkdir(parents=True)
    for name in (
        "requirements.txt",
        "safefiles.py",
        "downloads.py",
        "reproduce/__init__.py",
        "reproduce/env.sh",
        "reproduce/doctor/__init__.py",
        "reproduce/doctor/machine.py",
    ):
        shutil.copy(REPOSITORY / name, folder / name)
    (folder / "requirements.lock").write_text("# nothing\n")
    return folder


@pytest.fixture
def checkout(tmp_path):
    return write_checkout(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a checkout in which env.sh made .venv, and the result of that run."""
    folder = write_checkout(tmp_path_factory.mktemp("made"))
    return folder, source(folder)


@pytest.fixture
def quick_path(made, tmp_path) -> str:
    """Return a PATH whose Python makes a venv by copying that of `made`, which takes a second."""
    venv, tools = made[0] / ".venv", tmp_path / "tools"
    tools.mkdir()
    python = tools / "python3.12"
    python.write_text(
        "#!/bin/bash\n"
        'if [[ "$1 $2" == "-m venv" ]]; then\n'
        f'    exec cp -a "{venv}"/{{bin,include,lib,lib64,pyvenv.cfg}} "$3"\n'
        "fi\n"
        f'exec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    return f"{tools}:{os.environ['PATH']}"


def source(checkout: Path, **variables: str) -> subprocess.CompletedProcess:
    """Source env.sh as a script does, in an environment of PATH, HOME and `variables` only."""
    script = f'set -euo pipefail; source "{checkout}/reproduce/env.sh"; echo "$PYTHON"'
    environment = {"PATH": os.environ["PATH"], "HOME": str(checkout), **variables}
    return subprocess.run(
        ["/bin/bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )


def test_own_interpreter_is_taken_and_nothing_is_made(checkout):
    result = source(checkout, CXR_PYTHON=sys.executable)
    assert (result.returncode, result.stdout.strip()) == (0, sys.executable), result.stderr
    assert not (checkout / ".venv").exists()


def test_active_venv_is_taken_if_it_has_the_packages(checkout):
    prefix = Path(sys.prefix)
    result = source(checkout, VIRTUAL_ENV=str(prefix))
    assert result.stdout.strip() == str(prefix / "bin/python"), result.stderr


@pytest.mark.parametrize("wanted", ["/no/such/python", "/bin/true", "/bin/cat", "/bin/false"])
def test_own_interpreter_that_does_not_do_is_one_sentence(checkout, wanted):
    result = source(checkout, CXR_PYTHON=wanted)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "CXR_PYTHON" in result.stderr
    assert "()" not in result.stderr
    assert "which is not a " in result.stderr


def test_wrong_version_is_named(checkout):
    requirements = checkout / "requirements.txt"
    requirements.write_text(requirements.read_text().replace("keras>=3.15,<3.16", "keras>=9,<10"))
    result = source(checkout, CXR_PYTHON=sys.executable)
    assert result.returncode == 2
    assert re.search(r"keras is [\d.]+ and must be >=9,<10", result.stderr)


def test_venv_is_made_once_then_found_at_once(made):
    checkout, first = made
    assert first.returncode == 0, first.stderr
    assert "Making the Python environment" in first.stderr
    started = time.perf_counter()
    second = source(checkout)
    assert (second.stderr, second.stdout) == ("", first.stdout)
    assert time.perf_counter() - started < 0.3


def test_interrupted_venv_heals_on_the_next_run(checkout, quick_path):
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/made-by-env.sh").touch()  # without requirements.lock: it was interrupted
    (checkout / ".venv/bin/python").touch()
    result = source(checkout, PATH=quick_path)
    assert result.returncode == 0, result.stderr
    assert subprocess.run([checkout / ".venv/bin/python", "-c", ""]).returncode == 0


def test_foreign_venv_without_the_packages_is_left_alone(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv/precious").touch()
    result = source(checkout)
    assert result.returncode == 2
    assert "was not made by this suite and has no bin/python: move it away" in result.stderr
    assert (checkout / ".venv/precious").exists()
    (checkout / ".venv/bin").mkdir()
    (checkout / ".venv/bin/python").symlink_to("/usr/bin/env")
    result = source(checkout)
    assert result.returncode == 2
    assert f"{checkout}/.venv/bin/python -m pip install" in result.stderr
    assert (checkout / ".venv/precious").exists()


def test_no_network_is_one_sentence_and_the_next_run_starts_over(checkout, quick_path):
    (checkout / "requirements.lock").write_text("absl-py==0.0.1 --hash=sha256:" + "0" * 64 + "\n")
    result = source(checkout, PATH=quick_path, PIP_NO_INDEX="1")
    assert result.returncode == 2
    assert "Installing the packages failed" in result.stderr
    (checkout / "requirements.lock").write_text("# nothing\n")
    assert source(checkout, PATH=quick_path).returncode == 0


def test_no_python_is_one_sentence(checkout):
    tools = checkout / "tools"
    tools.mkdir()
    for tool in ("dirname", "cmp", "flock", "rm", "mkdir", "cp", "cat"):
        (tools / tool).symlink_to(shutil.which(tool))
    result = source(checkout, PATH=str(tools))
    assert result.returncode == 2
    assert "No Python 3.11, 3.12 or 3.13" in result.stderr


def test_an_empty_path_is_one_sentence(checkout):
    result = source(checkout, PATH="")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "PATH has no" in result.stderr


# all.sh


@pytest.fixture
def suite(checkout):
    """Set up all.sh with papers that print their arguments and exit with the code in a variable."""
    shutil.copy(REPOSITORY / "reproduce/all.sh", checkout / "reproduce")
    (checkout / "results/published").mkdir(parents=True)
    script = (
        "import os, sys\nprint(__spec__.name, *sys.argv[1:])\n"
        "sys.exit(int(os.environ.get(__spec__.name.rpartition('.')[2], 0)))\n"
    )
    for paper, dataset in (("new2031", "ChestX-ray14"), ("old1999", "PLCO"), ("report", "")):
        (checkout / f"reproduce/{paper}.py").write_text(script)
        if dataset:
            (checkout / f"reproduce/{paper}.sh").touch()
            table = checkout / f"results/published/{paper}.csv"
            table.write_text(f"table,dataset\nTable 1,{dataset}\n")
    return checkout


def all_papers(suite: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": os.environ["PATH"], "CXR_PYTHON": sys.executable, **variables}
    command = ["/bin/bash", str(suite / "reproduce/all.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_help_of_all_papers_makes_no_python_environment(suite):
    result = all_papers(suite, "--epochs", "2", "--help", CXR_PYTHON="")
    assert result.returncode == 0, result.stderr
    assert "bash reproduce/all.sh --plco DIR" in result.stdout
    assert not (suite / ".venv.lock").exists()


def test_all_papers_are_those_that_have_a_script(suite):
    given = ["--plco", str(suite), "--results-dir", "there", "--epochs=2"]
    result = all_papers(suite, *given)
    called = [line for line in result.stdout.splitlines() if line.startswith("reproduce.")]
    assert called == [
        f"reproduce.old1999 --data-dir {suite} --results-dir there --epochs 2",
        "reproduce.new2031 --results-dir there --epochs 2",
        "reproduce.report --results-dir there",
    ], result.stderr
    assert result.returncode == 0


def test_a_paper_that_fails_does_not_stop_the_others_and_a_signal_does(suite):
    result = all_papers(suite, old1999="2")
    assert result.returncode == 1
    assert "reproduce.new2031" in result.stdout
    assert "failed; see the reason above" in result.stdout
    for code in ("130", "143", "137"):
        result = all_papers(suite, old1999=code)
        assert result.returncode == int(code)
        assert "reproduce.new2031" not in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--results-dir"], "--results-dir needs a folder"),
        (["--results-dir", "--plco"], "--results-dir needs a folder"),
        (["--results-dir="], "--results-dir needs a folder"),
        (["--plco"], "--plco needs the folder"),
        (["--chestxray14", "/no/such"], "'/no/such' is not a folder"),
        (["--rows", "x"], "--rows is a flag of one script: bash reproduce/NAME.sh. Here, use --"),
    ],
)
def test_all_refuses_what_it_cannot_use(suite, words, message):
    result = all_papers(suite, *words)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_paper_without_a_dataset_is_named(suite):
    (suite / "results/published/old1999.csv").unlink()
    result = all_papers(suite)
    assert result.returncode == 2
    assert "old1999.csv does not name the dataset" in result.stderr


def test_every_paper_of_the_suite_has_its_dataset(suite):
    for path in REPOSITORY.glob("reproduce/*[0-9].sh"):
        shutil.copy(path, suite / "reproduce")
        shutil.copy(suite / "reproduce/old1999.py", suite / "reproduce" / f"{path.stem}.py")
    shutil.copytree(
        REPOSITORY / "results/published", suite / "results/published", dirs_exist_ok=True
    )
    listed = all_papers(suite)
    assert listed.returncode == 0, listed.stderr
    names = [line[4:] for line in listed.stdout.splitlines() if line.startswith("=== ")]
    assert {"chen2019", "pham2019", "mo2019", "ge2018", "asadi2025", "wang2017"} <= {*names}


def test_lock_pins_and_hashes_everything_that_is_asked_for():
    lock = (REPOSITORY / "requirements.lock").read_text()
    pins = {line.split("==")[0]: line for line in lock.splitlines() if "==" in line}
    assert "http" not in lock  # no index addresses
    assert all(lock.split(pin, 1)[1].lstrip().startswith("--hash=") for pin in pins.values())
    for line in (REPOSITORY / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert line.split(">=")[0] in pins


def test_conda_environment_resolves():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"]
    assert [name.split("=")[0] for name in conda] == ["python", "pip"]
    wanted = [word for line in pip["pip"] for word in line.split(" ")]
    assert wanted[:2] == ["-r", "requirements.txt"]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", *wanted]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if "No matching distribution found for nvidia" in result.stderr:
        pytest.skip("no network: the CUDA packages cannot be looked up")
    assert result.returncode == 0, result.stderr
