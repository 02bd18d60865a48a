"""A web server on this machine that serves a few files, and fails on demand."""

import http.server
import re
import threading
from typing import ClassVar

import pytest


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve `files`; the next answers stop after as many bytes as `stop_after` says."""

    files: ClassVar[dict[str, bytes]] = {}
    redirects: ClassVar[dict[str, str]] = {}  # path -> path
    stop_after: ClassVar[list[int]] = []
    ranges = True
    asked: ClassVar[list[tuple[str, str | None]]] = []  # path and Range of each request

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.asked.append((self.path, wanted))
        if self.path in self.redirects:
            self.send_response(302)
            self.send_header("Location", self.redirects[self.path])
            self.end_headers()
            return None
        body = self.files.get(self.path.partition("?")[0])
        if body is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if wanted and self.ranges and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = start + self.stop_after.pop(0) if self.stop_after else None
        self.wfile.write(body[start:stop])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def file_server():
    """Return the handler of a server on loopback, and the server's address."""
    settings = {"files": {}, "redirects": {}, "stop_after": [], "asked": []}
    handler = type("OwnHandler", (Handler,), settings)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    yield handler, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def unused_address() -> str:
    """Return an address on which nobody listens."""
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        return f"http://127.0.0.1:{httpd.server_port}"
