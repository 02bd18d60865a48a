"""Download files from a server on this machine that is cut off, wrong, full or gone."""

import errno
import hashlib
import multiprocessing
import shutil

import pytest

import downloads
import safefiles
from tests.file_server import file_server, unused_address  # noqa: F401

BODY = bytes(range(256)) * 1000
MD5, SHA256 = hashlib.md5(BODY).hexdigest(), hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(file_server, monkeypatch):  # noqa: F811
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    handler, address = file_server
    handler.files = {"/a.npz": BODY}
    return handler, f"{address}/a.npz"


def fetch(url, folder, expected=MD5):
    return downloads.fetch(url, folder / "sub" / "a.npz", expected, "Get it by hand.")


def visible(folder):
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]


@pytest.mark.parametrize("expected", [MD5, SHA256])
def test_a_file_is_fetched_once(server, tmp_path, expected):
    handler, url = server
    for _ in range(2):
        assert fetch(url, tmp_path, expected).read_bytes() == BODY
    assert len(handler.asked) == 1
    assert visible(tmp_path) == ["a.npz"]


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    fetch(server[1], tmp_path).write_bytes(BODY[:7])
    assert fetch(server[1], tmp_path).read_bytes() == BODY


def test_a_cut_connection_is_resumed_within_the_call(server, tmp_path):
    handler, url = server
    handler.stop_after = [70_000, 50_000]
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert [wanted for _, wanted in handler.asked] == [None, "bytes=70000-", "bytes=120000-"]


def test_a_download_that_gets_nowhere_is_resumed_by_the_next_call(server, tmp_path):
    handler, url = server
    handler.stop_after = [70_000, 0, 0, 0]
    with pytest.raises(downloads.DownloadError, match=r"was cut\); run this again to resume"):
        fetch(url, tmp_path)
    assert visible(tmp_path) == ["a.npz.part"]
    handler.stop_after.clear()
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert handler.asked[-1][1] == "bytes=70000-"


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("part", [b"old", b"", BODY, b"x" * 300_000])
def test_any_partial_file_ends_well(server, tmp_path, part, ranges):
    handler, url = server
    handler.ranges = ranges
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.npz.part").write_bytes(part)
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_a_redirect_is_followed_and_resumed(server, tmp_path):
    handler, url = server
    handler.redirects = {"/moved.npz": "/a.npz"}
    handler.stop_after = [70_000]
    assert fetch(url.replace("a.npz", "moved.npz"), tmp_path).read_bytes() == BODY
    assert handler.asked[-1] == ("/a.npz", "bytes=70000-")


def test_another_file_is_not_kept(server, tmp_path):
    handler, url = server
    handler.files = {"/a.npz": b"<html>sign in</html>"}
    with pytest.raises(downloads.DownloadError, match=r"has MD5 .* nothing was kept. Get it by"):
        fetch(url, tmp_path)
    assert visible(tmp_path) == []


def test_a_file_that_is_gone(server, tmp_path):
    with pytest.raises(downloads.DownloadError, match=r"\(Not Found\). Get it by hand"):
        fetch(server[1] + "x", tmp_path)


@pytest.mark.parametrize("url", ["nobody listens", "http://[", "nonsense"])
def test_no_server(url, tmp_path):
    url = url.replace("nobody listens", unused_address() + "/a.npz")
    with pytest.raises(downloads.DownloadError, match=r"cannot be fetched .* Get it by hand"):
        fetch(url, tmp_path)


def test_a_disk_that_is_too_small(server, tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(downloads.DownloadError, match="free some space"):
        fetch(server[1], tmp_path)


def test_a_disk_that_becomes_full(server, tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_copy", no_space)
        with pytest.raises(safefiles.UserError, match="cannot be written"):
            fetch(server[1], tmp_path)
    assert fetch(server[1], tmp_path).read_bytes() == BODY


def test_after_an_interrupt_the_part_is_resumed(server, tmp_path, monkeypatch):
    handler, url = server
    copy = downloads._copy

    def interrupted(response, file, *rest):
        file.write(response.read(1000))
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(url, tmp_path)
    monkeypatch.setattr(downloads, "_copy", copy)
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert handler.asked[-1][1] == "bytes=1000-"


def test_two_processes_fetch_it_once(server, tmp_path):
    handler, url = server
    handler.files["/a.npz"] = BODY
    fork = multiprocessing.get_context("fork")
    pair = [fork.Process(target=fetch, args=(url, tmp_path)) for _ in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join()
    assert [process.exitcode for process in pair] == [0, 0]
    assert len(handler.asked) == 1
    assert visible(tmp_path) == ["a.npz"]


def test_a_base_url_must_be_an_address():
    downloads.check_base_url("https://mirror.org/x")
    with pytest.raises(downloads.DownloadError, match="no address"):
        downloads.check_base_url("mirror.org/x")
