"""The sex, age and view of every image, for tables by subgroup.

    images.csv.gz    in the folder of a paper's tables: image_path, sex, age, view, as released

Training does not depend on them, so they are no setting. With this file, subgroups are computed
from predictions.npz without the dataset.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import safefiles
from data import DataError, reading
from reproduce import RunError

FILE = "images.csv.gz"
NAMES = ("sex", "age", "view")


def save(frame: pd.DataFrame, folder: Path) -> None:
    """Write the attributes of a dataset's images; images of earlier runs stay in the file."""
    known = [name for name in NAMES if name in frame]
    stated, before = frame.set_index("image_path")[known].astype(str), read(folder)
    if before is not None:
        stated = stated.combine_first(before).fillna("")
    stated = stated.sort_index().reindex(columns=known).rename_axis(index=None)
    if before is not None and stated.equals(before):
        return
    text = stated.to_csv(index_label="image_path", lineterminator="\n")
    content = gzip.compress(text.encode("utf-8", "surrogateescape"), mtime=0)
    safefiles.write(folder / FILE, content)


def read(folder: Path) -> pd.DataFrame | None:
    """Return the attributes by image_path, or None if the file is missing or unreadable."""
    try:
        table = reading.read_table(folder / FILE, ("image_path",), optional=NAMES)
    except DataError:
        return None
    return table.set_index("image_path").rename_axis(index=None).fillna("")


def of_images(folder: Path, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the sex, age and view of some images, as far as the folder of tables has them."""
    table = read(folder)
    if table is None:
        return {}
    rows = table.reindex([str(each) for each in ids]).fillna("")
    return {name: rows[name].tolist() for name in rows if rows[name].ne("").any()}


def check(wanted: Sequence[str], frame: pd.DataFrame, dataset: str) -> None:
    """Raise a RunError if --by names an attribute that the dataset does not state."""
    stated = [name for name in NAMES if name in frame and frame[name].astype(str).ne("").any()]
    if lacking := [name for name in wanted if name not in stated]:
        raise RunError(
            f"--by {', '.join(lacking)}: the label files of this {dataset} do not state that, only "
            f"{', '.join(stated) or 'labels'}."
        )
