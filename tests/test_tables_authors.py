"""Download released files from a server on this machine."""

import hashlib

import pytest

from evaluation import EvaluationError
from reproduce.tables import authors
from tests.file_server import file_server, unused_address  # noqa: F401
from tests.rescore_command import rescore


@pytest.fixture
def server(file_server, monkeypatch):  # noqa: F811
    """Return a server of one small released file, and the address of its folder."""
    handler, address = file_server
    body = bytes(range(256)) * 1000
    files = {"folder/values.csv": hashlib.sha256(body).hexdigest()}
    monkeypatch.setitem(authors.SOURCES, "test", authors.Source("none", files, "a/b", "c"))
    handler.files = {"/main/folder/values.csv": body}
    return handler, f"{address}/main/"


def test_download_fetches_once_what_is_found_afterwards(server, tmp_path):
    handler, url = server
    for _ in range(2):
        authors.download("test", tmp_path, url)
        assert authors.find("test", tmp_path) == [tmp_path / "folder" / "values.csv"]
    assert len(handler.asked) == 1


def test_without_a_network_the_message_says_which_files_to_put_where(tmp_path, capsys):
    words = ["pham2019", "--released", tmp_path, "--download"]
    assert rescore(*words, "--base-url", unused_address()) == 2
    message = capsys.readouterr().err
    assert "cannot be fetched" in message
    assert all(path in message for path in authors.SOURCES["pham2019"].files)
    assert str(tmp_path) in message


def test_another_sources_file_of_the_same_name_is_not_a_changed_one(server, tmp_path, monkeypatch):
    (tmp_path / "values.csv").write_bytes(b"other")
    with pytest.raises(EvaluationError, match="Not the file that was released"):
        authors.find("test", tmp_path)
    monkeypatch.setattr(authors, "KNOWN", {hashlib.sha256(b"other").hexdigest()})
    with pytest.raises(EvaluationError, match=r"lacks values\.csv"):
        authors.find("test", tmp_path)
