"""Test the pointing game: which cells of a map a box touches, its numbers, and its boxes."""

import numpy as np
import pandas as pd
import pytest

from data import chestxray14
from reproduce import RunError
from reproduce.engine.rows import PHANTOMS, Data
from reproduce.tables import pointing
from reproduce.tables.pointing import touched


@pytest.mark.parametrize(
    ("boxes", "rows", "columns", "cells"),
    [
        pytest.param([(0.26, 0.5, 0.25, 0.1)], 4, 4, [[2, 1], [2, 2]], id="x .26-.51, y .5-.6"),
        pytest.param([(0.25, 0, 0.25, 0.5)], 4, 4, [[0, 1], [1, 1]], id="ends at a border"),
        pytest.param(
            [(0, 0, 0.1, 0.1), (0.9, 0.9, 0.2, 0.2), (1.2, 0.1, 0.1, 0.1)],
            2,
            3,
            [[0, 0], [1, 2]],
            id="several, one outside the image",
        ),
    ],
)
def test_cells_that_a_box_touches(boxes, rows, columns, cells):
    assert np.argwhere(touched(np.array(boxes), rows, columns)).tolist() == cells


def test_the_game_is_played_by_hand():
    """Two images, two labels, maps of 2 x 2 cells: Mass is hit in one of two images."""
    heat = np.zeros((2, 2, 2, 2), np.float32)
    heat[0, 0, 0, 0] = heat[1, 0, 1, 1] = 1  # maxima of Mass
    heat[0, 1] = 0  # no evidence for Nodule
    boxes = pd.DataFrame(
        [("a", "Mass", 0.0, 0.0, 0.4, 0.4), ("b", "Mass", 0.0, 0.0, 0.4, 0.9),
         ("a", "Nodule", 0.0, 0.0, 0.4, 0.4)],
        columns=["image_path", "label", *pointing.BOX],
    )  # fmt: skip
    lines = pointing.play(boxes, ["a", "b"], ["Mass", "Nodule"], heat)
    assert lines["hit"].tolist() == [True, False, False]
    assert lines["elsewhere"].tolist() == [0, 1, 1]  # where the other image's maximum lies
    assert lines["chance"].tolist() == [0.25, 0.5, 0.25]
    assert lines["IoU"][0] > 0.5
    assert lines["IoU"][1:].tolist() == [0, 0]
    of_all = pointing.summary(lines).set_index("finding").loc["all"]
    assert of_all["hits"] == "0.33 ± 0.27"  # sqrt(1/3 * 2/3 / 3)
    assert of_all["images"] == 3


def test_boxes_of_real_images_are_shares_of_the_image(shared_data):
    folder = shared_data / "chestxray14-patients-1-3922-64px"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    frame = chestxray14.read(folder)
    boxes = pointing.boxes_of(Data(frame, None, {"dataset": "chestxray14"}, folder=str(folder)))
    assert len(boxes) == 89
    first = boxes.set_index("image_path").loc["images/00003148_004.png"]
    assert first["label"] == "Atelectasis"
    np.testing.assert_allclose(
        first[pointing.BOX].astype(float) * 1024, [596.0678, 505.7808, 56.4068, 180.0678], atol=1e-3
    )
    assert {*boxes["label"]} <= {*chestxray14.DATASET.labels}  # Infiltrate is Infiltration
    assert (boxes[["x", "y"]].to_numpy() + boxes[["width", "height"]].to_numpy()).max() <= 1.001


def test_a_damaged_list_of_boxes_is_named(tmp_path):
    (tmp_path / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,a,b,c,d\nx,Mass,1,2,3,?"
    )
    frame = pd.DataFrame({"image_path": ["images/x"]})
    with pytest.raises(RunError, match="is not a list of boxes"):
        pointing.boxes_of(Data(frame, None, {"dataset": "chestxray14"}, folder=str(tmp_path)))
    phantoms = Data(frame, None, {"dataset": "chestxray14"}, PHANTOMS, folder=str(tmp_path))
    assert pointing.boxes_of(phantoms) is None
