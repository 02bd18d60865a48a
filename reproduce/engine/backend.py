"""Starting Keras' backend quietly, on the device that was asked for."""

import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from reproduce import RunError


@contextlib.contextmanager
def quiet():
    """Hold back what a backend's libraries write while they start, unless it fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


BACKENDS = ("tensorflow", "jax", "torch")


def check_choice() -> None:
    """See that KERAS_BACKEND names a backend that is installed."""
    chosen = os.environ.get("KERAS_BACKEND", "tensorflow")
    if chosen not in BACKENDS:
        raise RunError(f"KERAS_BACKEND is {chosen!r}: set it to tensorflow or jax, or unset it.")
    if importlib.util.find_spec(chosen) is None:
        raise RunError(
            f"KERAS_BACKEND is {chosen}, which is not installed here: run "
            f"'{sys.executable} -m pip install {chosen}', or unset it to use TensorFlow."
        )


def start(device: str, deterministic: bool = False, compiled: Path | None = None) -> str:
    """Import the backend and find the device that was asked for; its name.

    JAX keeps what it compiles for GPUs in the folder `compiled`.
    """
    check_choice()
    if device == "cpu":
        os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    else:
        _share_gpus(compiled)
    if deterministic:  # JAX reads this when it starts
        flags = os.environ.get("XLA_FLAGS", "")
        if "deterministic" not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    with quiet():
        import keras  # takes seconds with TensorFlow

        gpus = gpu_names()
        if deterministic and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_op_determinism()
    advice = f"{keras.backend.backend()} sees no GPU: see environment.yml and the driver's version"
    if device == "gpu" and not gpus:
        raise RunError(f"--device gpu, but {advice}, or leave it out to run on the CPU.")
    driver = shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists()
    if device == "auto" and driver and not gpus:
        print(f"WARNING: there is an NVIDIA driver, but {advice}. Training on the CPU.", flush=True)
    return ", ".join(gpus) or "cpu"


def _share_gpus(compiled: Path | None) -> None:
    """Use one GPU, and no more of its memory than needed; read when a backend starts."""
    for name, value in (
        ("CUDA_VISIBLE_DEVICES", "0"),
        ("TF_FORCE_GPU_ALLOW_GROWTH", "true"),
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "false"),
    ):
        os.environ.setdefault(name, value)
    if compiled and Path("/dev/nvidia0").exists():  # of processors, hosts may differ
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled.absolute()))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, Python's or a backend's."""
    if isinstance(error, MemoryError):
        return True
    return type(error).__name__ == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in str(error)


def gpu_names() -> list[str]:
    """The GPUs that Keras' backend sees."""
    import keras

    if keras.backend.backend() == "torch":  # Keras cannot list torch's devices
        import torch

        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [name for name in keras.distribution.list_devices() if not name.startswith("cpu")]


def clear_networks() -> None:
    """Free the networks that were trained before, with their optimizers' variables.

    TensorFlow keeps every gradient that a traced step defined by tf.custom_gradient in a global
    registry, and each holds the graph with all its variables. Keras' optimizers and the HLUP loss
    define one a network, so clear_session alone frees no network that was trained.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.framework import ops

        registered = ops._gradient_registry._registry
        for name in [name for name in registered if name.startswith("CustomGradient-")]:
            del registered[name]
    keras.utils.clear_session()  # collects the garbage too


def jit(asked: bool | None, deterministic: bool = False) -> bool | str:
    """What --jit means to Keras: its "auto", but on a CPU TensorFlow compiles for minutes.

    XLA's tuning chooses among kernels by the clock, so a deterministic TensorFlow does without.
    """
    import keras

    if asked is not None:
        return asked
    without = keras.backend.backend() == "tensorflow" and (deterministic or not gpu_names())
    return False if without else "auto"
