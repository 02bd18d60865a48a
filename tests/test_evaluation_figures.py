import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from evaluation import delong, figures, metrics
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
    shown = texts(figures.roc_curves(tmp_path / "roc.svg", targets, first, LABELS, title="A title"))
    assert {"A title", "Edema", "AUC 1.000", "Abnormal", "AUC n/a", "one class only"} <= {*shown}
    assert "specificity" in " ".join(shown)


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


HOSTILE = (r"$\frac{$", "_private", "a_b^c", "$x^{$", r"\textbf{", "50 % $_$ #&~")


def test_no_label_or_title_is_read_as_a_formula(tmp_path):
    generator = np.random.default_rng(1)
    targets = (generator.random((60, len(HOSTILE))) < 0.4).astype(float)
    first, second = generator.normal(targets, [[[1]], [[2]]])
    title = "file $a_{$ caf\udce9.png"
    readers = dict.fromkeys(HOSTILE, (first > 0.5).astype(float))
    compared = delong.table(targets, first, second, HOSTILE)
    networks = {HOSTILE[0]: predictions_of(targets, first), "_b": predictions_of(targets, second)}
    drawn = [
        figures.roc_curves(tmp_path / "a.svg", targets, first, HOSTILE, readers, title=title),
        figures.auc_comparison(tmp_path / "b.svg", compared, HOSTILE[:2], title=title),
        figures.roc_by_row(tmp_path / "c.svg", networks, title),
    ]
    for path in drawn:
        shown = texts(path)
        assert {*HOSTILE} <= {*shown}, path
        assert "file $a_{$ caf?.png" in shown
    image = np.zeros((8, 8))
    path = figures.examples(
        tmp_path / "d.svg", [image], [np.zeros((8, 8, 3))], ["$a_{$\n_b $^$"], title
    )
    assert {"$a_{$", "_b $^$"} <= {*texts(path)}


def predictions_of(targets, scores, labels=HOSTILE):
    ids = np.arange(len(targets)).astype(str)
    return Predictions(ids, ids, np.array(labels), targets, scores[None], {})


@pytest.fixture
def drawn(monkeypatch):
    """Collect Matplotlib's figures instead of writing files."""
    figures_drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, *_: figures_drawn.append(figure))
    return figures_drawn


def assert_unit_square(panel):
    """Check the diagonal, and axes from 0 to 1 with a margin."""
    np.testing.assert_array_equal(panel.lines[0].get_xydata(), [[0, 0], [1, 1]])
    assert panel.get_xlim() == panel.get_ylim() == (-0.02, 1.02)
    assert panel.get_xticks().tolist() == panel.get_yticks().tolist() == [0, 0.5, 1]
    assert panel.get_aspect() == 1


def test_panels_plot_the_curves_and_points_that_metrics_computes(drawn, arrays):
    targets, first, second = arrays
    decisions = (second > 0.5).astype(float)
    figures.roc_curves("", targets, first, LABELS, {"bc4": decisions})
    alarms, sensitivity = metrics.operating_points(targets, decisions)
    under = metrics.under_curve(targets, first, decisions[None])[0]
    for label, panel in enumerate(drawn[0].axes[:3]):
        _, curve, point = panel.lines
        false, true = metrics.roc_curve(targets[:, label], first[:, label])
        np.testing.assert_allclose(curve.get_xdata(), false / false[-1])
        np.testing.assert_allclose(curve.get_ydata(), true / true[-1])
        assert (point.get_xdata(), point.get_ydata()) == (alarms[label], sensitivity[label])
        filled = point.get_markerfacecolor() != "white"
        assert filled == (under[label] == 1)
        assert_unit_square(panel)
        value = metrics.auroc(targets, first)[label]
        assert panel.get_title() == f"{LABELS[label]}\nAUC {value:.3f}".replace(" 0.", " .")


