"""Files are written whole or not at all, one process holds a lock, failures are one sentence."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

import safefiles
from safefiles import UserError

REPOSITORY = Path(__file__).parent.parent


def test_a_file_is_written_whole_with_its_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "weights.h5"
    with safefiles.whole(path) as partial:
        assert partial.parent == path.parent
        assert partial.suffix == ".h5"
        partial.write_bytes(b"half")
        assert not path.exists()
        partial.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert safefiles.write(path, "text ü") == path
    assert path.read_text(encoding="utf-8") == "text ü"
    assert safefiles.write(path, os.fsdecode(b"R\xf6ntgen.png")).read_bytes() == b"R\xf6ntgen.png"
    assert [path] == list(path.parent.iterdir())


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), RuntimeError("no")])
def test_after_an_error_the_old_file_stays_and_no_other(tmp_path, error):
    path = safefiles.write(tmp_path / "table.csv", "old")

    def fail_half_way() -> None:
        with safefiles.whole(path) as partial:
            partial.write_text("new")
            raise error

    with pytest.raises(type(error)):
        fail_half_way()
    assert path.read_text() == "old"
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device.: free some space and run the same command"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "make its folder writable, or choose another"),
        (errno.EROFS, "choose a folder on a disk that can be written to"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EISDIR, "a folder has its name; move that folder away"),
        (errno.EIO, "free some space, or make its folder writable"),
    ],
)
def test_a_failed_write_is_one_sentence_with_fitting_advice(tmp_path, number, advice):
    path = tmp_path / "table.csv"
    with pytest.raises(UserError, match=advice) as raised, safefiles.whole(path):
        raise OSError(number, os.strerror(number))
    assert str(raised.value).startswith(f"{path} cannot be written")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_inside_h5py_is_the_same_sentence(tmp_path):
    message = "Can't decrement id ref count (file write failed: errno = 28, error message = ...)"
    with (
        pytest.raises(UserError, match=r"No space left on device.: free some space"),
        safefiles.whole(tmp_path / "w.h5"),
    ):
        raise RuntimeError(message)


def test_a_blocking_folder_or_file_is_named(tmp_path):
    (tmp_path / "index.json").mkdir()
    with pytest.raises(UserError, match=r"index.json cannot be written .*a folder has its name"):
        safefiles.write(tmp_path / "index.json", "{}")
    safefiles.write(tmp_path / "file", "")
    with pytest.raises(UserError, match="a part of its path is a file; choose another folder"):
        safefiles.write(tmp_path / "file" / "x", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "index.json"]


@pytest.mark.parametrize("name", ["x" * 251 + ".csv", "ü" * 120 + ".npz"])
def test_the_longest_names_can_be_written(tmp_path, name):
    with safefiles.whole(tmp_path / name) as partial:
        assert partial.suffix == Path(name).suffix
        partial.touch()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(UserError, match="choose a shorter name"):
        safefiles.write(tmp_path / ("x" * 300), "")


def test_a_disk_that_cannot_flush_is_still_written_to(tmp_path, monkeypatch):
    def fails(number):
        def fsync(_):
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", fails(errno.EINVAL))
    assert safefiles.write(tmp_path / "a", "x").read_text() == "x"
    monkeypatch.setattr(os, "fsync", fails(errno.EIO))
    with pytest.raises(UserError, match="cannot be written"):
        safefiles.write(tmp_path / "b", "x")
    assert not (tmp_path / "b").exists()


def test_parts_of_ended_processes_are_removed_and_others_kept(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead, alive = ended.pid, os.getppid()
    for name in (
        f".part-{dead}-table.csv",
        f".part-{alive}-table.csv",
        f".part-{os.getpid()}-a",
        "table.csv",
        ".part-x",
    ):
        (tmp_path / name).touch()
    safefiles.remove_parts(tmp_path)
    assert not (tmp_path / f".part-{dead}-table.csv").exists()
    assert len(list(tmp_path.iterdir())) == 4
    safefiles.remove_parts(tmp_path / "nowhere")


HOLD = """
import sys
import safefiles
with safefiles.lock(sys.argv[1]) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def test_one_process_holds_a_lock_and_the_kernel_frees_it(tmp_path, capsys):
    path = tmp_path / "folder" / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"True\n"
    with safefiles.lock(path) as held:
        assert not held
    holder.kill()
    holder.wait()
    with safefiles.lock(path, "waiting") as held:
        assert held
    assert capsys.readouterr().err == ""


def test_a_waiting_process_prints_a_sentence_and_gets_the_lock(tmp_path, capsys, monkeypatch):
    tried, flock = [], fcntl.flock

    def busy_once(file, how):
        tried.append(how)
        if len(tried) == 1:
            raise BlockingIOError
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", busy_once)
    with safefiles.lock(tmp_path / ".lock", "Another process works here; waiting.") as held:
        assert held
    assert tried == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]
    assert capsys.readouterr().err == "Another process works here; waiting.\n"


def test_a_file_system_without_locks_is_one_sentence(tmp_path, capsys, monkeypatch):
    def unsupported(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with safefiles.lock(tmp_path / ".lock", "waiting") as held:
        assert held
    message = capsys.readouterr().err
    assert message.startswith(f"The file system of {tmp_path} has no file locks: run one process")
    assert len(message.splitlines()) == 1


def test_a_lock_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(UserError, match=r"\.lock cannot be written .Is a directory"),
        safefiles.lock(tmp_path / ".lock"),
    ):
        pass


def test_parts_of_other_users_processes_stay(tmp_path, monkeypatch):
    (tmp_path / ".part-1-table.csv").touch()

    def not_ours(process, signal):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", not_ours)
    safefiles.remove_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".part-1-table.csv"]


def test_changed_files_of_a_sealed_folder_are_detected(tmp_path):
    paths = [safefiles.write(tmp_path / name, name) for name in ("a.csv", "b.csv", "c.csv")]
    assert safefiles.changed_since_sealed(tmp_path) == []  # it is not sealed
    safefiles.seal(tmp_path, paths)
    assert safefiles.changed_since_sealed(tmp_path) == []
    safefiles.write(paths[0], "another")
    paths[2].unlink()
    assert safefiles.changed_since_sealed(tmp_path) == ["a.csv", "c.csv"]
    for content in ("[]", "{", '{"a.csv": 1}'):
        safefiles.write(tmp_path / safefiles.SEALS, content)
        expected = ["a.csv"] if "a.csv" in content else [safefiles.SEALS]
        assert safefiles.changed_since_sealed(tmp_path) == expected
