"""Download released files from a server on this machine."""

import hashlib
import http.server
import re
import threading
from typing import ClassVar

import pytest

from evaluation import EvaluationError
from reproduce.tables import authors
from tests.rescore_command import rescore


class Server(http.server.BaseHTTPRequestHandler):
    """Serve `files`; the first answer stops after `stop_after` bytes, if that is set."""

    files: ClassVar[dict[str, bytes]] = {}
    stop_after = None
    ranges = True
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.asked.append((self.path, wanted))
        body = self.files.get(self.path)
        if body is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if wanted and self.ranges and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop, type(self).stop_after = type(self).stop_after, None
        self.wfile.write(body[start:stop])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """Return a server of one small released file, and the address of its folder."""
    body = bytes(range(256)) * 1000
    files = {"folder/values.csv": hashlib.sha256(body).hexdigest()}
    monkeypatch.setitem(authors.SOURCES, "test", authors.Source("none", files, "a/b", "c"))
    handler = type("Handler", (Server,), {"files": {"/main/folder/values.csv": body}, "asked": []})
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield handler, f"http://127.0.0.1:{httpd.server_port}/main/"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_download_fetches_once_and_keeps_what_is_whole(server, tmp_path):
    handler, url = server
    authors.download("test", tmp_path, url)
    (path,) = authors.find("test", tmp_path)
    assert path == tmp_path / "folder" / "values.csv"
    assert [*path.parent.iterdir()] == [path]
    authors.download("test", tmp_path, url)
    assert len(handler.asked) == 1


def test_an_interrupted_download_is_resumed(server, tmp_path):
    handler, url = server
    handler.stop_after = 70_000
    with pytest.raises(EvaluationError, match="cannot be fetched"):
        authors.download("test", tmp_path, url)
    assert (tmp_path / "folder" / "values.csv.part").stat().st_size == 70_000
    assert not (tmp_path / "folder" / "values.csv").exists()
    authors.download("test", tmp_path, url)
    assert handler.asked[-1][1] == "bytes=70000-"
    authors.find("test", tmp_path)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("part", [b"old", b"", bytes(range(256)) * 1000, b"x" * 300_000])
def test_any_partial_file_ends_well(server, tmp_path, part, ranges):
    handler, url = server
    handler.ranges = ranges
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "values.csv.part").write_bytes(part)
    authors.download("test", tmp_path, url)
    authors.find("test", tmp_path)


def test_a_download_of_something_else_is_not_kept(server, tmp_path):
    handler, url = server
    handler.files = {"/main/folder/values.csv": b"<html>sign in</html>"}
    with pytest.raises(EvaluationError, match="nothing was kept"):
        authors.download("test", tmp_path, url)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_a_network_the_message_says_which_files_to_put_where(tmp_path, capsys):
    words = ["pham2019", "--released", tmp_path, "--download"]
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as httpd:
        url = f"http://127.0.0.1:{httpd.server_port}/"
    assert rescore(*words, "--base-url", url) == 2  # nobody listens there any more
    message = capsys.readouterr().err
    assert "cannot be fetched" in message
    assert all(path in message for path in authors.SOURCES["pham2019"].files)
    assert str(tmp_path) in message


def test_a_file_that_is_gone_from_the_server(server, tmp_path):
    handler, url = server
    handler.files = {}
    with pytest.raises(EvaluationError, match="Not Found"):
        authors.download("test", tmp_path, url)
