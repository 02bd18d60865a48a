"""The public image lists of ChestX-ray14, as shipped in chestxray14_lists.csv.gz.

One row per patient, in the order of the three lists at https://github.com/arnoweng/CheXNet:
patient, chexnet (train, val, test: the set there), official (train_val, test: the set of NIH's
lists), findings (one word per image: a letter per finding, a = the first of labels.CHESTXRAY14, and
- for none). The images of a patient are 000, 001, … without a gap. The findings are those of 2017;
the label file of 2020 has 188 positives more, in 181 images.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from data import labels, reading

FILE = Path(__file__).with_name("chestxray14_lists.csv.gz")


@functools.cache
def patients() -> pd.DataFrame:
    """Return patient, chexnet, official and findings, one row per patient."""
    return reading.read_table(FILE, ("patient", "chexnet", "official", "findings"))


def chexnet_sets() -> dict[str, str]:
    """Return patient -> train, val or test of the CheXNet split."""
    return dict(zip(patients()["patient"], patients()["chexnet"], strict=True))


def official_test_patients() -> set[str]:
    """Return the 2,797 patients of test_list.txt; all others are in train_val_list.txt."""
    return {*patients()["patient"][patients()["official"] == "test"]}


def images() -> pd.DataFrame:
    """Return image, patient_id, chexnet, official and findings of every image, in list order."""
    findings = patients()["findings"].str.split()
    table = patients().assign(findings=findings).explode("findings", ignore_index=True)
    number = table.groupby("patient", sort=False).cumcount()
    names = table["patient"].str.zfill(8) + "_" + number.astype(str).str.zfill(3) + ".png"
    return table.rename(columns={"patient": "patient_id"}).assign(image=names)


def label_matrix(findings: pd.Series) -> np.ndarray:
    """Return (images, 14) uint8 of words such as "ac" (Atelectasis, Effusion)."""
    letters = [chr(ord("a") + position) for position in range(len(labels.CHESTXRAY14))]
    codes, different = pd.factorize(findings)
    known = np.array([[letter in word for letter in letters] for word in different], np.uint8)
    return known[codes]
