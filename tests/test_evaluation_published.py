"""Test the transcribed numbers, and the verdicts computed from them."""

import runpy

import numpy as np
import pandas as pd
import pytest

from evaluation import EvaluationError, published
from evaluation.published import CELL, compare, load, verdict
from tests.printed import HEADER, PAPERS, frame, our_row

# The transcription


def test_every_paper_is_there():
    assert set(published.papers()) >= set(PAPERS)
    sizes = {paper: len(load(paper)) for paper in PAPERS}
    assert sizes == {"asadi2025": 1, "chen2019": 37, "ge2018": 56, "mo2019": 145, "pham2019": 129}


@pytest.mark.parametrize("paper", PAPERS)
def test_files_are_sound(paper):
    printed = load(paper)
    assert list(printed.columns) == [*published.COLUMNS, "number", "margin"]
    assert not printed.duplicated(["table", *CELL]).any()
    assert set(printed["split"]) <= {"valid", "test"}
    assert set(printed["dataset"]) <= {"PLCO", "CheXpert", "ChestX-ray14"}
    assert set(printed["metric"]) <= {"AUC", "AP", "radiologists below the curve"}
    assert printed[published.COLUMNS[:-1]].ne("").all(axis=None)
    texts = printed[published.COLUMNS]
    assert texts.equals(texts.apply(lambda column: column.str.strip()))


def test_values_stay_as_printed():
    chen = load("chen2019").set_index(["table", *CELL])["value"]
    assert chen["Table 1", "BR-all", "high-level", "AP"] == "0.440"  # the zero is kept
    ge = load("ge2018").set_index(["table", *CELL])["value"]
    assert ge["Table 3", "D121 + VGG-F-MSML", "mean", "AUC"] == "8.8537"  # the misprint is kept


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"pham2018.*known: asadi2025, chen2019"):
        load("pham2018")
    (tmp_path / "new2030.csv").write_text(GOOD.replace("0.8", "0.8O7"))
    with pytest.raises(EvaluationError, match=r"line 2: the value '0\.8O7' is not a number"):
        load("new2030", tmp_path)


GOOD = f"{HEADER}\nT,r,c,AUC,D,test,0.8,\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", r"lacks the column\(s\) table, row, column"),
        (bytes(range(256)), "is not a CSV file in UTF-8"),
        (b'"table', "is not a CSV file in UTF-8"),
        (GOOD.replace(",note", "").encode(), r"lacks the column\(s\) note"),
        (GOOD.replace("0.8,", "0.8,a, b").encode(), "line 2: 9 fields instead of 8"),
        (GOOD.replace(",0.8", "").encode(), "line 2: 7 fields instead of 8"),
        ((GOOD + "\nT\n").encode(), "line 4: 1 fields instead of 8"),
    ],
)
def test_empty_binary_and_torn_files_are_one_sentence(tmp_path, content, expected):
    path = tmp_path / "new2030.csv"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=expected) as caught:
        published.read_csv(path, published.COLUMNS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fields_are_texts_as_they_stand(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD + '\nT,NA,"x, y",AUC,D,test,0.80,nan\n', "utf-8-sig")
    frame = published.read_csv(tmp_path / "a.csv", published.COLUMNS)
    assert frame.iloc[1].tolist() == ["T", "NA", "x, y", "AUC", "D", "test", "0.80", "nan"]
    with pytest.raises(EvaluationError, match="There is no file"):
        published.read_csv(tmp_path / "missing.csv", published.COLUMNS)


# Verdicts


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.9, 0.89, 0.91, "within"),
        (0.89, 0.89, 0.91, "within"),
        (0.88, 0.89, 0.91, "below"),
        (0.92, 0.89, 0.91, "above"),
        (0.92, np.nan, np.nan, "no interval"),
    ],
)
def test_verdict(value, low, high, expected):
    assert verdict(value, low, high) == expected
    assert verdict(value, low, high, "drawn phantoms") == "not comparable (drawn phantoms)"


