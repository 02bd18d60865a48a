"""Connect to a Ray cluster, or start Ray on this machine: --on ray, --address HOST:PORT."""

import contextlib
import importlib.util
import os
import signal
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reproduce import RunError
from reproduce.engine import backend

INSTALL = f"run '{sys.executable} -m pip install -r requirements-cluster.txt', or leave out --on"
ADVICE = (
    "give --address HOST:PORT as 'ray start --head' prints it, or neither --address nor "
    "RAY_ADDRESS to start Ray on this machine."
)


def check(where: str) -> None:
    """Raise a RunError if Ray is not installed, or if no cluster answers at the address."""
    if importlib.util.find_spec("ray") is None:
        raise RunError(f"--on ray needs Ray, which is not installed here: {INSTALL} ray.")
    if where:
        _check_address(where)


def _check_address(where: str) -> None:
    """Raise a RunError within seconds if no Ray listens; Ray itself would try for minutes."""
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise RunError(f"No Ray cluster answers at {where!r} ({error}): {ADVICE}") from None
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return  # only Ray has the certificates
    import grpc  # the protocol of Ray's hosts

    with grpc.insecure_channel(where, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
        except grpc.RpcError:
            raise RunError(
                f"The service at {where!r} is not Ray, or not on the port that its hosts join "
                f"(6379 by default): {ADVICE}"
            ) from None


@contextlib.contextmanager
def connected(where: str, cpus: int | None = None) -> Iterator[Any]:
    """Yield the module `ray`, connected to the cluster at an address or started on this machine."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if where and (Path.home() / ".ray/auth_token").exists():  # 'ray start' asks for it then
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with backend.quiet():
        import ray

        own = {"num_cpus": cpus or len(os.sched_getaffinity(0)), "object_store_memory": 1 << 27}
        problem = ""
        try:
            ray.init(
                address=where or "local",
                log_to_driver=False,
                logging_level="ERROR",
                **({} if where else own | {"include_dashboard": False}),
            )
        except Exception as error:  # Ray raises this very class where it starts too slowly
            problem = textwrap.shorten(str(error), 300)
    with _sigterm_as_ctrl_c(on_sigterm):
        if problem:
            name = f"The Ray cluster at {where}" if where else "Ray on this machine"
            raise RunError(
                f"{name} cannot be used ({problem}): all its hosts need the same versions of "
                "Python and Ray and, where it was started with RAY_AUTH_MODE=token, the same "
                "token; or leave out --on ray."
            )
        try:
            yield ray
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _sigterm_as_ctrl_c(on_sigterm: Any) -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, the only one that passes through Ray's compiled code.

    Ray's own handler would end the process with a stack trace. Afterwards, `on_sigterm`, the
    handler from before Ray was started, gets the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = []

    def interrupt(number: int, _frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
        if received:
            signal.raise_signal(signal.SIGTERM)


def hold() -> None:
    """Start Ray on this machine, print its address, and stop it when standard input ends."""
    with connected("") as ray:
        print(ray.get_runtime_context().gcs_address, flush=True)
        sys.stdin.read()


def wait_for(where: str, hosts: int, seconds: float = 300) -> None:
    """Wait until so many hosts have joined the cluster that is being started at the address."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            _check_address(where)
            break
        except RunError:  # it is not up yet
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    with connected(where) as ray:
        while (joined := sum(node["Alive"] for node in ray.nodes())) < hosts:
            if time.monotonic() > deadline:
                print(f"{joined} of {hosts} hosts joined Ray in time; continuing with them.")
                return
            time.sleep(1)
