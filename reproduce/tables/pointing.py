"""Compare Grad-CAM heatmaps with boxes around findings: the pointing game (Zhang et al. 2016).

The boxes are the 984 that radiologists drew on ChestX-ray14, or those of the findings that were
drawn into phantoms (synthetic radiographs).

hits       how often the cell with a heatmap's maximum touches a box of that finding
elsewhere  how often the maxima of the same label in the other images with boxes touch it: the score
           of knowing where a finding mostly lies without looking at the image
chance     the share of cells that touch it
IoU        overlap with the boxes of the region above half the maximum, as Asadi's Figure 3 draws it
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import safefiles
from evaluation import figures, heatmap, predictions, tables
from reproduce import RunError
from reproduce.engine import rebuild
from reproduce.engine.rows import Data, Run
from reproduce.tables import heatmaps

PHANTOM_BOXES = "phantom_findings.csv"
REAL_BOXES = ("BBox_List_2017.csv", "BBox_List_2017.csv.gz")
PIXELS = 1024  # per side of the images that REAL_BOXES is about
SPELLINGS = {"Infiltrate": "Infiltration"}  # in REAL_BOXES -> among the labels
BOX = ["x", "y", "width", "height"]  # as shares of the image's side; x and y of the upper left
BATCH, GRID = 64, 64  # images at a time; cells per side in which overlap is measured


def write(folder: Path, runs: Sequence[Run[Any]], data: Data) -> None:
    """Write and print boxes.md and boxes.csv of each run on the test images that have boxes.

    Where the dataset has no boxes, do nothing.
    """
    boxes = boxes_of(data)
    path = folder / "boxes.csv"
    if boxes is None or not runs or all(heatmaps.up_to_date(path, run.folder) for run in runs):
        return
    parts = []
    for run in runs:
        tested = predictions.load(run.folder / "predictions.npz")
        lines = play_run(run, boxes[boxes["image_path"].isin(tested.ids)], data)
        if len(lines):
            parts.append(summary(lines).assign(row=run.row.name))
    if not parts:
        return
    table = pd.concat(parts, ignore_index=True)[["row", *parts[0].columns.drop("row")]]
    tables.to_csv(table, path)
    title = "Grad-CAM against boxes of findings, test images of the first seed"
    title += f" ({figures.PHANTOM_WARNING})" * data.phantom
    safefiles.write(folder / "boxes.md", f"### {title}\n\n{tables.to_markdown(table)}")
    of_all = table[table["finding"] == "all"].drop(columns="finding")
    print("\n" + tables.titled(title, tables.to_text(of_all.set_index("row"))))


def boxes_of(data: Data) -> pd.DataFrame | None:
    """Return image_path, label and BOX of every box, or None if the dataset has no boxes."""
    folder = Path(data.folder)
    folder = folder if folder.is_dir() else folder.parent
    if data.phantom:
        return read_phantom_boxes(folder)
    path = next((folder / name for name in REAL_BOXES if (folder / name).is_file()), None)
    if path is None:
        return None
    names = ["image", "label", *BOX]
    try:
        boxes = pd.read_csv(path, header=0, names=names, usecols=range(6))
        boxes[BOX] = boxes[BOX].astype(float) / PIXELS
    except (ValueError, OSError) as error:  # ParserError and UnicodeDecodeError are ValueErrors
        raise RunError(
            f"{path} is not a list of boxes ({error}): get BBox_List_2017.csv of ChestX-ray14 "
            "again, or move it out of the folder."
        ) from error
    by_name = {Path(image).name: image for image in data.frame["image_path"]}
    boxes["image_path"] = boxes["image"].map(by_name)
    boxes["label"] = boxes["label"].replace(SPELLINGS)
    return boxes.dropna(subset="image_path").drop(columns="image")


def read_phantom_boxes(folder: Path) -> pd.DataFrame | None:
    """Return the boxes of the findings that were drawn, or None if there is no such file."""
    listing = next(folder.rglob(PHANTOM_BOXES), None)
    return None if listing is None else pd.read_csv(listing)


def play_run(run: Run[Any], boxes: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Return one line per image and finding with boxes, of a run's network on decoded images."""
    rebuilt = rebuild.load(run.folder)
    labels = [label for label in rebuilt.labels if label in {*boxes["label"]}]
    boxes = boxes[boxes["label"].isin(labels)]
    images = boxes["image_path"].unique()
    if not len(images):
        return pd.DataFrame()
    columns = [list(rebuilt.labels).index(label) for label in labels]
    networks, maps = rebuild.networks(rebuilt), []
    for start in range(0, len(images), BATCH):
        decoded = data.pixels.images(data.pixels.indices(images[start : start + BATCH]))
        seen = dict.fromkeys(networks, decoded)
        maps.append(rebuild.heatmaps(rebuilt, networks, seen, columns))
    return play(boxes, list(images), labels, np.concatenate(maps))


def play(
    boxes: pd.DataFrame, images: Sequence[str], labels: Sequence[str], heat: np.ndarray
) -> pd.DataFrame:
    """Return label, hit, elsewhere, chance and IoU, one line per image and finding with boxes.

    `heat` is (images, labels, h, w); `boxes` are of these images and labels.
    """
    peaks = heat.reshape(*heat.shape[:2], -1).argmax(axis=2)
    lines = []
    for (path, label), own in boxes.groupby(["image_path", "label"], sort=False):
        image, column = images.index(path), labels.index(label)
        sides, of_image = own[BOX].to_numpy(float), heat[image, column]
        cells = touched(sides, *of_image.shape).ravel()
        other_images = np.delete(peaks[:, column], image)
        inside, shown = touched(sides, GRID, GRID), heatmap.scaled(of_image, GRID) > 0
        lines.append(
            {
                "label": label,
                "hit": bool(of_image.max() > 0 and cells[peaks[image, column]]),
                "elsewhere": cells[other_images].mean() if len(other_images) else np.nan,
                "chance": cells.mean(),
                "IoU": (inside & shown).sum() / max((inside | shown).sum(), 1),
            }
        )
    return pd.DataFrame(lines)


def touched(boxes: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return which of rows × columns cells any of the boxes (x, y, width, height) touches."""

    def within(start: float, length: float, cells: int) -> np.ndarray:
        return (np.arange(1, cells + 1) > start * cells) & (
            np.arange(cells) < (start + length) * cells
        )

    hit = np.zeros((rows, columns), bool)
    for x, y, width, height in boxes:
        hit |= within(y, height, rows)[:, None] & within(x, width, columns)
    return hit


def summary(lines: pd.DataFrame) -> pd.DataFrame:
    """Return one row per label and one for all, with the standard error of the hits."""
    rows = []
    for name, group in [*lines.groupby("label"), ("all", lines)]:
        error = group["hit"].std(ddof=0) / len(group) ** 0.5
        row = {"finding": name, "images": len(group)}
        row["hits"] = f"{group['hit'].mean():.2f} ± {error:.2f}"
        row |= {column: f"{group[column].mean():.2f}" for column in ("elsewhere", "chance", "IoU")}
        rows.append(row)
    return pd.DataFrame(rows)
