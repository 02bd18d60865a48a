"""Test the audit of the published tables, and its command."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import audit
from evaluation.published import load
from tests.printed import PAPERS, frame, write_paper


def kinds(printed):
    return sorted(finding["kind"] for finding in audit.audit(printed))


def test_audit_finds_the_known_misfits():
    result = audit.report(PAPERS)
    numeric = {"claim", "percentage", "mean only", "padded digits"}
    found = {
        (finding["kind"], finding["where"], finding["printed"], finding["computed"])
        for finding in result["findings"]
        if finding["kind"] not in numeric
    }
    vgg = "D121 + VGG-F-MSML, mean AUC"
    assert found == {
        ("wrong mean", "Table 2, U-Zeros [14], mean AUC", "0.888", "0.8886"),
        ("wrong mean", "Table I, ChestNet [10], mean AUC", "0.7810", "0.78062"),
        ("out of range", f"Table 3, {vgg}", "8.8537", "0 to 1"),
        ("given twice", f"Table 3, {vgg}", "8.8537", "0.8537"),
        ("odd mixture", f"Table 1, {vgg}", "0.8537", "0.8507"),
        ("given twice", "text, DenseNet121 weighted CE, Fibrosis AUC", "0.8040", "0.8084"),
        ("given twice", "text, DenseNet121 proposed loss, Cardiomegaly AUC", "0.9915", "0.9115"),
        ("two names", "Table 2, R18-F-MSML Global, mean AUC", "0.8388", "0.8388"),
    }
    details = {finding["printed"]: finding["detail"] for finding in result["findings"]}
    assert "recomputes with 0.9115" in details["0.9915"]
    assert "recomputes with 0.8084" in details["0.8040"]
    assert "before rounding" in details["0.888"]
    assert "no rounding" in details["0.7810"]


def test_one_value_under_two_names_of_an_average_is_found():
    mean, weighted = (
        ("abstract", "HBCE", "mean", "AUC", "0.903"),
        ("text", "HBCE", "weighted mean", "AUC", "0.903"),
    )
    (finding,) = audit.two_names(frame([mean, weighted]))
    assert finding["detail"] == "the same value is 'mean' in abstract, 'weighted mean' here"
    another_row = ("text", "BCE", "mean", "AUC", "0.903")
    assert not [*audit.two_names(frame([mean, another_row]))]  # three decimals agree by chance


def test_audit_reads_percentages():
    found = [
        finding for finding in audit.report(PAPERS)["findings"] if finding["kind"] == "percentage"
    ]
    says = {finding["printed"]: finding["detail"] for finding in found}
    assert says == {
        "2.9%": "fits as points only",
        "2.4%": "fits as points only",
        "4%": "fits as relative only",
    }


def clean_table():
    """Return consistent tables: means of labels, mixtures of D and N, and a line of text."""
    rng = np.random.default_rng(3)
    rows = []
    for row in (f"model {i}" for i in range(8)):
        labels = rng.uniform(0.7, 0.9, 5).round(3) + 1e-3
        cells = {f"label {i}": f"{value:.3f}" for i, value in enumerate(labels)}
        cells["mean"] = f"{np.mean([float(value) for value in cells.values()]):.3f}"
        rows += [("Table 1", row, column, "AUC", value) for column, value in cells.items()]
        low, high = rng.uniform([0.70, 0.82], [0.80, 0.90])
        mixed = {"D": low, "N": high, "mean": 0.42 * round(low, 4) + 0.58 * round(high, 4)}
        rows += [("Table 2", f"{row}b", name, "AUC", f"{x:.4f}") for name, x in mixed.items()]
    rows.append(("text", "model 0", "mean", "AUC", rows[5][4]))
    return frame(rows)


def plant(printed, table, row, column, value):
    at = printed["table"].eq(table) & printed["row"].eq(row) & printed["column"].eq(column)
    assert at.sum() == 1
    changed = printed.copy()
    changed.loc[at, ["value", "number"]] = [value, float(value)]
    return changed


def shifted(printed, table, row, column, by):
    at = printed.set_index(["table", "row", "column"])
    value = at["value"][table, row, column]
    return f"{float(value) + by:.{len(value.split('.')[1])}f}"


def test_audit_finds_nothing_in_a_clean_table():
    assert kinds(clean_table()) == []


@pytest.mark.parametrize(
    ("cell", "by", "expected"),
    [
        (("Table 1", "model 3", "mean"), 0.002, ["wrong mean"]),
        (("Table 1", "model 3", "label 2"), 0.030, ["wrong mean"]),
        (("Table 2", "model 5b", "mean"), 0.003, ["odd mixture"]),
        (("text", "model 0", "mean"), 0.010, ["given twice"]),
        (("Table 1", "model 3", "mean"), 8, ["out of range", "wrong mean"]),
        (("Table 2", "model 1b", "N"), -2, ["odd mixture", "out of range"]),
    ],
)
def test_audit_finds_a_planted_misprint(cell, by, expected):
    printed = clean_table()
    wrong = plant(printed, *cell, shifted(printed, *cell, by))
    assert kinds(wrong) == expected
    (finding,) = [found for found in audit.audit(wrong) if found["kind"] == expected[0]]
    assert cell[1] in finding["where"]


def test_audit_names_the_slip():
    printed = plant(clean_table(), "Table 1", "model 0", "mean", "0.817")
    for value, slip in (("0.871", "two digits are swapped"), ("0.917", "one digit differs")):
        wrong = plant(printed, "text", "model 0", "mean", value)
        assert slip in next(audit.given_twice(wrong))["detail"]


def test_audit_finds_padded_digits_and_loose_names():
    printed = clean_table()
    rough = printed.copy()
    row = rough["row"].eq("model 2") & rough["column"].str.startswith("label")
    rough.loc[row, "value"] = rough.loc[row, "number"].map(lambda x: f"{x:.2f}0")
    rough["number"] = pd.to_numeric(rough["value"])
    assert "padded digits" in kinds(rough)
    value = printed.set_index(["table", "row", "column"])["value"]["Table 2", "model 2b", "mean"]
    twin = frame([("Table 3", "another name", "mean", "AUC", value)])
    assert kinds(pd.concat([printed, twin])) == ["two names"]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 9), st.integers(0, 4), st.sampled_from([-0.03, -0.012, 0.012, 0.04]), st.data()
)
def test_any_changed_label_of_a_real_table_is_found(row, column, by, data):
    """An error of .012 in a label changes a mean of five by .0024, more than its rounding."""
    printed = load("pham2019").query("table == 'Table 1'")
    cell = printed.iloc[6 * row + column]
    wrong = plant(printed, *cell[["table", "row", "column"]], f"{cell['number'] + by:.3f}")
    assert [found["where"] for found in audit.wrong_mean(wrong)] == [
        f"Table 1, {cell['row']}, mean AUC"
    ]


def test_only_the_value_that_gives_the_mean_is_said_to():
    """An error of .006 in a label changes a mean of five by .0012, just above its rounding."""
    printed = clean_table()
    value = shifted(printed, "Table 1", "model 3", "label 2", 0.006)
    twin = frame([("text", "model 3", "label 2", "AUC", value)])
    (finding,) = audit.given_twice(pd.concat([printed, twin], ignore_index=True))
    first = printed.set_index(["table", "row", "column"])["value"]["Table 1", "model 3", "label 2"]
    assert finding["detail"].endswith(f"the printed mean recomputes with {first}")


def test_labels_that_stay_equal_do_not_contradict_a_gain_in_the_mean(tmp_path):
    new = {"a": 0.9, "b": 0.7, "c": 0.5, "mean": 1.1}
    old = {"a": 0.8, "b": 0.7, "c": 0.6, "mean": 0.1}
    write_paper(tmp_path, {"new": new, "old": old}, ["c,T,new,old,mean,AUC,>,,,better,1,"])
    findings = audit.report(["new2030"], tmp_path)["findings"]
    (finding,) = [each for each in findings if each["kind"] == "mean only"]
    assert finding["detail"] == "not shared by c -0.1000"


def test_the_report_for_a_terminal_line_by_line():
    finding = {"paper": "p", "kind": "given twice", "where": "T, r, c AUC", "printed": "0.9"}
    finding |= {"computed": "0.8", "detail": "one digit differs, " * 4}
    result = {"papers": {"p": {"numbers": 2, "hold": 0}}, "findings": [finding]}
    assert audit.as_text(result, 60).splitlines() == [
        "p: 2 numbers",
        "  kind         where        printed  computed",
        "  given twice  T, r, c AUC  0.9      0.8",
        "                 one digit differs, one digit differs, one",
        "                 digit differs, one digit differs,",
        "",
        "1 findings; docs/published.md says how to read them.",
    ]


# The command


def run(*arguments, **more):
    command = [sys.executable, "-m", "evaluation.published", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def test_command_prints_a_report():
    done = run("audit", "ge2018", "pham2019", env={"COLUMNS": "80", "PATH": ""})
    assert done.returncode == 0, done.stderr
    assert "8.8537" in done.stdout
    assert "mo2019" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_command_writes_json():
    done = run("audit", *PAPERS, "--json")
    result = json.loads(done.stdout)
    assert list(result["papers"]) == PAPERS
    with_findings = {finding["paper"] for finding in result["findings"]}
    assert with_findings == {*PAPERS} - {"asadi2025"}  # which has one number


def test_command_lists_the_papers_by_year():
    listed = run("list").stdout.splitlines()
    assert listed[-3:] == ["pham2019 chexpert", "asadi2025 chexpert", "doerrich2025 chestmnist"]


def test_command_refuses_an_unknown_paper_in_one_sentence():
    done = run("audit", "pham2018")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "known: asadi2025" in done.stderr


def test_a_mean_over_one_printed_label_is_of_labels_that_are_not_printed():
    cells = [("Table 1", "a", "Edema", "AUC", "0.8"), ("Table 1", "a", "mean", "AUC", "0.7")]
    assert list(audit.recomputable_means(frame(cells))) == []
    cells.append(("Table 1", "a", "Mass", "AUC", "0.6"))
    ((mean, parts),) = audit.recomputable_means(frame(cells))
    assert (mean["value"], [part["column"] for part in parts]) == ("0.7", ["Edema", "Mass"])


def test_only_a_claim_of_a_higher_mean_is_held_against_the_labels(tmp_path):
    new, old = {"a": 0.9, "b": 0.5, "mean": 0.7}, {"a": 0.8, "b": 0.6, "mean": 0.7}
    claimed = ["c,T,new,old,a,AUC,>,,,better,1,", "d,T,new,old,mean,AUC,=,,,the same,2,"]
    write_paper(tmp_path, {"new": new, "old": old}, claimed)
    report = audit.report(["new2030"], tmp_path)
    assert report["papers"]["new2030"]["hold"] == 2
    assert [each for each in report["findings"] if each["kind"] == "mean only"] == []


def test_the_report_counts_what_it_looked_at():
    looked_at = audit.report(["mo2019"])["papers"]["mo2019"]
    printed = load("mo2019")
    models = printed.loc[printed["column"] == "mean", "row"].nunique()
    assert looked_at["means recomputed"] == models == 9
    assert looked_at["numbers"] == len(printed)
    verdicts = [looked_at[name] for name in ("hold", "do not hold", "without numbers")]
    assert sum(verdicts) == looked_at["comparisons claimed"]
