"""Test the tables for people: cells, shapes, widths and files."""

import numpy as np
import pandas as pd
import pytest

from evaluation import claims, published, tables


def our_cells(paper, rows, drop=0.01):
    """Return our values slightly below the published ones, with intervals."""
    printed = published.load(paper)
    printed = printed[printed["row"].isin(rows) & printed["table"].str.startswith("Table")]
    value = printed["number"] - drop
    cells = printed[published.CELL].assign(value=value, low=value - 0.02, high=value + drop / 2)
    return cells.drop_duplicates(published.CELL)


def side_by_side(paper="pham2019", rows=("U-Ones",), reason=None):
    printed = published.load(paper)
    return published.compare(printed, our_cells(paper, rows), reason)


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [
        (0.8734, 3, ".873"),
        (0.8734, 4, ".8734"),
        (1.0, 3, "1.000"),
        (-0.0123, 3, "-.012"),
        (10.04, 1, "10.0"),
        (np.nan, 3, "n/a"),
    ],
)
def test_number(value, decimals, expected):
    assert tables.number(value, decimals) == expected


def test_with_interval():
    assert tables.with_interval(0.873, 0.861, 0.884) == ".873 [.861, .884]"
    assert tables.with_interval(0.873, np.nan, np.nan) == ".873"
    assert tables.with_interval(np.nan, np.nan, np.nan) == "n/a"


def test_ours_stands_under_the_published_row():
    printed = tables.as_printed(side_by_side())["Table 1 (AUC)"]
    assert printed.loc[("U-Ones", "published"), "Edema"] == ".918"
    assert printed.loc[("U-Ones", "ours"), "Edema"] == ".908 [.888, .913]"
    assert printed.loc[("U-Ones", "verdict"), "Edema"] == "above"
    assert printed.loc[("Ignore", "published, not run"), "mean"] == ".863"
    assert list(printed.columns) == [
        *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion", "mean")
    ]
    assert list(dict.fromkeys(printed.index.get_level_values(0))) == [
        *("Ignore", "Ignore+CT", "U-Zeros", "U-Zeros+CT", "U-Zeros+LSR"),
        *("U-Zeros+CT+LSR", "U-Ones", "U-Ones+CT", "U-Ones+LSR", "U-Ones+CT+LSR"),
    ]


def test_a_misprint_stands_beside_its_reading():
    printed = tables.as_printed(side_by_side("ge2018", ("D121 + VGG-F-MSML",)))["Table 3 (AUC)"]
    lines = printed.loc["D121 + VGG-F-MSML"]["mean"]
    assert lines["published"] == "8.8537 read as .8537"
    assert lines["verdict"] == "misprint"
    assert tables.as_read("0.8040", "suspect") == ".8040"


def test_a_table_of_many_labels_has_them_down_the_page():
    rows = ["DenseNet121 proposed loss"]
    printed = tables.as_printed(side_by_side("mo2019", rows))["Table I (AUC)"]
    assert printed.shape == (15, 11)  # 14 labels and the mean; 9 models, ours and the verdict
    assert printed.loc["Hernia", ("Wang et al. [5]", "quoted")] == ".7700"
    assert printed.loc["Hernia", (rows[0], "ours")] == ".9537 [.9337, .9587]"


def test_two_metrics_share_a_table_in_printed_order():
    printed = tables.as_printed(side_by_side("chen2019", ["HLUP"]))["Table 1"]
    assert list(printed.columns) == [
        f"{group} {metric}"
        for group in ("leaf", "high-level", "leaf given Abnormal")
        for metric in ("AUC", "AP")
    ]
    assert printed.loc[("BR-leaf", "published, not run"), "high-level AP"] == ""


def test_ours_has_the_precision_of_the_printed_cell():
    cells = {"AUC": (0.9243, 0.91, 0.935), "radiologists below the curve": (2.6, 2.0, 2.8)}
    ours = pd.DataFrame(
        [("Ours (test)", "mean", metric, *values) for metric, values in cells.items()],
        columns=[*published.CELL, "value", "low", "high"],
    )
    printed = tables.as_printed(published.compare(published.load("pham2019"), ours))["abstract"]
    assert list(printed.loc[("Ours (test)", "ours")][lambda cells: cells.ne("")]) == [
        ".924 [.910, .935]",
        "2.6 [2.0, 2.8]",
    ]


