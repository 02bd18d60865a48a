"""The transcribed numbers, the verdicts computed from them, the claims and the audit."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import EvaluationError, audit, published
from evaluation.published import CELL, check_claims, claims, compare, load, verdict

PAPERS = ["asadi2025", "chen2019", "ge2018", "mo2019", "pham2019"]


def frame(rows, columns=("table", "row", "column", "metric", "value")):
    """Printed numbers as `load` gives them."""
    made = pd.DataFrame(rows, columns=list(columns)).assign(dataset="D", split="test", note="")
    return made.assign(number=pd.to_numeric(made["value"]))


def kinds(printed):
    return sorted(finding["kind"] for finding in audit.audit(printed))


# The transcription


def test_every_paper_is_there():
    assert set(published.papers()) >= set(PAPERS)
    sizes = {paper: len(load(paper)) for paper in PAPERS}
    assert sizes == {"asadi2025": 2, "chen2019": 37, "ge2018": 56, "mo2019": 145, "pham2019": 129}


@pytest.mark.parametrize("paper", PAPERS)
def test_files_are_sound(paper):
    printed = load(paper)
    assert list(printed.columns) == [*published.COLUMNS, "number"]
    assert not printed.duplicated(["table", *CELL]).any()
    assert set(printed["split"]) <= {"valid", "test"}
    assert set(printed["dataset"]) <= {"PLCO", "CheXpert", "ChestX-ray14"}
    assert set(printed["metric"]) <= {"AUC", "AP", "radiologists below the curve"}
    assert printed[published.COLUMNS[:-1]].ne("").all(axis=None)
    assert (
        not printed[published.COLUMNS]
        .apply(lambda column: column != column.str.strip())
        .any(axis=None)
    )


def test_values_stay_as_printed():
    chen = load("chen2019").set_index(["table", *CELL])["value"]
    assert chen["Table 1", "BR-all", "high-level", "AP"] == "0.440"  # the zero is kept
    ge = load("ge2018").set_index(["table", *CELL])["value"]
    assert ge["Table 3", "D121 + VGG-F-MSML", "mean", "AUC"] == "8.8537"  # the misprint is kept


def test_every_mean_that_can_be_recomputed_is():
    wrong, seen = set(), 0
    for paper in PAPERS:
        printed = load(paper)
        for (table, row), cells in printed[printed["metric"] == "AUC"].groupby(["table", "row"]):
            values = cells.set_index("column")
            labels = values.drop(index="mean", errors="ignore")
            if "mean" not in values.index or len(labels) < 5:
                continue
            seen += 1
            mean = values.loc["mean", "value"]
            places = len(mean.split(".")[1])
            if f"{labels['number'].mean() + 1e-12:.{places}f}" != mean:
                wrong.add((paper, table, row))
    assert seen == 29  # 20 rows of Pham (one of them in running text), 9 of Mo
    assert wrong == {
        ("pham2019", "Table 2", "U-Zeros [14]"),
        ("mo2019", "Table I", "ChestNet [10]"),
    }


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"pham2018.*known: asadi2025, chen2019"):
        load("pham2018")
    good = "table,row,column,metric,dataset,split,value,note\nT,r,c,AUC,D,test,{},\n"
    (tmp_path / "new2030.csv").write_text(good.format("0.8O7"))
    with pytest.raises(EvaluationError, match=r"line 2: the value '0\.8O7' is not a number"):
        load("new2030", tmp_path)
    (tmp_path / "new2030.csv").write_text("table,row\nT,r\n")
    with pytest.raises(EvaluationError, match="lacks the column"):
        load("new2030", tmp_path)


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


def our_row(row, column="mean", value=0.9, metric="AUC", **more):
    return {"row": row, "column": column, "metric": metric, "value": value} | more


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


def test_compare_refuses_what_it_could_only_guess():
    printed = frame([("Table 1", "m", "mean", "AUC", "0.9")] * 2)
    printed["split"] = ["valid", "test"]
    ours = pd.DataFrame([our_row("m", low=0.8, high=0.85)])
    with pytest.raises(EvaluationError, match="m / mean / AUC is published on two splits"):
        compare(printed, ours)
    assert compare(printed, ours.assign(split="test"))["verdict"].tolist() == ["not run", "above"]
    with pytest.raises(EvaluationError, match=r"m / mean / AUC twice"):
        compare(printed.iloc[:1], pd.concat([ours, ours]))
    with pytest.raises(EvaluationError, match=r"lack the column.*value"):
        compare(printed, ours.drop(columns="value"))


# Claims


@pytest.mark.parametrize("paper", PAPERS)
def test_claims_refer_to_printed_rows(paper):
    printed, lines = load(paper), claims(paper)
    assert len(lines)
    for line in lines.to_dict("records"):
        assert line["quote"]
        assert int(line["line"]) > 0
        assert line["relation"] in (">", ">=", "=", "<=", "<")
        assert line["scope"] in ("", "count", "most")
        named = printed[printed["table"].isin(line["table"].split("|"))]
        if named.empty:  # a figure, or said in words only
            assert line["table"] in ("Figure 3", "not printed")
            continue
        assert set(line["table"].split("|")) <= set(named["table"])
        rows = [line["left_row"], *line["right_row"].split("|")]
        assert {row for row in rows if row not in ("*", "quoted")} <= set(named["row"])
        if line["column"] != "*":
            assert set(line["column"].split("|")) <= set(named["column"])
        assert set(line["metric"].split("|")) <= set(named["metric"])


def test_what_the_printed_numbers_say_of_the_claims():
    checked = pd.concat([check_claims(paper) for paper in PAPERS])
    assert set(checked["ours"]) == {"not run"}
    failing = checked[checked["published"] == "does not hold"]
    assert set(zip(failing["claim"], failing["metric"], strict=True)) == {
        ("hlcp-matches-br-leaf", "AP"),
        ("r18-equals-d121", "AUC"),
        ("hernia-improved-most", "AUC"),
        ("rarest-three-labels-improve", "AUC"),
        ("lsr-improves-the-policies-of-14", "AUC"),
        ("policies-of-14-improve-on-ignore", "AUC"),
        ("single-network-beats-the-state-of-the-art", "AUC"),
    }
    unprinted = checked[checked["published"] == "no numbers"]
    assert set(unprinted["table"]) == {"Figure 3", "not printed"}
    margins = checked.set_index("claim")["published_margin"]
    assert margins["thirteen-labels-better"] == "13 of 14"
    assert margins["hernia-improved-most"] == "gain 4 of 14"


def our_claims(paper, values, differences=None):
    checked = check_claims(paper, pd.DataFrame(values), differences)
    return checked.set_index(["claim", "right_row", "metric"])


def differences(low, high, left="HLUP-finetune", right="BR-leaf"):
    cells = [("leaf", "AUC"), ("leaf", "AP")]
    return pd.DataFrame(
        [
            {"left_row": left, "right_row": right, "group": group, "metric": metric}
            | {"low": low, "high": high}
            for group, metric in cells
        ]
    )


def chen_values(finetuned=0.88, flat=0.87):
    rows = {"HLUP-finetune": finetuned, "BR-leaf": flat}
    return [
        our_row(row, "leaf", value, metric)
        for row, value in rows.items()
        for metric in ("AUC", "AP")
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.001, 0.02, "holds"), (-0.01, 0.02, "within noise"), (-0.03, -0.01, "does not hold")],
)
def test_our_interval_decides_a_claim(low, high, expected):
    key = ("finetune-beats-br-leaf", "BR-leaf", "AUC|AP")
    checked = our_claims("chen2019", chen_values(), differences(low, high))
    assert checked["ours"][key] == expected
    turned = differences(-high, -low, "BR-leaf", "HLUP-finetune")
    assert our_claims("chen2019", chen_values(), turned)["ours"][key] == expected


def test_without_an_interval_the_sign_decides_and_is_said_to():
    key = ("finetune-beats-br-leaf", "BR-leaf", "AUC|AP")
    checked = our_claims("chen2019", chen_values())
    assert checked["ours"][key] == "holds"
    assert "sign only" in checked["our_note"][key]
    assert our_claims("chen2019", chen_values(0.86))["ours"][key] == "does not hold"
    others = checked.drop(index=key)
    assert set(others["ours"]) == {"not run"}  # their rows were not run, `*` included


def test_every_label_must_share_a_gain():
    labels = [f"label {i}" for i in range(5)]
    values = [our_row("HLUP-finetune", label, 0.9) for label in labels]
    values += [our_row("BR-all", label, 0.8) for label in labels]
    values += [our_row("HLUP-finetune", "leaf", 0.5), our_row("BR-all", "leaf", 0.9)]
    key = ("every-label-above-br-all", "BR-all", "AUC")
    assert our_claims("chen2019", values)["ours"][key] == "holds"  # an average is not a label
    values[0]["value"] = 0.7
    assert our_claims("chen2019", values)["ours"][key] == "does not hold"


def test_counted_and_ranked_claims():
    table = load("mo2019").query("table == 'Table I'")
    rows = table[table["row"].str.startswith("DenseNet121")].drop(columns="value")
    ours = rows.rename(columns={"number": "value"})[[*CELL, "value"]]
    checked = our_claims("mo2019", ours)
    baseline = "DenseNet121 weighted CE"
    assert checked["ours"]["thirteen-labels-better", baseline, "AUC"] == "holds"
    assert checked["ours"]["hernia-improved-most", baseline, "AUC"] == "does not hold"
    assert checked["ours"]["beats-the-state-of-the-art-on-five", "quoted", "AUC"] == "not run"
    ours.loc[ours["column"].eq("Hernia") & ours["row"].eq(baseline), "value"] = 0.6
    ours.loc[ours["column"].eq("Edema") & ours["row"].eq(baseline), "value"] = 0.99
    checked = our_claims("mo2019", ours)
    assert checked["ours"]["thirteen-labels-better", baseline, "AUC"] == "does not hold"
    assert checked["ours"]["hernia-improved-most", baseline, "AUC"] == "holds"


def test_every_label_leaves_out_averages_of_our_own():
    rows = [
        our_row(row, column, value)
        for row, value in (("BCE", 0.6), ("HBCE data-driven", 0.7))
        for column in ("Edema", "Fracture", "mean", "mean of the 14 CheXpert labels")
    ]
    key = ("data-driven-improves-several", "BCE", "AUC")
    assert our_claims("asadi2025", rows)["ours"][key] == "does not hold"  # 2 labels, not 3


def test_every_other_row_means_the_rows_that_can_be_run():
    rows = ["BR-leaf", "BR-all", "HLUP", "HLCP"]
    values = [our_row(row, "leaf", 0.8) for row in rows] + [our_row("HLUP-finetune", "leaf", 0.9)]
    key = ("best-of-all", "*", "AUC")
    assert our_claims("chen2019", values)["ours"][key] == "holds"
    assert our_claims("chen2019", values[1:])["ours"][key] == "not run"
    assert our_claims("chen2019", values)["ours"]["highest-yet", "Guendel et al. 2018", "AUC"] == (
        "not run"
    )


def test_a_printed_count_must_be_the_count(tmp_path):
    for file in published.FOLDER.glob("*.csv"):
        text = file.read_text().replace(",>,13,count,", ",>,12,count,")
        (tmp_path / file.name).write_text(text)
    checked = check_claims("mo2019", folder=tmp_path).set_index("claim")
    assert checked["published"]["thirteen-labels-better"] == "does not hold"
    assert checked["published_margin"]["thirteen-labels-better"] == "13 of 14"


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(-0.02, 0.001, "holds"), (0.006, 0.02, "does not hold")]
)
def test_no_effect_is_a_claim_too(low, high, expected):
    rows = ("HLUP-finetune (ours)", "HLUP-finetune (naive)")
    values = [our_row(row, "leaf") for row in rows]
    checked = our_claims("chen2019", values, differences(low, high, *rows))
    assert checked["ours"]["stable-equals-naive-finetuned", rows[1], "AUC"] == expected


# The audit


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
        ("two names", "TL;DR, HBCE, weighted mean AUC", "0.903", "0.903"),
    }
    details = {finding["printed"]: finding["detail"] for finding in result["findings"]}
    assert "recomputes with 0.9115" in details["0.9915"]
    assert "recomputes with 0.8084" in details["0.8040"]
    assert "before rounding" in details["0.888"]
    assert "no rounding" in details["0.7810"]


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
    """A table whose means recompute, its mean AUCs mixing D and N, and a line of running text."""
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
    printed = clean_table()
    cell = ("text", "model 0", "mean")
    printed = plant(printed, "Table 1", "model 0", "mean", "0.817")
    finding = next(audit.given_twice(plant(printed, *cell, "0.871")))
    assert "two digits are swapped" in finding["detail"]
    finding = next(audit.given_twice(plant(printed, *cell, "0.917")))
    assert "one digit differs" in finding["detail"]


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
    """A label that is off by .012 moves a mean of five by .0024, more than its rounding."""
    printed = load("pham2019").query("table == 'Table 1'")
    cell = printed.iloc[6 * row + column]
    wrong = plant(printed, *cell[["table", "row", "column"]], f"{cell['number'] + by:.3f}")
    assert [found["where"] for found in audit.wrong_mean(wrong)] == [
        f"Table 1, {cell['row']}, mean AUC"
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


def test_command_writes_json_without_tensorflow():
    done = run("audit", *PAPERS, "--json")
    result = json.loads(done.stdout)
    assert list(result["papers"]) == PAPERS
    assert {finding["paper"] for finding in result["findings"]} == set(PAPERS)
    look = "import sys, evaluation.audit, evaluation.tables; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_command_refuses_an_unknown_paper_in_one_sentence():
    done = run("audit", "pham2018")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "known: asadi2025" in done.stderr


def test_a_new_paper_brings_its_claims_in_a_file_of_its_own(tmp_path):
    for name in ("chen2019.csv", "claims.csv"):
        (tmp_path / name).write_bytes((published.FOLDER / name).read_bytes())
    (tmp_path / "new2030.csv").write_text(
        "table,row,column,metric,dataset,split,value,note\n"
        "T,new,mean,AUC,D,test,0.8,\nT,old,mean,AUC,D,test,0.7,\n"
    )
    (tmp_path / "new2030.claims.csv").write_text(
        ",".join(published.CLAIM_COLUMNS) + "\nnew2030,better,T,new,old,mean,AUC,>,,,it is,1\n"
    )
    assert published.papers(tmp_path) == ["chen2019", "new2030"]
    assert check_claims("new2030", folder=tmp_path)["published"].tolist() == ["holds"]
    assert claims("chen2019", tmp_path).equals(claims("chen2019"))
