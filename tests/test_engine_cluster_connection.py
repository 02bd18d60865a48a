"""Which Ray a command uses: none installed, bad addresses, other versions, no GPUs."""

import http.server
import socket
import subprocess
import sys
import threading
import time

import pytest

from reproduce import RunError
from reproduce.engine import options as engine_options
from reproduce.engine.cluster import connection
from tests.conftest import REPOSITORY
from tests.on_ray import options_for, script


def without_ray(monkeypatch):
    monkeypatch.setattr(connection.importlib.util, "find_spec", lambda name: None)


def with_ray(monkeypatch):
    monkeypatch.setattr(connection.importlib.util, "find_spec", lambda name: "found")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    without_ray(monkeypatch)
    with pytest.raises(RunError, match=r"pip install -r requirements-cluster\.txt"):
        connection.check(options_for(tmp_path).cluster)


@pytest.mark.parametrize("address", ["localhost", "localhost:port", "127.0.0.1:9", "a:99999"])
def test_address_where_nothing_answers(tmp_path, monkeypatch, address):
    with_ray(monkeypatch)
    with pytest.raises(RunError, match=f"No Ray cluster answers at '{address}'"):
        connection.check(options_for(tmp_path, address=address).cluster)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RunError, match="No Ray cluster answers"):
        connection.check(options_for(tmp_path).cluster)


@pytest.fixture
def listening():
    """Ports on which something listens that is not Ray."""
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and says nothing
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield {"silent": silent.getsockname()[1], "web": web.server_port}
    web.shutdown()
    thread.join()
    web.server_close()
    silent.close()


@pytest.mark.parametrize("what", ["silent", "web"])
def test_address_where_something_else_listens(tmp_path, monkeypatch, listening, what):
    with_ray(monkeypatch)
    began = time.monotonic()
    with pytest.raises(RunError, match=r"^The service at '127.* is not Ray.* --address HOST:PORT"):
        connection.check(options_for(tmp_path, address=f"127.0.0.1:{listening[what]}").cluster)
    assert time.monotonic() - began < 30


def test_cpu_and_gpus_contradict_each_other(tmp_path, monkeypatch):
    with_ray(monkeypatch)
    with pytest.raises(RunError, match="contradict"):
        engine_options._check_gpus(options_for(tmp_path, device="cpu", gpus_per_row=1.0))


@pytest.fixture(scope="module")
def address_of_a_cluster():
    """Ray without a GPU, started by a process of its own, as all.sh does."""
    pytest.importorskip("ray", reason="Ray is not installed: requirements-cluster.txt")
    command = [sys.executable, "-m", "reproduce.engine.cluster", "--hold"]
    holder = subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    yield holder.stdout.readline().strip()
    holder.stdin.close()
    assert holder.wait(60) == 0


def test_another_version_of_ray_is_named(address_of_a_cluster, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "__version__", "2.0.1")
    wanted = (
        r"cannot be used \(Version mismatch: .* Ray: 2\.0\.1 .* the same versions of Python and"
    )
    with pytest.raises(RunError, match=wanted), connection.connected(address_of_a_cluster):
        pass


def test_a_cluster_without_gpus_ends_a_command_in_one_sentence(tmp_path, address_of_a_cluster):
    process = script(
        tmp_path / "ray", "--on=ray", f"--address={address_of_a_cluster}", "--device=gpu"
    )
    shown = process.communicate()[0]
    assert process.returncode == 2, shown
    assert "Traceback" not in shown
    last = shown.splitlines()[-1]
    assert last.startswith(
        "--device gpu, but no host of the Ray cluster has a GPU: start Ray where"
    )
