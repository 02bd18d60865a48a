import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from evaluation import delong, figures
from evaluation.predictions import Predictions

LABELS = ("Edema", "Fracture", "Abnormal")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    targets = (generator.random((80, 3)) < 0.4).astype(float)
    first = generator.normal(targets, 1)
    return targets, first, first + 2 * targets * [1, 0, 0] + 1e-3 * generator.normal(size=(80, 3))


def texts(path):
    return ["".join(text.itertext()) for text in ET.parse(path).iter(f"{SVG}text")]


def test_same_data_give_the_same_bytes(tmp_path, arrays):
    targets, first, second = arrays
    compared = delong.table(targets, first, second, LABELS)
    readers = {"reader 1": (first > 0.5).astype(float)}
    drawn = [
        (
            figures.roc_curves(tmp_path / f"roc{i}.svg", targets, first, LABELS, readers),
            figures.auc_comparison(tmp_path / f"auc{i}.svg", compared),
        )
        for i in range(2)
    ]
    for one, two in zip(*drawn, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert not list(tmp_path.glob(".*"))  # no partial files
    other = figures.roc_curves(tmp_path / "other.svg", targets, second, LABELS)
    assert other.read_bytes() != drawn[0][0].read_bytes()


def test_curves_name_their_label_and_exact_auc_and_say_what_is_undefined(tmp_path, arrays):
    targets, first, _ = arrays
    targets = np.column_stack([targets[:, :2], np.zeros(80)])
    first[:, 0] = targets[:, 0]
    found = texts(figures.roc_curves(tmp_path / "roc.svg", targets, first, LABELS, title="A title"))
    assert {"A title", "Edema", "AUC 1.000", "Abnormal", "AUC n/a", "one class only"} <= {*found}
    assert "specificity" in " ".join(found)


def test_readers_are_in_the_legend_and_filled_only_below_the_curve(tmp_path, arrays):
    targets, *_ = arrays
    perfect = targets + 0.0
    readers = {"equal": perfect, "worse": 1 - perfect}
    path = figures.roc_curves(tmp_path / "roc.svg", targets, perfect, LABELS, readers)
    assert {"equal", "worse"} <= {*texts(path)}
    svg = path.read_text().lower()
    (_, equal_colour), (_, worse_colour) = figures.READER_STYLES[:2]
    assert f"fill: {worse_colour.lower()}" in svg
    # The reader on the curve is hollow in the panels, and filled in the legend only.
    assert svg.count(f"fill: {worse_colour.lower()}") > svg.count(f"fill: {equal_colour.lower()}")


def test_significant_labels_are_bold_and_high_level_ones_last(tmp_path, arrays):
    targets, first, second = arrays
    compared = delong.table(targets, first, second, LABELS)
    assert (compared["p"] < 0.05).tolist() == [True, False, False]
    path = figures.auc_comparison(
        tmp_path / "auc.svg", compared, ("plain", "better"), high_level=("Edema",)
    )
    weights = {
        "".join(text.itertext()): "bold" in text.get("style", "") or "700" in text.get("style", "")
        for text in ET.parse(path).iter(f"{SVG}text")
    }
    assert weights["Edema"]
    assert not weights["Fracture"]
    assert {"plain", "better"} <= {*weights}
    order = [text for text in texts(path) if text in LABELS]
    assert order == ["Fracture", "Abnormal", "Edema"]


@pytest.mark.parametrize("phantom", [True, False])
def test_phantoms_are_labelled(tmp_path, arrays, phantom):
    targets, first, second = arrays
    paths = (
        figures.roc_curves(tmp_path / "a.svg", targets, first, LABELS, phantom=phantom),
        figures.auc_comparison(
            tmp_path / "b.svg", delong.table(targets, first, second, LABELS), phantom=phantom
        ),
    )
    for path in paths:
        assert (figures.PHANTOM_WARNING in " ".join(texts(path))) == phantom


def test_neither_pyplot_nor_tensorflow_is_loaded():
    code = (
        "import sys; from evaluation import figures; "
        "print({'matplotlib.pyplot', 'tensorflow', 'keras'} & {*sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


HOSTILE = (r"$\frac{$", "_private", "a_b^c", "$x^{$", r"\textbf{", "50 % $_$ #&~")


def test_no_label_or_title_is_read_as_a_formula(tmp_path):
    generator = np.random.default_rng(1)
    targets = (generator.random((60, len(HOSTILE))) < 0.4).astype(float)
    first, second = generator.normal(targets, [[[1]], [[2]]])
    title = "file $a_{$ caf\udce9.png"
    readers = dict.fromkeys(HOSTILE, (first > 0.5).astype(float))
    drawn = [
        figures.roc_curves(tmp_path / "a.svg", targets, first, HOSTILE, readers, title),
        figures.auc_comparison(
            tmp_path / "b.svg", delong.table(targets, first, second, HOSTILE), HOSTILE[:2],
            title=title,
        ),
        figures.roc_by_row(
            tmp_path / "c.svg",
            {HOSTILE[0]: predictions_of(targets, first), "_b": predictions_of(targets, second)},
            title,
        ),
    ]  # fmt: skip
    for path in drawn:
        shown = texts(path)
        assert {*HOSTILE} <= {*shown}, path
        assert "file $a_{$ caf?.png" in shown
    image = np.zeros((8, 8))
    path = figures.examples(
        tmp_path / "d.svg", [image], [np.zeros((8, 8, 3))], ["$a_{$\n_b $^$"], title
    )
    assert {"$a_{$", "_b $^$"} <= {*texts(path)}


def predictions_of(targets, scores):
    ids = np.arange(len(targets)).astype(str)
    return Predictions(ids, ids, np.array(HOSTILE), targets, scores[None], {})
