"""Read torchvision's ResNet weights from a .safetensors file, without PyTorch and pickle.

The file has eight bytes with the length of a JSON header, the header (name -> dtype, shape and
offsets), and the values of all arrays.
"""

import json
import math
import re
from pathlib import Path

import numpy as np

_HEADER = 100_000_000  # limit in bytes of a header, as in the format's own reader
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")  # gamma, beta, mean, variance


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the float32 arrays of a .safetensors file; raise ValueError if it is damaged."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(_HEADER, len(content) - 8):
        raise ValueError("it is not a complete .safetensors file")
    header, numbers = json.loads(content[8 : 8 + length]), memoryview(content)[8 + length :]
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        if end > len(numbers):
            raise ValueError(f"it is cut short at {name}")
        if entry["dtype"] != "F32":  # the counters of training steps are integers
            continue
        if end - start != 4 * math.prod(entry["shape"]):
            raise ValueError(f"it is damaged at {name}")
        arrays[name] = np.frombuffer(numbers[start:end], "<f4").reshape(entry["shape"])
    return arrays


def load_resnet(model, path: Path) -> None:
    """Set the weights of `backbones.resnet18` from a file of torchvision's ResNet-18."""
    arrays = read(path)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(_weights(arrays, layer.name))


def _weights(arrays: dict[str, np.ndarray], layer: str) -> list[np.ndarray]:
    """Return the arrays of one layer: our convN_blockB_I_conv is their layer(N-1).(B-1).convI."""
    if match := re.fullmatch(r"conv(\d)_block(\d)_(\d)_(conv|bn)", layer):
        stage, block, number, kind = match.groups()
        theirs = f"layer{int(stage) - 1}.{int(block) - 1}."
        if number == "0":  # the 1 x 1 convolution that bypasses a block which halves the map
            theirs += f"downsample.{0 if kind == 'conv' else 1}"
        else:
            theirs += f"{kind}{number}"
    else:
        theirs = {"conv1_conv": "conv1", "conv1_bn": "bn1"}[layer]
        kind = theirs[:-1]
    if kind == "conv":  # theirs is (out, in, height, width)
        return [arrays[f"{theirs}.weight"].transpose(2, 3, 1, 0)]
    return [arrays[f"{theirs}.{part}"] for part in _BATCH_NORM]
