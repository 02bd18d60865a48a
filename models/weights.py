"""Find or download the published ImageNet weights of each network, verified by hash."""

import os
from dataclasses import dataclass
from pathlib import Path

import downloads
from models import ModelError

# Errors of h5py, Keras and json for a file that is cut short, damaged or of another network
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)


@dataclass(frozen=True)
class Download:
    """A published file of ImageNet weights without the classification layer."""

    file: str  # name in Keras' cache
    url: str
    hash: str  # MD5, as in keras.applications, or SHA-256


_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"


def _of_keras(folder: str, file: str, hash: str, published_as: str = "") -> Download:
    return Download(file, f"{_KERAS}{folder}/{published_as or file}", hash)


_FILE = "{}_weights_tf_dim_ordering_tf_kernels_notop.h5".format
IMAGENET = {
    "densenet121": _of_keras("densenet", _FILE("densenet121"), "30ee3e1110167f948a6b9946edeeb738"),
    "densenet169": _of_keras("densenet", _FILE("densenet169"), "b8c4d4c20dd625c148057b9ff1c1176b"),
    "densenet201": _of_keras("densenet", _FILE("densenet201"), "c13680b51ded0fb44dff2d8f86ac8bb1"),
    # torchvision's weights of 2018, copied to a format without pickle
    "resnet18": Download(
        "resnet18_torchvision_imagenet.safetensors",
        "https://huggingface.co/timm/resnet18.tv_in1k/resolve/"
        "a987fd6b60f845221bfff84b6f0191273ba56ead/model.safetensors",
        "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
    ),
    "resnet50": _of_keras("resnet", _FILE("resnet50"), "4d473c1dd8becc155b73f8504c6f6626"),
    "vgg16": _of_keras("vgg16", _FILE("vgg16"), "6d6bbae143d832006294945121d1f1fc"),
    "vgg16_hidden": _of_keras(
        "vgg16",
        "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        "64373286793e3c8b2b4e3219cbf3544b",
    ),
    "xception": _of_keras("xception", _FILE("xception"), "b0042744bf5b25fce3cb969f33bebb97"),
    "inceptionresnetv2": _of_keras(
        "inception_resnet_v2", _FILE("inception_resnet_v2"), "d19885ff4a710c122648d3b5c3b684e4"
    ),
    "nasnetlarge": _of_keras(
        "nasnet",
        "nasnet_large_no_top.h5",
        "d81d89dc07e6e56530c4e77faddd61b5",
        published_as="NASNet-large-no-top.h5",
    ),
}


def folder() -> Path:
    """Return the folder where Keras keeps downloaded weights."""
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")).expanduser() / "models"


def find_weights(name: str, weights: str) -> Path | None:
    """Return the file of a network's `weights` if it is on this machine, else None."""
    if weights == "none":
        return None
    return existing(folder() / download_of(name).file if weights == "imagenet" else weights)


def existing(path: str | Path) -> Path | None:
    """Return the path of an existing file, with ~ expanded; None if there is none."""
    try:
        path = Path(path).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long, unknown user, or a zero byte
        return None


def fetch(name: str, weights: str) -> Path | None:
    """Return the file of a network's `weights`, downloaded if necessary; None for "none"."""
    if weights == "none":
        return None
    if weights != "imagenet":
        path = find_weights(name, weights)
        if path is None:
            raise ModelError(
                f"There is no weights file {weights}: give an existing file, imagenet or none."
            )
        return path
    download = download_of(name)
    path = folder() / download.file
    by_hand = f"Or put it at {path} yourself, or start from scratch with --weights {name}=none."
    return downloads.fetch(download.url, path, download.hash, by_hand)


def download_of(name: str) -> Download:
    """Return the published file of a network's ImageNet weights."""
    if name not in IMAGENET:
        raise ModelError(f"There are no ImageNet weights for {name}: use --weights none.")
    return IMAGENET[name]


def is_whole(path: Path, download: Download) -> bool:
    """Return True if a file is identical to the published one."""
    return downloads.digest(path, download.hash) == download.hash


def first_line(error: Exception) -> str:
    """Return the first line of an error, for use within a sentence."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return line.rpartition(" -- ")[2]  # Keras puts the address first; our message adds it anyway
