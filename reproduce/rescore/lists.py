"""Recognise which list of ChestX-ray14 some images belong to: an official or a CheXNet list.

Both splits are by patient, so the name of an image, such as 00000013_005.png, tells its list.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data import chestxray14, public_lists

PATIENTS = 30_805
IMAGE = re.compile(r"0*(\d{1,8})_\d{3}(?:\.\w+)?")
CHEXNET_SIZES = {"test": 22_433, "val": 11_219, "train": 78_468}


@dataclass(frozen=True)
class ImageList:
    """A list of images of ChestX-ray14."""

    name: str
    images: int  # of the whole list
    patients: frozenset[str]
    is_test: bool

    def contains(self, patients: Sequence[str]) -> np.ndarray:
        """Return a mask of the images in the list; `patients` holds the patient of each image."""
        return np.array([patient in self.patients for patient in patients])


@functools.cache
def known_lists() -> list[ImageList]:
    """Return the official lists and the CheXNet lists, test lists first."""
    chexnet, testing = public_lists.chexnet_sets(), public_lists.official_test_patients()
    official = {patient: "test" if patient in testing else "train_val" for patient in chexnet}
    sizes = chestxray14.COMPLETE
    return [
        _list("official", official, "test", sizes["test"]),
        _list("official", official, "train_val", sizes["train_val"]),
        *(_list("CheXNet", chexnet, name, size) for name, size in CHEXNET_SIZES.items()),
    ]


def _list(split: str, set_of: dict[str, str], name: str, images: int) -> ImageList:
    patients = frozenset(patient for patient in set_of if set_of[patient] == name)
    return ImageList(f"the {split} {name} list", images, patients, name == "test")


def patients(ids: Sequence[str]) -> list[str] | None:
    """Return the patient in each image's name, or None if a name is not of ChestX-ray14."""
    matches = [IMAGE.fullmatch(str(name).rsplit("/", 1)[-1]) for name in ids]
    numbers = [int(match[1]) for match in matches if match]
    if len(numbers) < len(matches) or not all(0 < number <= PATIENTS for number in numbers):
        return None
    return [str(number) for number in numbers]


def describe(ids: Sequence[str]) -> str:
    """Say in one sentence which known list these images are; return "" for other datasets."""
    patients_of_images = patients(ids)
    if patients_of_images is None:
        return ""
    counts = [(each, int(each.contains(patients_of_images).sum())) for each in known_lists()]
    inside = [each for each, count in counts if count == len(ids)]
    for each in inside:
        if each.images == len(ids):
            return f"These images are {each.name}, whole: {len(ids):,} images."
    if inside := [each for each in inside if each.is_test] or inside:
        parts = " and ".join(f"{each.name} ({each.images:,} images)" for each in inside)
        return f"These {len(ids):,} images are part of {parts}, not all of it."
    mixed = ", ".join(f"{count:,} of {each.name}" for each, count in counts if count)
    return (
        f"These {len(ids):,} images are no known test list, nor part of one ({mixed}); images that "
        "a network was trained on make its AUC look better than it is."
    )
