"""The pointing game's rule: which cells of a map a drawn finding touches."""

import numpy as np

from bench.grad_cam import touched


def test_cells_that_a_box_touches():
    box = [(0.26, 0.5, 0.25, 0.1)]  # x .26 to .51, y .5 to .6
    assert np.argwhere(touched(np.array(box), 4, 4)).tolist() == [[2, 1], [2, 2]]


def test_a_box_that_ends_at_a_border_does_not_touch_the_next_cell():
    assert np.argwhere(touched(np.array([(0.25, 0.0, 0.25, 0.5)]), 4, 4)).tolist() == [
        [0, 1],
        [1, 1],
    ]


def test_several_boxes_and_those_outside_the_picture():
    both = np.array([(0.0, 0.0, 0.1, 0.1), (0.9, 0.9, 0.2, 0.2), (1.2, 0.1, 0.1, 0.1)])
    assert np.argwhere(touched(both, 2, 3)).tolist() == [[0, 0], [1, 2]]