def test_an_own_row_has_the_precision_of_the_table():
    for paper, expected in (("mo2019", ".8123"), ("pham2019", ".812")):
        printed = published.load(paper)
        column = printed.loc[printed["table"].str.startswith("Table"), "column"].iloc[0]
        ours = pd.DataFrame([{"row": "own", "column": column, "metric": "AUC", "value": 0.81234}])
        shown = tables.to_markdown(published.compare(printed, ours))
        assert f" {expected} " in shown


def test_an_undefined_value_is_na_and_an_own_row_is_not_published():
    ours = pd.DataFrame(
        [
            {"row": "HLUP", "column": "leaf", "metric": "AUC", "value": np.nan},
            {"row": "HLCP, twice as long", "column": "leaf", "metric": "AUC", "value": 0.8},
        ]
    )
    side = published.compare(published.load("chen2019"), ours)
    printed = tables.as_printed(side)["Table 1"]
    assert printed.loc[("HLUP", "ours"), "leaf AUC"] == "n/a"
    assert printed.loc[("HLUP", "verdict"), "leaf AUC"] == "undefined"
    assert printed.loc[("HLCP, twice as long", "ours, not published"), "leaf AUC"] == ".800"


@pytest.mark.parametrize("show", [tables.to_text, tables.to_markdown])
def test_drawn_phantoms_are_named_where_they_cannot_be_missed(show):
    text = show(side_by_side(reason="drawn phantoms"))
    assert "drawn phantoms, not comparable" in text.splitlines()[0]
    assert "ours, not comparable" in text
    assert "above" not in text
    assert "not comparable" not in show(side_by_side())


@pytest.mark.parametrize("paper", published.papers())
@pytest.mark.parametrize("width", [72, 100])
def test_text_fits_the_terminal_and_loses_nothing(paper, width):
    every_row = published.load(paper)["row"].unique()
    side = side_by_side(paper, every_row)
    text = tables.to_text(side, width)
    assert max(map(len, text.splitlines())) <= width
    flat = text.replace("\n", " ")
    for cell in side[side["published"].notna()]["printed"]:
        assert (cell[1:] if cell.startswith("0.") else cell) in flat