def test_compare_gives_every_cell_its_verdict():
    ours = pd.DataFrame(
        [
            our_row("Ours", low=0.89, high=0.91),
            our_row("U-Ones", low=0.84, high=0.95, note="3 seeds"),
            our_row("U-Zeros", value=np.nan),
            our_row("Ignore", value=0.87),
            our_row("Ignore [14]", low=0.1, high=0.2),
            our_row("a row of ours"),
        ]
    )
    side = compare(load("pham2019"), ours)
    assert list(side.columns) == [*published.SIDE_BY_SIDE, "printed"]
    cells = side.set_index(["table", *CELL])
    verdicts = {
        row: cells["verdict"]["Table 1", row, "mean", "AUC"] for row in ("U-Ones", "U-Zeros")
    }
    assert verdicts == {"U-Ones": "within", "U-Zeros": "undefined"}
    assert cells["verdict"]["Table 1", "Ignore", "mean", "AUC"] == "no interval"
    assert cells["verdict"]["Table 1", "U-Ones", "Edema", "AUC"] == "not run"
    assert cells["verdict"]["Table 1", "a row of ours", "mean", "AUC"] == "not published"
    assert cells["verdict"]["Table 2", "Ours", "mean", "AUC"] == "above"
    assert cells["verdict"]["Table 2", "Ignore [14]", "mean", "AUC"] == "quoted"
    assert cells["difference"]["Table 2", "Ours", "mean", "AUC"] == pytest.approx(-0.04)
    assert cells["note"]["Table 1", "U-Ones", "mean", "AUC"] == "3 seeds"
    assert cells["printed"]["Table 2", "Ours", "mean", "AUC"] == "0.940"
    assert "text" in set(side["table"])  # Irvin's test AUC stands nowhere else
    assert ("text", "Ours", "mean", "AUC") not in cells.index  # Table 2 has it


def test_a_misprint_gets_no_verdict_and_its_reading_is_shown():
    """Ge's Table 3 prints 8.8537, a misprint of Table 1's .8537."""
    ours = pd.DataFrame([our_row("D121 + VGG-F-MSML", value=0.86, low=0.85, high=0.87)])
    side = compare(load("ge2018"), ours).set_index(["table", "row"])
    cell = side.loc["Table 3", "D121 + VGG-F-MSML"]
    assert (cell["verdict"], cell["printed"], cell["ours"]) == ("misprint", "8.8537", 0.86)
    assert np.isnan(cell["difference"])
    assert published.reading(cell["note"]) == "0.8537"
    table_1 = side.loc["Table 1", "D121 + VGG-F-MSML"].query("column == 'mean'").iloc[0]
    assert table_1["verdict"] == "within"
    not_run = compare(load("ge2018"), ours.iloc[:0]).set_index(["table", "row"])
    assert not_run["verdict"]["Table 3", "D121 + VGG-F-MSML"] == "not run"
    drawn = compare(load("ge2018"), ours, "drawn phantoms").set_index(["table", "row"])
    assert drawn["verdict"]["Table 3", "D121 + VGG-F-MSML"] == "misprint"


@pytest.mark.parametrize("paper", PAPERS)
def test_every_misprint_names_its_reading(paper):
    notes = load(paper)["note"]
    for note in notes[notes.str.contains("misprint")]:
        assert float(published.reading(note)) < 1


def test_failed_rows_say_why_and_rows_that_were_not_run_do_not():
    failed = {"HLCP": "NaN in epoch 2", "HLCP, same budget": "needs HLCP", "HLUP": "seed 1"}
    ours = pd.DataFrame([our_row("HLUP", "leaf", low=0.8, high=0.95)])
    side = compare(load("chen2019"), ours, failed=failed)
    verdicts = side.groupby("row")["verdict"].agg(set)
    assert verdicts["HLCP"] == {"failed: NaN in epoch 2"}
    assert verdicts["HLCP, same budget"] == {"failed: needs HLCP"}
    assert "within" in verdicts["HLUP"]  # a cell with a number keeps its verdict
    assert verdicts["BR-all"] == {"not run"}
    assert verdicts["Guendel et al. 2018"] == {"quoted"}
    added = side[side["row"] == "HLCP, same budget"]
    first = load("chen2019").query("table == 'Table 1'")
    assert {*added["table"]} == {"Table 1"}
    assert not added.duplicated(["column", "metric"]).any()
    assert {*added["column"]} == {*first["column"]}
    two = frame([("T 1", "a", "x", "AUC", "0.9"), ("T 2", "a", "y", "AP", "0.9")])
    added = compare(two, ours.iloc[:0], failed={"b": "killed"}).query("row == 'b'")
    assert added[["table", "column", "metric"]].values.tolist() == [["T 1", "x", "AUC"]]
    empty = compare(load("chen2019").iloc[:0], ours.iloc[:0], failed={"HLCP": "killed"})
    assert empty[["table", "row", "verdict"]].values.tolist() == [
        ["ours", "HLCP", "failed: killed"]
    ]


