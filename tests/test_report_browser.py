"""The report in headless Chromium: sorted, unfolded, copied and resized as a reader does."""

from pathlib import Path

import pandas as pd
import pytest

from tests import axe, browser
from tests.report_results import HOSTILE, write_results

TABLE = "#chen2019-plco table[data-name='Table 1']"
HEAD = f"{TABLE} thead th:nth-child(2)"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def chromium():
    if reason := browser.lacking():
        pytest.skip(reason)
    with browser.started() as window:
        yield window


@pytest.fixture
def opened(chromium, results):
    chromium.show(1400)
    chromium.open(results / "index.html")
    yield chromium
    assert chromium.complaints() == []


def rows(window) -> list[str]:
    names = f'document.querySelectorAll("{TABLE} tbody th")'
    return window.javascript(f"return [...{names}].map(each => each.firstChild.data)")


def test_sorting_goes_down_up_and_back(opened, results):
    side = pd.read_csv(results / "chen2019" / "plco" / "table.csv")
    leaf = side[side[["table", "column", "metric"]].eq(["Table 1", "leaf", "AUC"]).all(axis=1)]
    by_value = leaf.set_index("row")["ours"].fillna(leaf.set_index("row")["published"])
    printed = rows(opened)
    order = "return document.querySelector(arguments[0]).getAttribute('aria-sort')"
    for expected, names in (
        ("descending", by_value.sort_values(ascending=False, kind="stable")),
        ("ascending", by_value.sort_values(kind="stable")),
        (None, by_value.reindex(printed)),
    ):
        opened.click(f"{HEAD} button")
        assert opened.javascript(order, HEAD) == expected
        assert by_value[rows(opened)].tolist() == names.tolist()
    assert rows(opened) == printed


def copied(window, kind: int, table: str = TABLE) -> str:
    bar = f".table:has({table.partition(' ')[2]}) .copy button:nth-of-type({kind})"
    window.click(f"{table.partition(' ')[0]} {bar}")
    return window.pasted()


def test_copying_gives_markdown_latex_and_csv(opened, results):
    markdown = copied(opened, 1).splitlines()
    assert markdown[0].startswith("| Method |  | leaf AUC | leaf AP |")
    assert len({line.count("|") for line in markdown}) == 1
    assert any(line.startswith("| HLCP | printed | .879 | .229 |") for line in markdown)
    assert any(line.startswith("|  | ours | .881 [.871, .891] |") for line in markdown)
    assert any(line.startswith("|  | verdict | within |") for line in markdown)
    latex = copied(opened, 2)
    assert latex.index("\\toprule") < latex.index("\\midrule") < latex.index("\\bottomrule")
    assert "HLCP & printed & .879" in latex
    (results / "copied.csv").write_text(copied(opened, 3))
    cells = pd.read_csv(results / "copied.csv").set_index(["method", "column"])
    cell = cells.loc[("HLCP", "leaf AUC")]
    assert (cell["printed"], cell["ours"], cell["verdict"]) == (0.879, 0.881, "within")
    assert HOSTILE in cells.index.get_level_values(0)


def test_copying_without_the_clipboard_interface(opened):
    opened.javascript("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    assert copied(opened, 1).startswith("| Method |")
    said = opened.javascript("return document.getElementById('status').textContent")
    assert said == "Markdown copied"


def test_a_number_unfolds_its_run(opened):
    shut = "return document.getElementById('chen2019-plco-runs').open"
    assert opened.javascript(shut) is False
    opened.click(f"{TABLE} td a[href^='#run-']")
    assert opened.javascript(shut) is True
    assert "seed-0" in opened.javascript("return document.querySelector('tr:target').innerText")


def test_labels_unfold_by_a_click(opened):
    seen = "return document.querySelector('#chen2019-plco .fold table').checkVisibility()"
    assert opened.javascript(seen) is False
    opened.click("#chen2019-plco .fold summary")
    assert opened.javascript(seen) is True


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_as_wide_as_the_window(opened, width, scheme):
    opened.show(width, scheme=scheme)
    assert opened.javascript("return document.documentElement.scrollWidth") == width
    ground = opened.javascript("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(251, 250, 247)" if scheme == "light" else "rgb(20, 23, 26)")
    assert len(opened.picture()) > 10_000  # not blank


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_drawn_on_white(opened, scheme):
    opened.show(1400, scheme=scheme)
    opened.javascript("document.querySelectorAll('img').forEach(each => each.scrollIntoView())")
    drawn = "return [...document.images].map(each => each.complete && each.naturalWidth)"
    widths = opened.javascript(drawn)
    assert len(widths) == 4
    assert all(widths)
    ground = "getComputedStyle(each.parentElement).backgroundColor"
    grounds = opened.javascript(f"return [...document.images].map(each => {ground})")
    assert {*grounds} == {"rgb(255, 255, 255)"}


@pytest.fixture(scope="module")
def axe_core() -> str:
    try:
        return axe.fetch()
    except OSError as error:
        pytest.skip(f"axe-core cannot be fetched and is not in .cache ({error})")


@pytest.mark.parametrize("unfolded", [False, True])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_axe_finds_no_violation(opened, axe_core, width, scheme, unfolded):
    opened.show(width, scheme=scheme)
    opened.javascript(
        "for (const each of document.querySelectorAll('details')) each.open = arguments[0]",
        unfolded,
    )
    assert axe.violations(opened, axe_core) == []
