"""Which list of ChestX-ray14 some images are: the official one, the CheXNet split, part of either.

Both splits are by patient, so an image's name, 00000013_005.png, says which list it is in.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data import chestxray14, splits

PATIENTS = 30_805
IMAGE = re.compile(r"0*(\d{1,8})_\d{3}(?:\.\w+)?")
CHEXNET_SIZES = {"train": 78_468, "val": 11_219, "test": 22_433}


class ImageList(NamedTuple):
    name: str
    images: int  # when it is whole
    sets: dict[str, str]  # patient -> set
    wanted: str  # the set that this list is


@functools.cache
def known_lists() -> list[ImageList]:
    """Both official lists and the three of the CheXNet split."""
    chexnet = splits.chexnet_sets()
    testing = splits.official_test_patients()
    official = {patient: "test" if patient in testing else "train_val" for patient in chexnet}
    return [
        ImageList(f"the official {name} list", images, official, name)
        for name, images in reversed(chestxray14.COMPLETE.items())
    ] + [
        ImageList(f"the CheXNet {name} list", CHEXNET_SIZES[name], chexnet, name)
        for name in ("test", "val", "train")
    ]


def patients(ids: Sequence[str]) -> list[str] | None:
    """The patient in each image's name; None where a name is not one of ChestX-ray14's."""
    found = []
    for name in ids:
        match = IMAGE.fullmatch(str(name).rsplit("/", 1)[-1])
        if not match or not 0 < int(match[1]) <= PATIENTS:
            return None
        found.append(str(int(match[1])))
    return found


def member(image_list: ImageList, of: Sequence[str]) -> np.ndarray:
    """Whether each image, given by its patient, is in the list."""
    return np.array([image_list.sets[patient] == image_list.wanted for patient in of])


def describe(ids: Sequence[str]) -> str:
    """One sentence that says which known list these images are; empty for other datasets."""
    of = patients(ids)
    if of is None:
        return ""
    every = known_lists()
    counts = {each.name: int(member(each, of).sum()) for each in every}
    whole = [each for each in every if counts[each.name] == len(ids) == each.images]
    if whole:
        return f"These images are {whole[0].name}, whole: {len(ids):,} images."
    inside = [each for each in every if counts[each.name] == len(ids)]
    if tests := [each for each in inside if each.wanted == "test"] or inside:
        parts = " and ".join(f"{each.name} ({each.images:,} images)" for each in tests)
        return f"These {len(ids):,} images are part of {parts}, not all of it."
    mixed = ", ".join(
        f"{counts[each.name]:,} of {each.name}" for each in every if counts[each.name]
    )
    return (
        f"These {len(ids):,} images are no known test list, nor part of one ({mixed}); images that "
        "a network was trained on make its AUC look better than it is."
    )