def test_verdict_kind_leaves_out_the_reason():
    verdicts = ("within", "not comparable (a (b))", "failed: out of memory (8 GB)")
    kinds = [published.verdict_kind(verdict) for verdict in verdicts]
    assert kinds == ["within", "not comparable", "failed"]
    again = ("equal to 3 decimals", "same images, differs by .0057", published.COMPATIBLE)
    kinds = [published.verdict_kind(verdict) for verdict in again]
    assert kinds == ["equal", "same images, differs", "compatible with other patients"]


@pytest.mark.parametrize(
    ("low", "expected"), [(0.9400, "within"), (0.9404, "within"), (0.9406, "below")]
)
def test_a_printed_number_stands_for_all_that_round_to_it(low, expected):
    ours = pd.DataFrame([our_row("Ours", value=0.95, low=low, high=0.96)])
    printed = load("pham2019")
    printed = printed[(printed["table"] == "Table 2") & (printed["row"] == "Ours")]
    cells = compare(printed, ours).set_index("column").loc["mean"]
    assert (cells["printed"], cells["verdict"]) == ("0.940", expected)


def test_datasets_are_named_as_the_readers_name_them(tmp_path):
    datasets = [published.dataset(paper) for paper in PAPERS]
    assert datasets == ["chexpert", "plco", "chestxray14", "chestxray14", "chexpert"]
    (tmp_path / "new2030.csv").write_text(HEADER)
    assert published.dataset("new2030", tmp_path) == ""


def test_compare_says_why_numbers_do_not_compare():
    side = compare(load("chen2019"), pd.DataFrame([our_row("HLUP", "leaf")]), "drawn phantoms")
    ran = side[side["ours"].notna()]
    assert set(ran["verdict"]) == {"not comparable (drawn phantoms)"}
    assert len(ran) == 1  # Table 2 names its row otherwise


def test_compare_takes_metrics_in_long_form():
    ours = pd.DataFrame([our_row("HLUP", "leaf", low=0.8, high=0.95)])
    long_form = ours.rename(columns={"column": "group"}).assign(positives=3, images=9)
    pd.testing.assert_frame_equal(
        compare(load("chen2019"), ours), compare(load("chen2019"), long_form)
    )
    both = ours.assign(group="something else")  # a column takes precedence
    assert published.our_values(both)["column"].tolist() == ["leaf"]


def test_compare_refuses_what_it_could_only_guess():
    printed = frame([("Table 1", row, "mean", "AUC", "0.90") for row in "amm"])
    printed["split"] = ["valid", "valid", "test"]
    ours = pd.DataFrame([our_row("m", low=0.8, high=0.85)])
    both = pd.concat([pd.DataFrame([our_row("a")]), ours])
    with pytest.raises(EvaluationError, match=r"^m / mean / AUC is published on two splits"):
        compare(printed, both)
    printed = printed.iloc[1:]
    assert compare(printed, ours.assign(split="test"))["verdict"].tolist() == ["not run", "above"]
    with pytest.raises(EvaluationError, match=r"m / mean / AUC twice"):
        compare(printed.iloc[:1], pd.concat([ours, ours]))
    with pytest.raises(EvaluationError, match=r"lack the column.*value"):
        compare(printed, ours.drop(columns="value"))


def test_averages_are_told_from_labels():
    longer = ["leaf given Abnormal", "mean of the 14 CheXpert labels", "weighted mean of all"]
    averages = ["mean", "weighted mean", "leaf", "W", "N", *longer]
    assert all(published.is_average(column) for column in averages)
    assert not any(published.is_average(column) for column in ("Edema", "Nodule", "No Finding"))


def test_the_command_needs_to_be_told_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["published"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("evaluation.published", run_name="__main__")
    assert end.value.code == 2
    assert "required: command" in capsys.readouterr().err
