"""Test the pages of single predictions: the label tree, texts and files."""

import cv2
import numpy as np
import pytest

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


IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)


def tiles(path, names, probabilities, spread=None, true=(), columns=2, title=""):
    heat = np.random.default_rng(1).random((len(names), 4, 4)).astype(np.float32)
    options = {"true": true, "columns": columns, "title": title}
    return panels.activations(path, IMAGE, heat, names, probabilities, spread, **options)


def page(path, names, probabilities, spread=None, parents=None, shown=(1, 0), **texts):
    heat = np.random.default_rng(1).random((len(shown), 4, 4)).astype(np.float32)
    parents = np.zeros((len(names), len(names))) if parents is None else parents
    options = {"shown": shown, "heat": heat, "parents": parents}
    return panels.prediction(path, IMAGE, names, probabilities, spread, **options, **texts)


@pytest.mark.parametrize("has_spread", [False, True])
def test_panels_are_pictures_and_the_same_each_time(tmp_path, has_spread):
    names, probabilities = [f"label {k}" for k in range(5)], np.random.default_rng(0).random(5)
    spread = probabilities / 10 if has_spread else None
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    tiles(paths[0], names, probabilities, spread, ["label 1"], columns=3, title="title")
    for path in paths[1:]:
        page(path, names, probabilities, spread, shown=(4, 0))
    assert min(cv2.imread(str(path)).shape[0] for path in paths) > 300
    assert paths[1].read_bytes() == paths[2].read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


def test_no_label_or_file_name_is_read_as_a_formula(tmp_path):
    names, probabilities = [r"$\frac{$", "_b $^$"], np.array([0.2, 0.7])
    title = "$x^{$ caf\udce9.png"
    paths = [
        tiles(tmp_path / "a.png", names, probabilities, true=names, title=title),
        page(tmp_path / "b.png", names, probabilities, title=title, note=title),
    ]
    assert all(cv2.imread(str(path)) is not None for path in paths)


@pytest.fixture
def drawn(monkeypatch):
    """Collect Matplotlib's figures instead of writing files."""
    figures = []
    monkeypatch.setattr(panels, "_save", lambda figure, path: figures.append(figure))
    return figures


def test_a_page_shows_the_likeliest_labels_with_their_spread(drawn):
    names = [f"label {k}" for k in range(12)]
    probabilities = np.array([0.5, 0.97, 0.02, *np.linspace(0.1, 0.45, 9)])
    spread = np.array([0.1, 0.2, 0.05, *[0.01] * 9])
    parents = np.zeros((12, 12))
    parents[0, 1] = parents[2, 0] = 1
    page("", names, probabilities, spread, parents, title="a.png", note="HLCP")
    picture, bars, tree, *maps = (axes for each in drawn[0].subfigs for axes in each.axes)
    assert picture.get_title(loc="left") == "a.png"
    order = np.argsort(-probabilities)[:10]
    assert [text.get_text() for text in bars.get_yticklabels()] == [names[k] for k in order]
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], probabilities[order])
    assert bars.get_xlim() == (0, 1)
    assert bars.get_xticks().tolist() == [0, 0.5, 1]
    low, high = sorted(bars.get_ylim())
    assert low < 0 < 9 < high  # every bar is inside
    (whiskers,) = bars.collections
    ends = np.array([segment[:, 0] for segment in whiskers.get_segments()])
    np.testing.assert_allclose(ends[:, 0], np.maximum(probabilities - spread, 0)[order])
    np.testing.assert_allclose(ends[:, 1], np.minimum(probabilities + spread, 1)[order])
    assert [text.get_text() for text in bars.texts[:2]] == ["97 ± 20 %", "50 ± 10 %"]
    shown = [text.get_text() for text in tree.texts]
    assert shown[shown.index("label 1") :][:6] == [
        *("label 1", "97 ± 20 %", "label 0", "50 ± 10 %", "label 2", "2 ± 5 %")
    ]
    weights = {text.get_text(): text.get_fontweight() for text in tree.texts}
    assert (weights["label 0"], weights["label 2"]) == ("bold", "normal")
    assert [tile.get_title() for tile in maps[:2]] == ["label 1\n97 ± 20 %", "label 0\n50 ± 10 %"]
    assert [tile.axison for tile in maps] == [True, True, False, False, False, False]
    assert tree.get_title(loc="left") == "Label tree"
    page("", names, probabilities, shown=[1])
    assert drawn[1].subfigs[0].axes[2].get_title(loc="left") == "All labels"
    assert not drawn[1].subfigs[0].axes[1].collections  # one member has no spread


def test_tiles_name_their_label_and_true_ones_are_bold(drawn):
    probabilities = np.array([0.1, 0.2, 0.3])
    tiles("", ["a", "b", "c"], probabilities, probabilities / 10, true=["b"], title="title")
    maps = drawn[0].axes
    assert [tile.get_title() for tile in maps] == ["a\n10 ± 1 %", "b\n20 ± 2 %", "c\n30 ± 3 %", ""]
    assert [tile.title.get_fontweight() for tile in maps[:3]] == ["normal", "bold", "normal"]
    assert [tile.axison for tile in maps] == [True, True, True, False]
