"""The page is always written, names each damaged file, and shows failed rows and sessions."""

import html
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import safefiles
from reproduce.engine import runs
from reproduce.report import __main__ as report
from reproduce.report import grids, page, results_folder
from tests.report_results import UNFINISHED, write_results, write_run

RUN = "chen2019/plco/HLCP/seed-0"
DAMAGED_RECORD = f"{RUN}/config.json is damaged"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture
def results(pristine, tmp_path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "results"))


def text_of(results: Path) -> str:
    report.main(["--results-dir", str(results)])
    return html.unescape((results / "index.html").read_text("utf-8"))


@pytest.mark.parametrize("name", ["table.csv", "values.csv", "claims.csv", "notes.csv"])
def test_a_table_cut_anywhere_is_named(results, name):
    path = results / "chen2019" / "plco" / name
    content = path.read_bytes()
    for cut in np.linspace(0.02, 0.99, 20):
        part = content[: max(1, int(len(content) * cut))].removesuffix(b"\n")
        path.write_bytes(part)
        (problem,) = results_folder.read(path.parent, results).problems
        assert problem.startswith(f"chen2019/plco/{name} cannot be read"), part
    assert f"chen2019/plco/{name} cannot be read" in text_of(results)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        (f"{RUN}/history.csv", b"", f"{RUN}/history.csv cannot be read (it is empty)"),
        (f"{RUN}/history.csv", b"\x00\xff" * 50, f"{RUN}/history.csv cannot be read"),
        (f"{RUN}/history.csv", b"epoch\n1\n", "it has no column seconds"),
        (f"{RUN}/history.csv", b"epoch,seconds\n1,x\n", f"{RUN}/history.csv cannot be read"),
        (f"{RUN}/config.json", b'{"settings": {"row": "x"}, "provenance": 3}', DAMAGED_RECORD),
        (f"{RUN}/config.json", b'{"settings": {"row": "x", "data": 3}}', DAMAGED_RECORD),
        (f"{RUN}/config.json", b'{"settings": 3}', DAMAGED_RECORD),
        (f"{RUN}/config.json", b"[]", DAMAGED_RECORD),
        (f"{RUN}/config.json", b"[" * 100_000, DAMAGED_RECORD),
        (f"{RUN}/config.json", b"\xff\xfe", DAMAGED_RECORD),
        (f"{RUN}/predictions.npz", b"", f"{RUN}/predictions.npz cannot be read"),
        (f"{RUN}/predictions.npz", b"PK\x03\x04" + b"x" * 99, f"{RUN}/predictions.npz cannot"),
        (f"{RUN}/failed.json", b"{", None),  # it is finished
        ("chen2019/plco/table.csv", b"", "chen2019/plco/table.csv cannot be read"),
        ("chen2019/plco/values.csv", b"a,b\n\xff,1\n", "chen2019/plco/values.csv cannot be read"),
        ("chen2019/plco/notes.csv", b"a,b\n1\n", "chen2019/plco/notes.csv cannot be read"),
        ("chen2019/plco/figure-3.svg", b"", "chen2019/plco/figure-3.svg cannot be shown"),
        ("chen2019/plco/more.svg", b'<?xml version="1.0" encoding="x-none"?><svg/>', "more.svg"),
        ("chen2019/plco/more.png", b"", "chen2019/plco/more.png cannot be shown (it is not a PNG)"),
    ],
)
def test_a_damaged_file_is_named_and_the_page_is_made(results, name, content, named):
    (results / name).write_bytes(content)
    text = text_of(results)
    assert named is None or named in text
    assert "HLUP-finetune" in text


def test_an_npy_in_the_place_of_predictions_is_named(results):
    with (results / RUN / "predictions.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert f"{RUN}/predictions.npz cannot be read" in text_of(results)


@pytest.mark.parametrize("name", [f"{RUN}/config.json", "chen2019/plco/table.csv"])
def test_folders_and_pipes_by_the_name_of_a_file_are_named(results, name):
    path = results / name
    path.unlink()
    path.mkdir()
    assert path.name in text_of(results)
    path.rmdir()
    os.mkfifo(path)
    assert f"{path.name} cannot be read" in text_of(results)


def test_bits_flipped_anywhere_never_keep_the_page_away(results):
    """A flipped bit in any file may change a text, but the page is still written."""
    generator = np.random.default_rng(0)
    paths = sorted(path for path in results.rglob("*") if path.is_file())
    for _ in range(10):
        path = paths[generator.integers(len(paths))]
        if not (original := path.read_bytes()) or path.name == "index.html":
            continue
        content = bytearray(original)
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)
        path.write_bytes(content)
        assert page.build(results, results / "index.html")
        path.write_bytes(original)