@pytest.mark.parametrize(("labels", "columns", "rows"), [(3, 3, 1), (10, 5, 2), (14, 7, 2)])
def test_panels_stand_in_rows_and_empty_ones_are_hidden(drawn, labels, columns, rows):
    targets = np.tile([[0.0], [1.0]], (3, labels))
    scores = np.random.default_rng(0).random((6, labels))
    figures.roc_curves("", targets, scores, [f"label {k}" for k in range(labels)])
    grid = drawn[0].axes[0].get_gridspec()
    assert (grid.ncols, grid.nrows) == (columns, rows)
    outer = [panel for panel in drawn[0].axes if panel.get_ylabel()]
    assert len(outer) == rows
    assert sum(bool(panel.get_xlabel()) for panel in drawn[0].axes) == columns


def test_a_panel_for_each_network_has_the_curves_of_all_its_labels(drawn, arrays):
    targets, first, second = arrays
    targets = np.column_stack([targets[:, :2], np.zeros(80)])
    networks = {"plain": first, "better": second}
    figures.roc_by_row(
        "", {name: predictions_of(targets, scores, LABELS) for name, scores in networks.items()}
    )
    for panel, letter, (name, scores) in zip(drawn[0].axes, "ab", networks.items(), strict=True):
        assert_unit_square(panel)
        for label, curve in enumerate(panel.lines[1:3]):
            false, true = metrics.roc_curve(targets[:, label], scores[:, label])
            np.testing.assert_allclose(curve.get_xdata(), false / false[-1])
            np.testing.assert_allclose(curve.get_ydata(), true / true[-1])
        assert len(panel.lines[3].get_xdata()) == 0  # one class only, but in the legend
        mean = np.mean(metrics.auroc(targets, scores)[:2])
        assert panel.get_title() == f"({letter}) {name}\nmean AUC {mean:.3f}".replace(" 0.", " .")
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == list(LABELS)


def test_a_comparison_plots_both_aucs_of_every_label_and_high_level_ones_last(drawn, arrays):
    targets, first, second = arrays
    compared = delong.table(targets, first, second, LABELS)
    figures.auc_comparison("", compared, ("plain", "better"), ("Edema",))
    names = [text.get_text() for text in drawn[0].axes[0].get_yticklabels()]
    assert names == ["Fracture", "Abnormal", "Edema"]
    shown = compared.set_index("label").loc[names]
    one, two = (points for points in drawn[0].axes[0].collections[1:])
    np.testing.assert_allclose(one.get_offsets()[:, 0], shown["first"])
    np.testing.assert_allclose(two.get_offsets()[:, 0], shown["second"])
    np.testing.assert_array_equal(one.get_offsets()[:, 1], [0, 1, 2])
    assert one.get_sizes().tolist() == [16, 16, 46]  # only Edema differs significantly
    (line,) = drawn[0].axes[0].lines
    assert line.get_ydata() == [1.5, 1.5]  # before the high-level label
    bold = [text.get_fontweight() for text in drawn[0].axes[0].get_yticklabels()]
    assert bold == ["normal", "normal", "bold"]


@pytest.mark.parametrize(("right", "corner"), [(False, [1, 0]), (True, [0, 1])])
def test_a_network_that_ranks_everything_wrongly_or_rightly_has_a_curve(drawn, right, corner):
    targets = np.repeat([[0.0], [1.0]], 3, axis=0)
    scores = targets if right else 1 - targets
    figures.roc_by_row("", {"row": predictions_of(targets, scores, ["Edema"])})
    curve = drawn[0].axes[0].lines[1].get_xydata()
    np.testing.assert_array_equal(curve, [[0, 0], corner, [1, 1]])


def bins_of(labels, variants=("raw", "calibrated")):
    """Return two different bins per label and variant."""
    return pd.DataFrame(
        {"group": label, "variant": variant, "images": images}
        | {"predicted": 0.01 * row + place, "observed": 0.02 * row + place}
        for row, label in enumerate(labels)
        for variant, place in zip(variants, (0.1, 0.5), strict=True)
        for images in (10, 1000)
    )


