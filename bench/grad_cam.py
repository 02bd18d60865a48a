"""Measure whether Grad-CAM points at drawn findings: the pointing game on phantoms.

    bash reproduce/chen2019.sh --rows BR-all --epochs 20
    python -m bench.grad_cam --run results/chen2019/plco-phantoms/BR-all \\
        --phantoms .cache/phantoms/plco-2400-128px

hits: how often the cell with a heatmap's maximum touches a box of that finding. chance: the share
of cells that touch it. elsewhere: how often the maxima of the same label in other test images touch
it, the score of knowing where a finding mostly lies without looking at the image.
"""

from pathlib import Path

import numpy as np
import pandas as pd

import bench
from evaluation import predictions, tables
from reproduce import RunError
from reproduce.engine import rebuild
from reproduce.engine.options import one_sentence

FINDINGS = "phantom_findings.csv"  # what was drawn, in which box


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


def play(run: rebuild.Rebuilt, folder: Path) -> pd.DataFrame:
    """Return label, hit, elsewhere and chance, one row per finding drawn in a test image."""
    tested = predictions.load(run.folder / "predictions.npz")
    labels = list(tested.labels)
    listing = next(folder.rglob(FINDINGS), None)
    if listing is None:
        raise RunError(f"{folder} has no {FINDINGS}. Give the folder of the phantoms.")
    drawn = pd.read_csv(listing)
    drawn = drawn[drawn["label"].isin(labels) & drawn["image_path"].isin(tested.ids)]
    paths = drawn["image_path"].unique().tolist()
    if not paths:
        raise RunError(f"{folder} has none of the images that {run.folder} was tested on.")
    heat = heatmaps_of(run, [listing.parent / path for path in paths])
    peaks = heat.reshape(*heat.shape[:2], -1).argmax(axis=2)
    lines = []
    margin = (run.resized - run.config.size) / 2 / run.resized  # of the centre that is seen
    for (path, label), boxes in drawn.groupby(["image_path", "label"], sort=False):
        image, column = paths.index(path), labels.index(label)
        corner = (boxes[["x", "y"]].to_numpy() - margin) / (1 - 2 * margin)
        sides = boxes[["width", "height"]].to_numpy() / (1 - 2 * margin)
        cells = touched(np.hstack([corner, sides]), *heat.shape[2:]).ravel()
        other_images = np.delete(peaks[:, column], image)
        lines.append(
            {
                "label": label,
                "hit": bool(heat[image, column].max() > 0 and cells[peaks[image, column]]),
                "elsewhere": cells[other_images].mean(),
                "chance": cells.mean(),
            }
        )
    return pd.DataFrame(lines)


def heatmaps_of(run: rebuild.Rebuilt, files: list[Path]) -> np.ndarray:
    """Return (images, labels, h, w) heatmaps of every label, computed 64 images at a time."""
    models = rebuild.networks(run)
    maps = []
    for start in range(0, len(files), 64):
        images = {
            network.folder: [rebuild.read(network, file) for file in files[start : start + 64]]
            for network in run.networks
        }
        maps.append(rebuild.heatmaps(run, models, images, range(len(run.labels))))
    return np.concatenate(maps)


def summary(lines: pd.DataFrame) -> pd.DataFrame:
    """Return one row per label and one for all, with the standard error of the hits."""
    rows = []
    for name, group in [*lines.groupby("label"), ("all", lines)]:
        error = group["hit"].std(ddof=0) / len(group) ** 0.5
        row = {"finding": name, "drawn": len(group)}
        row["hits"] = f"{group['hit'].mean():.2f} ± {error:.2f}"
        row |= {column: f"{group[column].mean():.2f}" for column in ("elsewhere", "chance")}
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a finished run, or its row")
    parser.add_argument("--phantoms", type=Path, required=True, help="the folder it was trained on")
    options = parser.parse_args()
    with one_sentence():
        run = rebuild.load(options.run)
        if run.template is not None:
            raise RunError(
                f"{options.run} crops each image by a template, so its heatmaps cannot be compared "
                "with boxes. Choose a run without a template."
            )
        table = summary(play(run, options.phantoms))
        text = f"{run.name}, {bench.machine()}\n\n{tables.to_markdown(table)}"
        bench.publish("grad_cam", text, options.write)


if __name__ == "__main__":
    main()