def test_markdown_tables_are_regular():
    text = tables.to_markdown(side_by_side("mo2019", ["DenseNet121 proposed loss"]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in lines if "---" not in line and "Hernia" in line} == {11}
    assert "### Table I (AUC)" in text
    assert "- text, " not in text  # the misprint of running text is left to the audit
    assert tables.to_markdown(pd.DataFrame({"a": ["x|y"]})).splitlines()[-1] == "| x\\|y |"


def test_footnotes_keep_the_doubt_beside_the_number():
    notes = tables.footnotes(side_by_side("ge2018", ["D121"]))
    assert any("Table 1, D121 + VGG-F-MSML, mean AUC: suspect" in note for note in notes)
    assert not any("quoted" in note for note in notes)


def test_only_the_first_of_several_names_is_left_out_below_itself():
    one = pd.DataFrame({"AUC": [0.5, 0.6]}, index=["Edema", "Edema"])
    assert tables.to_text(one).split().count("Edema") == 2
    two = one.set_index(pd.MultiIndex.from_tuples([("Edema", "ours"), ("Edema", "theirs")]))
    assert tables.to_text(two).split().count("Edema") == 1


def test_any_other_frame_is_shown_as_it_is():
    plain = pd.DataFrame({"label": ["Edema", "Mass"], "AUC": [0.91234, np.nan], "images": [3, 12]})
    assert tables.to_text(plain).splitlines()[2].split() == ["Mass", "n/a", "12"]
    assert tables.to_markdown(plain).splitlines() == [
        "| label | AUC | images |",
        "| ---: | ---: | ---: |",
        "| Edema | .912 | 3 |",
        "| Mass | n/a | 12 |",
    ]


def test_a_frame_without_rows_is_its_header():
    table = pd.DataFrame({"AUC": [], "AP": []}, pd.Index([], name="label"))
    assert tables.to_text(table).split() == ["AUC", "AP"]
    assert tables.to_markdown(table).splitlines() == ["|  | AUC | AP |", "| --- | ---: | ---: |"]


def test_write_leaves_a_table_for_programs_and_one_for_people(tmp_path):
    side = side_by_side(reason="another split")
    csv, markdown = tables.write(side, tmp_path / "new" / "folder", "table")
    again = pd.read_csv(csv)
    assert list(again.columns) == list(side.columns)
    np.testing.assert_allclose(again["ours"], side["ours"])
    assert markdown.read_text().startswith("**another split, not comparable")
    assert sorted(path.name for path in csv.parent.iterdir()) == ["table.csv", "table.md"]


def test_a_failed_row_is_not_taken_for_one_that_was_not_run():
    failed = {"U-Ones+CT": "NaN in epoch 2", "a control of ours": "needs U-Ones+CT"}
    ours = our_cells("pham2019", ["U-Ones"])
    side = published.compare(published.load("pham2019"), ours, "another split", failed)
    printed = tables.as_printed(side)["Table 1 (AUC)"]
    assert printed.loc[("U-Ones+CT", "published"), "mean"] == ".872"
    assert set(printed.loc[("U-Ones+CT", "ours, failed: NaN in epoch 2")]) == {""}
    assert ("U-Ones+CT", "verdict") not in printed.index
    labels = [label for row, label in printed.index if row == "a control of ours"]
    assert labels == ["ours, failed: needs U-Ones+CT"]
    assert printed.loc[("Ignore", "published, not run"), "mean"] == ".863"
    assert not any("failed" in note for note in tables.footnotes(side))


def test_a_long_reason_stands_below_the_table():
    reason = "out of memory: the GPU has 12 GB (lower --batch-size)"
    side = published.compare(
        published.load("chen2019"), our_cells("chen2019", ["HLUP"]), None, {"HLCP": reason}
    )
    (label,) = [
        name
        for row, name in tables.as_printed(side)["Table 1"].index
        if row == "HLCP" and name != "published"
    ]
    assert label == "ours, failed: out of memory: the GPU has 12 G…"
    assert tables.footnotes(side)[-1] == f"HLCP: failed: {reason}"


def test_a_note_on_all_of_our_numbers_stands_once():
    ours = our_cells("chen2019", ["HLUP", "HLCP"]).assign(note="one seed")
    notes = tables.footnotes(published.compare(published.load("chen2019"), ours))
    assert [note for note in notes if "one seed" in note] == ["All of ours: one seed"]
    ours.iloc[0, ours.columns.get_loc("note")] = ""
    notes = tables.footnotes(published.compare(published.load("chen2019"), ours))
    (note,) = [note for note in notes if "one seed" in note]
    assert note.startswith(
        "Table 1, HLUP, leaf AP; Table 1, HLUP, high-level AUC; and 4 more cells"
    )


def test_bytes_of_a_file_name_that_are_no_utf_8_can_be_written(tmp_path):
    path = tables.to_csv(pd.DataFrame({"image": ["caf\udce9.png", "café.png"]}), tmp_path / "a.csv")
    assert path.read_bytes().decode() == "image\ncaf\\udce9.png\ncafé.png\n"


def test_lines_are_filled_to_the_width_and_not_beyond():
    """Two index columns of 5 and three columns of 9, with gaps of 2: 5 + 2 + 5 + 3 * (2 + 9)."""
    index = pd.MultiIndex.from_tuples([("row a", "ours"), ("row b", "other")])
    values = [["1.00", "2.00", "3.00"]] * 2
    frame = pd.DataFrame(values, index, ["heading 1", "heading 2", "heading 3"])
    (block,) = tables.to_text(frame, 45).rstrip("\n").split("\n\n")
    assert block.splitlines() == [
        "              heading 1  heading 2  heading 3",
        "row a  ours        1.00       2.00       3.00",
        "row b  other       1.00       2.00       3.00",
    ]
    first, second = tables.to_text(frame, 44).rstrip("\n").split("\n\n")
    assert max(map(len, first.splitlines())) == 34
    assert second.splitlines()[1] == "row a  ours        3.00"


def claims_line(**changed) -> dict:
    line = {
        "claim": "two-stages-boost",
        "table": "Table 1",
        "left_row": "HLUP-finetune",
        "right_row": "HLCP",
        "column": "leaf",
        "metric": "AUC|AP",
        "relation": ">",
        "amount": "",
        "scope": "",
        "quote": "refining is key",
        "published": "holds",
        "published_margin": "+0.0080",
        "ours": "within noise",
        "margin": "+0.0100",
        "size": "",
        "our_note": "",
    }
    return line | changed


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "HLUP-finetune > HLCP: leaf AUC and AP (Table 1)"),
        ({"amount": "2%"}, "HLUP-finetune > HLCP by 2%: leaf AUC and AP (Table 1)"),
        (
            {"relation": "=", "amount": "0.005", "right_row": "A|B", "metric": "AUC"},
            "HLUP-finetune = A, B to within 0.005: leaf AUC (Table 1)",
        ),
        (
            {"relation": ">=", "right_row": "*", "column": "*", "metric": "AUC"},
            "HLUP-finetune ≥ every other row: every label AUC (Table 1)",
        ),
        (
            {"scope": "count", "amount": "9", "column": "*", "metric": "AUC"},
            "HLUP-finetune > HLCP: at least 9 of the labels AUC (Table 1)",
        ),
        (
            {"scope": "most", "metric": "AUC"},
            "HLUP-finetune > HLCP: leaf AUC, more than for any other label (Table 1)",
        ),
    ],
)
def test_a_claim_is_told_in_words(changed, words):
    assert ": ".join(tables.claim_in_words(claims_line(**changed))) == words


