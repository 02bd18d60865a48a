"""Start Keras' backend quietly on the requested device, and prepare it for each row."""

import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reproduce import RunError


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the output of a backend's libraries while they start; print it if they fail."""
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
    """Raise a RunError if KERAS_BACKEND does not name an installed backend."""
    chosen = os.environ.get("KERAS_BACKEND", "tensorflow")
    if chosen not in BACKENDS:
        raise RunError(f"KERAS_BACKEND is {chosen!r}: set it to tensorflow or jax, or unset it.")
    if importlib.util.find_spec(chosen) is None:
        raise RunError(
            f"KERAS_BACKEND is {chosen}, which is not installed here: run "
            f"'{sys.executable} -m pip install {chosen}', or unset it to use TensorFlow."
        )


def start(
    device: str, deterministic: bool = False, compiled: Path | None = None, devices: int = 1
) -> str:
    """Import the backend on the requested device; return the names of the GPUs, or "cpu".

    The folder `compiled` keeps XLA's compiled programs for other processes.
    """
    check_choice()
    if device == "cpu":
        os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    else:
        _open_gpus(devices)
    if compiled:
        _keep_compiled(compiled)
    if deterministic:  # JAX reads this when it starts
        flags = os.environ.get("XLA_FLAGS", "")
        if "deterministic" not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    with quiet():
        import keras  # takes seconds with TensorFlow

        gpus = gpu_names()
        if gpus and keras.backend.backend() != "tensorflow":
            import tensorflow as tf  # for tf.data, on the processor

            tf.config.set_visible_devices([], "GPU")
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


def _open_gpus(count: int) -> None:
    """Use only the first GPUs, and no more of their memory than needed."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count))))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(given.split(",")[:count])
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _keep_compiled(folder: Path) -> None:
    """Make TensorFlow and JAX cache compiled programs in a folder; call this before they start."""
    own = folder.absolute() / _kind_of_machine()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(own))
    # drawing a network's first weights is hundreds of compilations of less than JAX's one second
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if "tf_xla_persistent_cache_directory" not in flags:
        flags = f"{flags} --tf_xla_persistent_cache_directory={own}".strip()
        os.environ["TF_XLA_FLAGS"] = flags


def _kind_of_machine() -> str:
    """Return a name shared by all machines that can run each other's compiled programs."""
    facts = [platform.machine()]
    for package in ("tensorflow", "jaxlib"):
        with contextlib.suppress(PackageNotFoundError):
            facts.append(version(package))
    processor, nvidia = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia")
    if processor.exists():
        facts += re.findall(r"^(?:model name|flags)\s*:.*", processor.read_text(), re.MULTILINE)[:2]
    if nvidia.exists():
        about = [path.read_text() for path in sorted(nvidia.glob("gpus/*/information"))]
        facts += re.findall(r"^Model:.*", "".join(about), re.MULTILINE) or [platform.node()]
        facts.append((nvidia / "version").read_text())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def check_devices(count: int, batch_size: int) -> None:
    """Raise a RunError if a row cannot be trained on so many devices."""
    if count == 1:
        return
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "jax":
        raise RunError(
            f"--devices-per-row {count} is for JAX: on TensorFlow each device would normalise by "
            "its own part of a batch, which is another method. Set KERAS_BACKEND=jax, or leave it."
        )
    if batch_size % count:
        raise RunError(
            f"Batches of {batch_size} images cannot be divided among {count} devices: give a "
            "--batch-size that can, or another --devices-per-row."
        )


@contextlib.contextmanager
def devices_of_row(count: int) -> Iterator[None]:
    """Free the networks of earlier rows, and train the next one on so many devices.

    Each device gets a part of every batch. BatchNormalization statistics and gradients are computed
    over the whole batch.
    """
    clear_networks()  # also resets how batches are distributed
    if count == 1:
        yield
        return
    import keras

    devices = keras.distribution.list_devices()
    if len(devices) < count:
        raise RunError(f"--devices-per-row {count}, but JAX sees only {', '.join(devices)}.")
    with keras.distribution.DataParallel(devices=devices[:count]).scope():
        yield


def memory_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that a full host or GPU may raise; JAX and PyTorch: RuntimeError."""
    tensorflow = sys.modules.get("tensorflow")
    of_tensorflow = (tensorflow.errors.ResourceExhaustedError,) if tensorflow else ()
    return (MemoryError, RuntimeError, *of_tensorflow)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that memory ran out, Python's or a backend's."""
    if isinstance(error, MemoryError):
        return True
    return type(error).__name__ == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in str(error)


def gpu_names() -> list[str]:
    """Return the names of the GPUs that Keras' backend sees."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if keras.backend.backend() == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu)["device_name"] for gpu in gpus]


def clear_networks() -> None:
    """Free the networks that were trained before, with their optimizers' variables.

    TensorFlow keeps every gradient that a traced step defined by tf.custom_gradient in a global
    registry, and each holds the graph with all its variables. Keras' optimizers and the HLUP loss
    define one per network, so clear_session alone frees no trained network.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.framework import ops

        registered = ops._gradient_registry._registry
        for name in [name for name in registered if name.startswith("CustomGradient-")]:
            del registered[name]
    keras.utils.clear_session()  # collects the garbage too


def jit(asked: bool | None, deterministic: bool = False) -> bool | str:
    """Return Keras' jit_compile for --jit: "auto", but False for TensorFlow on a CPU.

    There, compiling takes minutes. XLA's tuning chooses kernels by their measured time, so a
    deterministic TensorFlow does not use it either.
    """
    import keras

    if asked is not None:
        return asked
    without = keras.backend.backend() == "tensorflow" and (deterministic or not gpu_names())
    return False if without else "auto"


def steps_per_execution(asked: int | None) -> int:
    """Return how many steps are trained before Python reads the loss and waits for the GPU.

    The results do not depend on it. JAX runs ahead of Python by itself.
    """
    import keras

    if asked is not None:
        return asked
    return 8 if keras.backend.backend() == "tensorflow" and gpu_names() else 1
