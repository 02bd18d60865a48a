import base64
import html.parser
import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation import published, tables
from reproduce.engine import runs
from reproduce.report import grids, results_folder
from reproduce.report import html as report_html
from reproduce.report import page as report_page
from tests.report_results import (
    COMMIT,
    HOSTILE,
    SVG,
    values_of,
    write_results,
    write_run,
    write_set,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return write_results(tmp_path_factory.mktemp("results"))


class Page(html.parser.HTMLParser):
    """Parse a page into its elements and the text inside each element with an id."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.texts, self.open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if tag not in ("meta", "link", "br", "input"):
            self.open.append((tag, attrs.get("id")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for _, name in self.open:
            if name:
                self.texts[name] = self.texts.get(name, "") + data

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(results) -> Page:
    return Page((results / "index.html").read_text("utf-8"))


# Content of the page


def test_text_from_files_is_text(results, page):
    text = (results / "index.html").read_text("utf-8")
    assert len(page.all("script")) == 1  # ours
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;alert(") >= 4  # the row, its run, the claim, the further CSV
    assert not [attrs for _, attrs in page.elements for name in attrs if name.startswith("on")]


def test_nothing_is_loaded(results, page):
    loading = [attrs.get("src") or attrs.get("xlink:href", "") for _, attrs in page.elements]
    assert not [source for source in loading if not source.startswith(("#", "data:")) and source]
    assert not page.all("link")
    assert not re.search(r"@import|url\((?!#)", (results / "index.html").read_text("utf-8"))
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")


def test_ids_are_unique_and_every_link_within_the_page_arrives(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs.get("href") or attrs.get("xlink:href") or "" for _, attrs in page.elements]
    inner = {target[1:] for target in targets if target.startswith("#")}
    assert inner
    assert inner <= set(ids)
    named = {name for _, attrs in page.elements if (name := attrs.get("aria-labelledby"))}
    assert named <= set(ids)


def test_every_table_has_a_caption_and_scoped_headings(page):
    tables_of_data = [attrs for attrs in page.all("table") if "data-name" in attrs]
    captions = [tag for tag, _ in page.elements].count("caption")
    assert len(tables_of_data) == captions > 10
    names = [attrs for tag, attrs in page.elements if tag == "th"]
    ledgers = [attrs for attrs in names if "scope" not in attrs]  # Markdown's tables
    assert len(ledgers) < len(names) / 4


def test_every_number_of_ours_leads_to_its_run(results, page):
    side = pd.read_csv(results / "chen2019" / "plco" / "table.csv")
    cells = [attrs for attrs in page.all("td") if "data-c" in attrs]
    ours = [attrs for attrs in cells if attrs["data-c"].split("|")[1] and "data-w" in attrs]
    assert len(ours) > side["ours"].notna().sum() > 10
    runs = {name: text for name, text in page.texts.items() if re.fullmatch(r"run-\d+", name)}
    links = {attrs["href"][1:] for attrs in page.all("a") if attrs["href"].startswith("#run-")}
    assert links == {name for name, text in runs.items() if "finished" in text} - unlinked(runs)
    text = next(text for text in runs.values() if "HLCP/seed-0" in text)
    assert COMMIT in text
    assert text.strip().startswith("HLCP7finished2")  # row, seed, state, epochs
    assert "bench" in text


def unlinked(runs: dict[str, str]) -> set[str]:
    """Return the runs without a number in a table: unfinished ones, and those of a broken table."""
    return {name for name, text in runs.items() if "not finished" in text or "pham2019" in text}


def test_unfinished_and_unreadable_results_are_named(page):
    broken = page.texts["pham2019-chexpert"]
    assert "pham2019/chexpert/table.csv cannot be read (" in broken
    assert "To write it again, run bash reproduce/pham2019.sh." in broken
    assert "pham2019/chexpert/roc.svg cannot be shown (it is not a complete SVG" in broken
    assert "pham2019/chexpert/U-Ones/seed-0/config.json is damaged" in broken
    assert "not finished: epoch 2 of 3" in page.texts["chen2019-plco"]
    assert "3 of 4 rows finished" in page.texts["chen2019-plco"]


def test_run_folders_of_this_version_and_of_earlier_ones_are_read(tmp_path):
    data = {"sets": {"test": 2}}
    earlier = {"row": "HLCP", "seed": 2, "epochs": 5, "data": data}  # without the parts of a row
    now = {"row": "HLCP", "seed": 10, "fit": {"epochs": 5}, "data": data}
    row = tmp_path / "chen2019" / "plco" / "HLCP"
    write_run(row / "seed-10-1a2b3c4d", "HLCP", finished=False, settings=now)
    write_run(row / "seed-2", "HLCP", finished=False, settings=earlier)
    earlier_record = runs.record(row / "seed-2")
    del earlier_record["version"]
    runs.write_record(row / "seed-2", earlier_record)
    shown = results_folder.read(row.parent, tmp_path).runs
    assert [run.folder.name for run in shown] == ["seed-2", "seed-10-1a2b3c4d"]
    assert [run.settings["seed"] for run in shown] == [2, 10]
    assert {run.state for run in shown} == {"not finished: epoch 2 of 5"}
    assert not any(run.problems for run in shown)


def test_published_tables_stand_alone_where_nothing_ran(page):
    printed = page.texts["asadi2025-published"]
    assert ".903" in printed
    assert "not run" in printed


def test_papers_that_ran_come_first_and_each_says_what_it_is(page):
    ids = (attrs.get("id", "") for tag, attrs in page.elements if tag == "h2")
    order = [name.removesuffix("-h") for name in ids if name != "evidence-h"]  # no paper
    ran = [name for name in order if f"{name}-published" not in page.texts]
    assert order[1 : 1 + len(ran) - 2] == ran[1:-1]  # between the overview and across papers
    assert order.index("wang2017") > max(map(order.index, ran[1:-1]))
    assert "CVPR 2017" in page.texts["wang2017"]  # of the script: it has no ledger


def test_phantoms_carry_a_band_and_real_images_do_not(page):
    words = "Phantoms (synthetic radiographs), not comparable."
    assert words in page.texts["ge2018-chestxray14-phantoms"]
    assert words in page.texts["mo2019-chestxray14-phantoms"]
    assert words not in page.texts["chen2019-plco"]


def test_overview_counts_verdicts(results, page):
    verdicts = pd.read_csv(results / "chen2019" / "plco" / "table.csv")["verdict"]
    overview = " ".join(page.texts["overview"].split())
    assert f"{(verdicts == 'within').sum()} within" in overview
    assert "3 of 4 rows finished" in overview
    assert "2026-01-02 10:00 bench, x86_64, 2 cores, cpu" in overview
    assert "bash reproduce/asadi2025.sh" in overview


def test_across_papers_says_whether_the_test_images_are_the_same(results, page):
    assert "Not on the same test images" in page.texts["across"]
    sets = results_folder.result_sets(results)
    (compared,) = [each for each in report_page.across(sets, iter(range(99))) if each["phantom"]]
    assert compared["same_images"] is False
    assert [name for name, _ in compared["grid"]["lines"]] == ["Hernia", "Mass"]  # no averages
    assert len(compared["grid"]["columns"]) == 4
    same = [each for each in sets if each.paper == "ge2018"]
    again = results_folder.read(results / "ge2018" / "chestxray14-phantoms", results)
    again.paper = "copy"
    (compared,) = report_page.across([*same, again], iter(range(99)))
    assert compared["same_images"] is True


def test_wide_tables_have_their_labels_down_the_page():
    many = {f"label {i}": i / 20 for i in range(9)}
    (grid,) = grids.printed_tables(side_by_side(many), iter(range(9)))
    assert grid["columns"] == ["A"]
    assert [name for name, _ in grid["lines"]] == list(many)
    (grid,) = grids.printed_tables(side_by_side({"mean": 0.5}), iter(range(9)))
    assert grid["columns"] == ["mean"]


def side_by_side(labels: dict[str, float]) -> pd.DataFrame:
    printed = values_of(["A"], labels).rename(columns={"group": "column", "value": "number"})
    printed = printed.assign(table="Table 1", split="test", dataset="x")
    printed["value"] = printed["number"].map("{:.3f}".format)
    ours = values_of(["A"], {label: value + 0.02 for label, value in labels.items()})
    return published.compare(printed.drop(columns=["low", "high"]), ours)


def test_a_cell_is_worked_by_hand():
    (grid,) = grids.printed_tables(side_by_side({"mean": 0.5, "Mass": 0.6}), iter(range(9)))
    cell = grid["lines"][0][1][0]
    assert (cell["printed"], cell["ours"], cell["interval"]) == (".500", ".520", "[.510, .530]")
    assert (cell["difference"], cell["verdict"]) == ("+.020", "below")
    # the scale reaches from .5 to .63
    assert cell["bar"] == {"low": "7.7", "width": "15.4", "ours": "15.4", "printed": "0.0"}


# Figures and Markdown


@pytest.mark.parametrize(
    ("suffix", "content", "kind"),
    [(".svg", SVG.encode(), "svg+xml"), (".png", b"\x89PNG\r\n\x1a\n...", "png")],
)
def test_a_figure_is_an_image_that_holds_its_file(suffix, content, kind):
    drawn = report_html.figure(content, suffix, 'A "label"')
    ((tag, attributes),) = Page(drawn).elements
    assert tag == "img"  # in which no script runs and nothing is loaded
    assert attributes.keys() == {"alt", "src"}
    assert attributes["alt"] == 'A "label"'
    start, data = attributes["src"].split(",")
    assert start == f"data:image/{kind};base64"
    assert base64.b64decode(data) == content


@pytest.mark.parametrize(
    ("suffix", "content", "problem"),
    [
        (".svg", b"<html/>", "not an SVG"),
        (".svg", b"<svg", "not a complete SVG"),
        (".png", b"<svg/>", "not a PNG"),
    ],
)
def test_a_damaged_figure_is_refused(suffix, content, problem):
    with pytest.raises(ValueError, match=problem):
        report_html.figure(content, suffix, "")


def test_figures_reach_the_page_only_as_images(page):
    assert not [tag for tag, _ in page.elements if tag in ("svg", "object", "iframe", "embed")]
    assert [image for image in page.all("img") if image["src"].startswith("data:image/svg+xml")]
    assert all(image["alt"] for image in page.all("img"))


def test_markdown_is_escaped_and_its_links_lead_on(tmp_path):
    links = "[a](../data.md#x) [b](javascript:1) <img src=x>"
    text = f"## Loss\n<!-- hidden -->\n{links}\n\n|a|\n|-|\n|1|\n"
    made = report_html.markdown(text, tmp_path / "docs" / "papers", tmp_path / "results" / "i.html")
    assert "<h3>Loss</h3>" in made
    assert 'href="../docs/data.md#x"' in made
    assert "&lt;img src=x&gt;" in made
    assert "hidden" not in made
    assert 'href="javascript' not in made
    assert "<td>1</td>" in made


# The command


def command(*arguments: str) -> subprocess.CompletedProcess:
    start = [sys.executable, "-m", "reproduce.report", *arguments]
    return subprocess.run(start, cwd=ROOT, capture_output=True, text=True)


def test_no_results_are_one_sentence(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        ended = command("--results-dir", str(folder))
        assert ended.returncode == 2
        assert len(ended.stderr.strip().splitlines()) == 1
        assert "bash reproduce/chen2019.sh" in ended.stderr


def test_the_page_is_written_whole_and_without_a_network_framework(results, tmp_path):
    code = (
        "import sys; from reproduce.report import __main__ as report\n"
        f"report.main(['--results-dir', {str(results)!r}, '--out', {str(tmp_path / 'a.html')!r}])\n"
        "print([name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_colours_can_be_read_on_their_ground():
    style = (ROOT / "reproduce" / "report" / "page.css").read_text()
    light, dark, *_ = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for scheme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w+);", scheme))
        for name in ("ink", "soft", "link", "within", "below", "above", "good", "fault"):
            assert contrast(colours[name], colours["ground"]) >= 4.5, name
        for stripe in ("band", "band-stripe"):
            assert contrast(colours["band-ink"], colours[stripe]) >= 4.5


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, as WCAG defines it."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_evidence_page_stands_in_the_report_as_it_was_written(results):
    text = (results / "index.html").read_text("utf-8")
    part = text[text.index('id="evidence-released"') :]
    assert "<h4>Every number</h4>" in part
    assert "<h5>More</h5>" in part
    assert ".800\u00a0[.600,\u00a0.900]" in part
    assert "A figure" not in part  # the figures follow the text


def test_what_others_released_is_never_counted_as_ours(tmp_path):
    side = write_set(tmp_path / "ge2018" / "chestxray14", {"R18": "R18"})
    row = "released: Zech 2018, DenseNet-121"
    theirs = side[side["row"] == "R18"].assign(
        row=row, printed="", published=float("nan"), verdict="released", runs=""
    )
    folder = tmp_path / "ge2018" / "chestxray14"
    tables.to_csv(pd.concat([side, theirs]), folder / "table.csv")
    labels = values_of(["R18", row], {"Hernia": 0.5, "Mass": 0.6})
    tables.to_csv(labels, folder / "values.csv")
    one = results_folder.read(folder, tmp_path)
    assert grids.rows_run(one.table) == grids.rows_run(side)
    assert grids.verdict_counts(one.table) == grids.verdict_counts(side)
    (shown,) = grids.printed_tables(theirs, itertools.count())
    assert shown["row_verdicts"] == {row: "released by others, not ours"}
    other = results_folder.read(folder, tmp_path)
    other.paper = "mo2019"
    across = report_page.across([one, other], itertools.count())
    assert not any(row in name for name in across[0]["grid"]["columns"])
