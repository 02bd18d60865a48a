"""Connecting to a Ray cluster, or starting Ray on this machine: --on ray, --address HOST:PORT.

python -m reproduce.engine.cluster --hold      starts Ray here and prints its address (all.sh)
python -m reproduce.engine.cluster --wait HOST:PORT HOSTS    waits for a cluster (slurm.sh)
"""

import contextlib
import importlib.util
import os
import signal
import socket
import sys
import textwrap
import threading
import time
from pathlib import Path

from reproduce import RunError
from reproduce.engine import backend

INSTALL = f"run '{sys.executable} -m pip install -r requirements-cluster.txt', or leave out --on"
ADVICE = (
    "give --address HOST:PORT as 'ray start --head' prints it, or neither --address nor "
    "RAY_ADDRESS to start Ray on this machine."
)


def check(options) -> None:
    """What can be known before the dataset is read: Ray is installed, and one answers."""
    if options.on != "ray":
        for flag, given in (
            ("address", options.address),
            ("gpus-per-row", options.gpus_per_row),
            ("cpus-per-row", options.cpus_per_row),
        ):
            if given is not None and not options.only_train:
                raise RunError(f"--{flag} is for rows on a Ray cluster: add --on ray, or leave it.")
        return
    if importlib.util.find_spec("ray") is None:
        raise RunError(f"--on ray needs Ray, which is not installed here: {INSTALL} ray.")
    if given_address := address(options):
        _check_address(given_address)
    if options.device == "cpu" and options.gpus_per_row:
        raise RunError("--device cpu and --gpus-per-row contradict each other: leave one of them.")
    if options.gpus_per_row and options.gpus_per_row < options.devices_per_row > 1:
        raise RunError(
            f"--devices-per-row {options.devices_per_row} needs as many GPUs: leave --gpus-per-row."
        )


def address(options) -> str:
    """The HOST:PORT of the cluster to use; empty to start one on this machine."""
    return (options.address or os.environ.get("RAY_ADDRESS", "")).removeprefix("ray://")


def _check_address(where: str) -> None:
    """A RunError within seconds where no Ray listens; Ray itself would try for minutes."""
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise RunError(f"No Ray cluster answers at {where!r} ({error}): {ADVICE}") from None
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return  # Ray has the certificates
    import grpc  # what Ray's hosts talk with

    with grpc.insecure_channel(where, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
        except grpc.RpcError:
            raise RunError(
                f"What listens at {where!r} is not Ray, or not on the port that its hosts join "
                f"(6379 where no other was chosen): {ADVICE}"
            ) from None


@contextlib.contextmanager
def connected(where: str, cpus: int | None = None):
    """The module `ray`, connected to the cluster at an address, or started on this machine."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if where and (Path.home() / ".ray/auth_token").exists():  # then 'ray start' asks for it
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
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
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
def _sigterm_as_ctrl_c(on_sigterm):
    """SIGTERM as KeyboardInterrupt, which alone passes through Ray's compiled code; then as before.

    `on_sigterm` handled it before Ray was started, whose own handler ends a process with a stack.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []

    def interrupt(number, _frame):
        came.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
        if came:
            signal.raise_signal(signal.SIGTERM)


def hold() -> None:
    """Start Ray on this machine, print its address, and stop it when standard input ends."""
    with connected("") as ray:
        print(ray.get_runtime_context().gcs_address, flush=True)
        sys.stdin.read()


def wait_for(where: str, hosts: int, seconds: float = 300) -> None:
    """Wait until so many hosts have joined the cluster that is being started at an address."""
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
                print(f"{joined} of {hosts} hosts joined Ray in time; going on with them.")
                return
            time.sleep(1)


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    try:
        if command == "--hold":
            hold()
        elif command == "--wait":
            wait_for(rest[0], int(rest[1]))
    except RunError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