def test_reliability_plots_the_bins_of_each_label_and_variant(drawn):
    bins = bins_of(["Edema", "Mass"])
    figures.reliability("", bins)
    for panel, label in zip(drawn[0].axes, ("Edema", "Mass"), strict=True):
        assert panel.get_title() == label
        assert_unit_square(panel)
        curves = zip(panel.lines[1:], panel.collections, ("raw", "calibrated"), strict=True)
        for curve, points, variant in curves:
            own = bins[(bins["group"] == label) & (bins["variant"] == variant)]
            expected = own[["predicted", "observed"]].to_numpy()
            np.testing.assert_array_equal(curve.get_xydata(), expected)
            np.testing.assert_array_equal(points.get_offsets(), expected)
            assert points.get_sizes().tolist() == [12, 24]  # 6 and 6 for each tenfold of images
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["raw", "calibrated"]


@pytest.mark.parametrize(
    ("labels", "columns", "rows"), [(3, 3, 1), (10, 4, 3), (11, 4, 3), (14, 4, 4)]
)
def test_panels_of_reliability_stand_in_rows_and_name_their_axes_once(drawn, labels, columns, rows):
    figures.reliability("", bins_of([f"label {k}" for k in range(labels)]))
    panels = drawn[0].axes
    grid = panels[0].get_gridspec()
    assert (grid.ncols, grid.nrows) == (columns, rows)
    assert [k for k in range(labels) if panels[k].get_ylabel()] == [*range(0, labels, columns)]
    lowest = [k for k in range(labels) if k + columns >= labels]
    assert [k for k in range(labels) if panels[k].get_xlabel()] == lowest
    assert [panel.axison for panel in panels] == [k < labels for k in range(columns * rows)]


def test_subgroups_plot_each_means_interval_in_a_panel_a_metric(drawn):
    rows = [("sex", "F", 40), ("sex", "M", 60), ("age", "under 50", 1000)]
    values = pd.DataFrame(
        {"by": by, "subgroup": subgroup, "images": images, "group": group, "metric": metric}
        | {"value": 0.1 * place + step, "low": 0.1 * place, "high": 0.1 * place + 0.09}
        for metric, step in (("AUC", 0.05), ("FNR", 0.02))
        for group in ("Edema", "mean")
        for place, (by, subgroup, images) in enumerate(rows, 1 if group == "mean" else 5)
    )
    figures.subgroups("", values)
    panels = drawn[0].axes
    assert [panel.get_title() for panel in panels] == [
        "AUC, mean over labels",
        "missed (FNR), mean over labels",
    ]
    names = [text.get_text() for text in panels[0].get_yticklabels()]
    assert names == ["sex: F (n = 40)", "sex: M (n = 60)", "age: under 50 (n = 1,000)"]
    assert panels[0].get_yticks().tolist() == [0, 1, 2]
    assert panels[0].yaxis_inverted()
    for panel, step in zip(panels, (0.05, 0.02), strict=True):
        ends, points = panel.lines[::2], panel.lines[1::2]
        for place, (end, point) in enumerate(zip(ends, points, strict=True)):
            low = 0.1 * (place + 1)
            np.testing.assert_allclose(end.get_xydata(), [[low, place], [low + 0.09, place]])
            np.testing.assert_allclose(point.get_xydata(), [[low + step, place]])
        assert [end.get_color() for end in ends] == [figures.BLUE, figures.BLUE, figures.ORANGE]


def test_a_bin_of_few_images_is_hollow_and_no_line_leads_to_it(drawn):
    figures.reliability("", bins_of(["Edema"]).replace({"images": {10: 9}}))
    (panel,) = drawn[0].axes
    for curve, points in zip(panel.lines[1:], panel.collections, strict=True):
        assert len(curve.get_xydata()) == 1
        faces = [tuple(face[:3]) for face in points.get_facecolors()]
        assert faces.count((1.0, 1.0, 1.0)) == 1
