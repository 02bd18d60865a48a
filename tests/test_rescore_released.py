"""Score the predictions that authors released with python -m reproduce.rescore."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import labels
from reproduce.rescore import released
from reproduce.tables import authors
from reproduce.tables.radiologists import BELOW
from tests.rescore_command import rescore

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rescored(shared_data, tmp_path_factory):
    """Score each paper; return its table.csv by (column, metric), and its folder."""
    tables = {}
    for paper in released.PAPERS:
        results = tmp_path_factory.mktemp(paper)
        assert rescore(paper, "--released", shared_data, "--results-dir", results) == 0
        out = results / paper / "released"
        table = pd.read_csv(out / "table.csv", dtype={"printed": str}).set_index(
            ["column", "metric"]
        )
        tables[paper] = table, out
    return tables


def test_pham_gives_the_published_radiologists_and_an_auc_close_to_the_published_one(rescored):
    table, out = rescored["pham2019"]
    mean = table.loc[("mean", "AUC")]
    assert mean["ours"] == pytest.approx(0.9243, abs=5e-5)
    assert mean["low"] < mean["published"] < mean["high"]
    assert (mean["published"], mean["verdict"]) == (0.930, "same images, differs by .0057")
    readers = table.loc[("mean", BELOW)]
    assert (readers["ours"], readers["published"]) == (2.6, 2.6)
    assert readers["verdict"] == "equal to 1 decimal"
    assert "2.40 if points on a flat part of the curve do not count" in readers["note"]
    by_label = [table.loc[(name, BELOW), "ours"] for name in labels.CHEXPERT_COMPETITION]
    assert by_label == [2, 3, 2, 3, 3]
    assert "mean AUC: .9243 [" in (out / "table.md").read_text("utf-8")
    assert all(name in (out / "roc.svg").read_text() for name in ("bc4", "bc6", "bc8"))


def test_asadi_gives_the_published_number_as_a_weighted_mean_only(rescored):
    table, _ = rescored["asadi2025"]
    macro, weighted = (table.loc[(name, "AUC")] for name in ("mean", "weighted mean"))
    assert weighted["ours"] == pytest.approx(0.9047, abs=5e-5)
    assert weighted["verdict"] == "compatible with other patients"
    assert macro["ours"] == pytest.approx(0.8823, abs=5e-5)
    assert macro["verdict"] == "not published"
    assert macro["high"] < 0.903  # so the published value cannot be the plain mean


def test_zechs_numbers_equal_the_printed_ones(rescored):
    verdicts = rescored["zech2018"][0]["verdict"].xs("AUC", level="metric")
    assert (verdicts[[*labels.CHESTXRAY14]] == "equal to 4 decimals").all()
    assert verdicts["mean"] == "not published"


@pytest.mark.parametrize(
    ("printed", "ours", "expected"),
    [
        ("0.930", 0.9243, "same images, differs by .0057"),
        ("0.903", 0.9034, "equal to 3 decimals"),
        ("0.903", 0.9035, "equal to 3 decimals"),  # may have been rounded down
        ("0.903", 0.9025, "equal to 3 decimals"),
        ("0.903", 0.9036, "same images, differs by .0006"),
        ("2.6", 2.6, "equal to 1 decimal"),
        ("2.6", 2.4, "same images, differs by .20"),
    ],
)
def test_the_verdict_on_the_same_images_allows_for_rounding_alone(printed, ours, expected):
    assert released.recomputed(printed, ours) == expected


def test_each_paper_says_why_its_images_are_known_or_not():
    assert all(authors.SOURCES[paper].why for paper in released.PAPERS)


@pytest.mark.parametrize("paper", released.PAPERS)
def test_the_docs_show_the_table_as_generated(rescored, paper):
    shown = (ROOT / "docs" / "papers" / f"{paper}.md").read_text("utf-8").split(released.START)[1]
    shown = shown.split(released.END)[0].strip()
    generated = (rescored[paper][1] / "table.md").read_text("utf-8").strip()
    advice = f"run python -m reproduce.rescore {paper} --released … --write-docs"
    assert shown == generated, advice
    start, end = released.front_markers(paper)
    front = (ROOT / "README.md").read_text("utf-8").split(start)[1].split(end)[0].strip()
    assert front == released.front_page(paper, rescored[paper][0].reset_index()).strip(), advice
    assert front.count("published") >= 1


def test_files_may_lie_anywhere_under_the_folder(shared_data, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (shared_data / "released").rglob("*.csv"):
        shutil.copy(path, flat)
    one, two = (
        authors.read("pham2019", folder).predictions for folder in (flat, shared_data / "released")
    )
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    assert len({*one.patients}) == 500
    assert authors.read("asadi2025", flat).predictions.targets.shape == (668, 21)


def test_another_file_of_that_name_is_refused(shared_data, tmp_path, capsys):
    for path in (shared_data / "released" / "chexpert-test").rglob("*.csv"):
        shutil.copy(path, tmp_path)
    changed = tmp_path / "groundtruth.csv"
    changed.write_text(changed.read_text().replace(",1", ",0", 1))
    assert rescore("pham2019", "--released", tmp_path) == 2
    message = capsys.readouterr().err
    assert "Not the file that was released" in message
    assert str(changed) in message
    assert "Traceback" not in message


@pytest.mark.parametrize("exists", [True, False])
def test_missing_files_are_named_with_where_to_get_them(tmp_path, capsys, exists):
    folder = tmp_path if exists else tmp_path / "nowhere"
    assert rescore("asadi2025", "--released", folder) == 2
    message = capsys.readouterr().err
    assert "github.com/the-mercury/CIHMLC" in message
    assert "default_model_predictions_vs_groundtruth_with_errors.csv" in message
    assert "--download" in message