def test_damaged_published_numbers_are_named(results, monkeypatch, tmp_path):
    folder = tmp_path / "published"
    shutil.copytree(page.published.FOLDER, folder)
    (folder / "asadi2025.csv").write_text("table,row\n")

    def load(paper, original=page.published.load):
        return original(paper, folder)

    monkeypatch.setattr(page.published, "load", load)
    assert "asadi2025.csv lacks the column" in text_of(results)


# Failed rows, and runs of several sessions


def test_a_failed_run_shows_its_reason(results):
    failed = results / "chen2019" / "plco" / UNFINISHED
    safefiles.write(failed / "failed.json", json.dumps({"reason": "NaN in epoch 2", "batch": 7}))
    table = results / "chen2019" / "plco" / "table.csv"
    side = pd.read_csv(table, dtype=str, keep_default_na=False)
    lost = (side["row"] == "BR-leaf").to_numpy()
    assert lost.any()
    side.loc[lost, "verdict"] = "failed: NaN in epoch 2"
    side.loc[lost, ["ours", "low", "high", "difference"]] = ""
    side.to_csv(table, index=False)
    text = text_of(results)
    assert "<b>BR-leaf</b> failed: NaN in epoch 2" in text
    assert "1 row failed" in text
    assert "<td>failed: NaN in epoch 2</td>" in text  # the run's state
    assert f"✗</i> {lost.sum()} failed" in text  # in the overview's counts
    assert "BR-leaf<small>failed: NaN in epoch 2</small>" in text
    (failed / "failed.json").write_text("{")
    assert "failed.json cannot be read" in text_of(results)


def test_failed_cells_have_no_number_and_count_as_not_run():
    side = pd.DataFrame(
        {
            **{"table": ["Table 1"] * 2, "row": ["A", "B"], "column": ["mean"] * 2},
            **{"metric": ["AUC"] * 2, "printed": ["0.5", "0.6"], "published": [0.5, 0.6]},
            **{"ours": [0.51, np.nan], "low": [0.4, np.nan], "high": [0.6, np.nan]},
            **{"verdict": ["within", "failed: needs A"], "note": ["", ""]},
        }
    )
    assert grids.rows_run(side) == (1, 2)
    assert grids.verdict_counts(side) == [("within", 1), ("failed", 1)]
    (grid,) = grids.printed_tables(side, iter(range(9)))
    assert grid["row_verdicts"] == {"B": "failed: needs A"}
    assert grid["lines"][1][1][0]["ours"] == ""


def test_a_run_of_several_sessions_names_each_machine_once(tmp_path):
    folder = tmp_path / "chen2019" / "plco" / "HLCP" / "seed-0"
    write_run(folder, "HLCP")
    record = runs.record(folder)
    (first,) = record["sessions"]
    second = first | {"host": "other", "started": "2026-01-03 11:00:00"}
    runs.write_record(folder, record | {"sessions": [first, second, second]})
    run = results_folder.read_run(folder, tmp_path)
    assert run.made_with("host") == "bench; other"
    assert run.made_with("commit") == first["commit"]
    text = text_of(tmp_path)
    assert "bench, x86_64, 2 cores, cpu" in text
    assert "other, x86_64, 2 cores, cpu" in text
    assert "2026-01-03 11:00" in text


def test_names_of_files_that_are_no_utf8_do_not_stop_the_page(tmp_path):
    folder = tmp_path / "chen2019" / "plco" / os.fsdecode(b"caf\xe9") / "seed-0"
    try:
        write_run(folder, "HLCP")
    except OSError:
        pytest.skip("this file system takes no such names")
    assert "caf%E9/seed-0" in text_of(tmp_path)
