"""Test the pointing game's rule: which cells of a map a drawn finding touches."""

import numpy as np
import pytest

from bench.grad_cam import touched


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
