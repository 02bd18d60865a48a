"""Recognise which list of ChestX-ray14 some images belong to: an official or a CheXNet list.

Both splits are by patient, so the name of an image, such as 00000013_005.png, tells its list.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data import public_lists

IMAGE = re.compile(r"0*(\d{1,8})_\d{3}(?:\.\w+)?")
LISTS = (  # column of the public lists, name of the split, name of the list; test lists first
    ("official", "official", "test"),
    ("official", "official", "train_val"),
    ("chexnet", "CheXNet", "test"),
    ("chexnet", "CheXNet", "val"),
    ("chexnet", "CheXNet", "train"),
)


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
    """Return the official lists and the CheXNet lists."""
    everyone = public_lists.patients()
    images = everyone["findings"].str.split().str.len()  # one word per image
    lists = []
    for column, split, name in LISTS:
        inside = everyone[column] == name
        patients_inside = frozenset(everyone["patient"][inside])
        title = f"the {split} {name} list"
        lists.append(ImageList(title, int(images[inside].sum()), patients_inside, name == "test"))
    return lists


def patients(ids: Sequence[str]) -> list[str] | None:
    """Return the patient in each image's name, or None if a name is not of ChestX-ray14."""
    matches = [IMAGE.fullmatch(str(name).rsplit("/", 1)[-1]) for name in ids]
    numbers = [str(int(match[1])) for match in matches if match]
    everyone = {*public_lists.patients()["patient"]}
    return numbers if len(numbers) == len(matches) and everyone.issuperset(numbers) else None


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
