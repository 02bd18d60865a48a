"""Panels: the order of the label tree, and files that are whole pictures."""

import cv2
import numpy as np

from data import label_tree
from evaluation import panels


def test_outline_indents_children_under_their_deepest_parent():
    # 0 -> 1 -> 2 and 0 -> 2; 3 alone
    parents = np.zeros((4, 4))
    parents[1, 0] = parents[2, 0] = parents[2, 1] = 1
    assert panels.outline(parents) == [(3, 0), (0, 0), (1, 1), (2, 2)]


def test_outline_has_every_label_once():
    lines = panels.outline(label_tree.parent_matrix(label_tree.ASADI))
    assert sorted(label for label, _ in lines) == list(range(21))
    assert max(level for _, level in lines) == 4  # Abnormal, Opacity, Fluid, Consolidation, …
    assert panels.outline(np.zeros((3, 3))) == [(0, 0), (1, 0), (2, 0)]


def test_percent():
    assert panels.percent(0.634) == "63 %"
    assert panels.percent(0.634, 0.071) == "63 ± 7 %"


def test_panels_are_pictures_and_the_same_each_time(tmp_path):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (64, 64)).astype(np.uint8)
    names, heat = [f"label {k}" for k in range(5)], random.random((5, 4, 4)).astype(np.float32)
    found, parents = random.random(5), np.zeros((5, 5))
    for spread in (None, found / 10):
        paths = [tmp_path / f"{number}.png" for number in range(3)]
        panels.activations(paths[0], image, heat, names, found, spread, ["label 1"], 3, "title")
        for path in paths[1:]:
            panels.prediction(path, image, names, found, spread, [4, 0], heat[:2], parents)
        assert min(cv2.imread(str(path)).shape[0] for path in paths) > 300
        assert paths[1].read_bytes() == paths[2].read_bytes()
        assert len(list(tmp_path.iterdir())) == 3


def test_no_label_or_file_name_is_read_as_a_formula(tmp_path):
    image, heat = np.zeros((64, 64), np.uint8), np.ones((2, 4, 4), np.float32)
    names, found, parents = [r"$\frac{$", "_b $^$"], np.array([0.2, 0.7]), np.zeros((2, 2))
    title = "$x^{$ caf\udce9.png"
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    panels.activations(paths[0], image, heat, names, found, None, names, 2, title)
    panels.prediction(paths[1], image, names, found, None, [1, 0], heat, parents, title, title)
    assert all(cv2.imread(str(path)) is not None for path in paths)