def test_the_page_of_claims_has_each_quote_once_and_the_band_of_phantoms():
    checked = pd.DataFrame([claims_line(), claims_line(metric="AP", ours="holds", size="holds")])
    page = tables.claims_page(checked, "chen2019. Claims", "drawn phantoms")
    assert page.count("refining is key") == 1
    assert "**drawn phantoms, not comparable with the published values**" in page
    assert "**Of 2 comparisons, ours:** within noise 1, holds 1." in page
    assert "| **holds**; +0.0080 | **within noise**; +0.0100 |" in page
    assert "| **holds**; +0.0100; holds |" in page
    assert "not comparable" not in tables.claims_page(checked, "chen2019. Claims", None)


def test_every_published_claim_can_be_told_in_words():
    every = {paper: claims.check(paper) for paper in published.papers()}
    for paper, checked in every.items():
        if checked.empty:
            continue
        page = tables.claims_page(checked, paper, None)
        assert page.count("\n| ") == len(checked) + 2  # a heading and its rule
        assert "|| " not in page


def test_tables_and_columns_stand_in_the_printed_order():
    side = side_by_side()
    side["table"] = side["table"].replace({"Table 1": "Table Z"})
    shown = [title.partition(" (")[0] for title in tables.as_printed(side)]
    assert shown == [*side["table"].unique()]
    assert shown != sorted(shown)


@pytest.mark.parametrize(("labels", "down"), [(8, False), (9, True)])
def test_more_than_eight_columns_stand_down_the_page(labels, down):
    columns = [f"label {k}" for k in range(labels)]
    side = side_by_side().iloc[[0] * labels].reset_index(drop=True).assign(column=columns)
    ((_, printed),) = tables.as_printed(side).items()
    assert list(printed.index if down else printed.columns) == columns


def test_a_note_on_every_cell_of_a_row_names_the_row():
    side = side_by_side().iloc[:3].reset_index(drop=True)
    side = side.assign(table="T", row=["a", "a", "b"], column=["x", "y", "x"], metric="AUC")
    for notes, expected in (
        (["n", "n", ""], "T, a: n"),
        (["n", "", ""], "T, a, x AUC: n"),
        (["", "", "n"], "T, b, x AUC: n"),
    ):
        # nothing of ours, or it would be a note on all of ours
        assert tables.footnotes(side.assign(note=notes, ours=np.nan))[0] == expected
