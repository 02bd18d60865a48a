"""Whether Grad-CAM points at what was drawn: the pointing game on phantoms, whose places are known.

    bash reproduce/chen2019.sh --rows BR-all --epochs 20
    python -m bench.grad_cam --run results/chen2019/plco-phantoms/BR-all/seed-0 \\
        --phantoms .cache/phantoms/plco-2400-128px

A hit: the cell with a map's maximum touches a box of that finding. Chance is the share of cells
that would; `elsewhere` the hits of the same label's maxima in other test images, which knows where
a finding mostly lies, but has not seen this one.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from reproduce.run import RunError

import bench
from evaluation import predict, tables
from reproduce import flags, rebuild


def touched(boxes: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) bool: the cells that one of the boxes (x, y, width, height) touches."""

    def within(start: float, length: float, cells: int) -> np.ndarray:
        return (np.arange(1, cells + 1) > start * cells) & (
            np.arange(cells) < (start + length) * cells
        )

    hit = np.zeros((rows, columns), bool)
    for x, y, width, height in boxes:
        hit |= within(y, height, rows)[:, None] & within(x, width, columns)
    return hit


def play(run: rebuild.Rebuilt, folder: Path) -> pd.DataFrame:
    """label, hit, chance, elsewhere: a line for each finding drawn in a test image."""
    drawn = pd.read_csv(next(folder.rglob("phantom_findings.csv")))
    root = next(folder.rglob("phantom_findings.csv")).parent
    found = predict.load(run.folder / "predictions.npz")
    labels = list(found.labels)
    drawn = drawn[drawn["label"].isin(labels) & drawn["image_path"].isin(found.ids)]
    paths = drawn["image_path"].unique().tolist()
    if not paths:
        raise RunError(f"{folder} has none of the images that {run.folder} was tested on.")
    models = rebuild.networks(run)
    maps = []
    for start in range(0, len(paths), 64):
        batch = paths[start : start + 64]
        images = {
            each.folder: [rebuild.read(each, root / path) for path in batch]
            for each in run.networks
        }
        maps.append(rebuild.heatmaps(run, models, images, range(len(labels))))
    heat = np.concatenate(maps)  # (images, labels, h, w)
    peaks = heat.reshape(*heat.shape[:2], -1).argmax(axis=2)
    lines = []
    margin = (run.resized - run.config.size) / 2 / run.resized  # of the centre that is seen
    for (path, label), boxes in drawn.groupby(["image_path", "label"], sort=False):
        place, column = paths.index(path), labels.index(label)
        corner = (boxes[["x", "y"]].to_numpy() - margin) / (1 - 2 * margin)
        sides = boxes[["width", "height"]].to_numpy() / (1 - 2 * margin)
        cells = touched(np.hstack([corner, sides]), *heat.shape[2:]).ravel()
        others = np.delete(peaks[:, column], place)
        lines.append(
            {
                "label": label,
                "hit": bool(heat[place, column].max() > 0 and cells[peaks[place, column]]),
                "elsewhere": cells[others].mean(),
                "chance": cells.mean(),
            }
        )
    return pd.DataFrame(lines)


def summary(lines: pd.DataFrame) -> pd.DataFrame:
    """A line a label and one for all, with the standard error of the hits."""
    every = [*lines.groupby("label"), ("all", lines)]
    return pd.DataFrame(
        {
            "finding": name,
            "drawn": len(of),
            "hits": f"{of['hit'].mean():.2f} ± {of['hit'].std(ddof=0) / len(of) ** 0.5:.2f}",
            "elsewhere": f"{of['elsewhere'].mean():.2f}",
            "chance": f"{of['chance'].mean():.2f}",
        }
        for name, of in every
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench.grad_cam",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, help="the folder of a finished run")
    parser.add_argument("--phantoms", type=Path, required=True, help="the folder it was trained on")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    with flags.one_sentence():
        run = rebuild.load(options.run)
        if run.template is not None:
            raise RunError("A template cuts each image elsewhere; choose a run without one.")
        table = summary(play(run, options.phantoms))
        text = f"{run.name}, {bench.machine()}\n\n{tables.to_markdown(table)}"
        bench.publish("grad_cam", text, options.write)


if __name__ == "__main__":
    main()
