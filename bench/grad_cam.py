"""Measure whether Grad-CAM points at drawn findings: the pointing game on phantoms.

    bash reproduce/chen2019.sh --rows BR-all --epochs 20
    python -m bench.grad_cam --run results/chen2019/plco-phantoms/BR-all \\
        --phantoms .cache/phantoms/plco-2400-128px

reproduce/tables/pointing.py says what each column means.
"""

from pathlib import Path

import numpy as np
import pandas as pd

import bench
from evaluation import predictions, tables
from reproduce import RunError
from reproduce.engine import rebuild
from reproduce.engine.options import one_sentence
from reproduce.tables import pointing


def play(run: rebuild.Rebuilt, folder: Path) -> pd.DataFrame:
    """Return the pointing game of every label that is drawn in a test image."""
    tested = predictions.load(run.folder / "predictions.npz")
    labels = list(tested.labels)
    drawn = pointing.read_phantom_boxes(folder)
    if drawn is None:
        raise RunError(
            f"{folder} has no {pointing.PHANTOM_BOXES}. Give the folder of the phantoms."
        )
    drawn = drawn[drawn["label"].isin(labels) & drawn["image_path"].isin(tested.ids)].copy()
    paths = drawn["image_path"].unique().tolist()
    if not paths:
        raise RunError(f"{folder} has none of the images that {run.folder} was tested on.")
    root = next(folder.rglob(pointing.PHANTOM_BOXES)).parent
    heat = heatmaps_of(run, [root / path for path in paths])
    margin = (run.resized - run.config.size) / 2 / run.resized  # of the centre that is seen
    drawn[["x", "y"]] -= margin
    drawn[pointing.BOX] /= 1 - 2 * margin
    return pointing.play(drawn, paths, labels, heat)


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
        table = pointing.summary(play(run, options.phantoms))
        table = table.drop(columns="IoU").rename(columns={"images": "drawn"})
        text = f"{run.name}, {bench.machine()}\n\n{tables.to_markdown(table)}"
        bench.publish("grad_cam", text, options.write)


if __name__ == "__main__":
    main()
