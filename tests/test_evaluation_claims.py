"""Test the verdicts on the papers' claims, by their own numbers and by ours."""

import numpy as np
import pandas as pd
import pytest

from data import labels
from evaluation import EvaluationError, claims, published
from evaluation.claims import check, load_claims
from evaluation.published import CELL, load
from tests.printed import HEADER, PAPERS, our_row, write_paper


@pytest.mark.parametrize("paper", PAPERS)
def test_claims_refer_to_printed_rows(paper):
    printed, lines = load(paper), load_claims(paper)
    assert len(lines)
    for line in lines.to_dict("records"):
        assert line["quote"]
        assert int(line["line"]) > 0
        assert line["relation"] in (">", ">=", "=", "<=", "<")
        assert line["scope"] in ("", "count", "most", "tree")
        assert bool(line["reason"]) == ("=" in line["relation"])  # ours, so it needs one
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
    checked = pd.concat([check(paper) for paper in PAPERS])
    assert set(checked["ours"]) == {"not run"}
    failing = checked[checked["published"] == "does not hold"]
    assert set(zip(failing["claim"], failing["metric"], strict=True)) == {
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


def our_claims(paper, values, intervals=None):
    checked = check(paper, pd.DataFrame(values), intervals)
    return checked.set_index(["claim", "right_row", "metric"])


def fixed(ends: dict):
    """Return intervals of differences between rows that are the same alone and together."""

    def intervals(left, cells, level):
        keys = [(left, *cell) for cell in cells]
        if not {*keys} <= ends.keys():
            return None
        low, high = np.array([ends[key] for key in keys]).T
        return claims.Ends(low, high, low, high)

    return intervals


def differences(low, high, left="HLUP-finetune", right="BR-leaf"):
    cells = [("leaf", "AUC"), ("leaf", "AP")]
    return fixed({(left, right, *cell): (low, high) for cell in cells})


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


def test_equality_is_two_one_sided_tests_and_superiority_a_95_percent_interval(tmp_path):
    """The level that the relation asks for; at 90 % this interval lies within the margin."""
    rows = {"A": {"mean": 0.805}, "B": {"mean": 0.8}}
    values = pd.DataFrame([our_row("A", "mean", 0.805), our_row("B", "mean", 0.8)])
    asked = []

    def intervals(left, cells, level):
        asked.append(level)
        low, high = (0.001, 0.009) if level == claims.EQUAL else (-0.001, 0.011)
        return claims.Ends(*(np.array([end]) for end in (low, high, low, high)))

    for relation, verdict in (("=", "holds"), (">=", "holds"), (">", "within noise")):
        write_paper(tmp_path, rows, [f"c,T,A,B,mean,AUC,{relation},0.01,,it is,1,"])
        (line,) = check("new2030", values, intervals, tmp_path).to_dict("records")
        assert line["ours"] == verdict
    assert {*asked} == {claims.EQUAL, claims.SUPERIOR}


def test_one_interval_of_several_below_zero_refutes_only_if_their_joint_one_is(tmp_path):
    rows = {"A": dict.fromkeys("xy", 0.9), "B": dict.fromkeys("xy", 0.8)}
    write_paper(tmp_path, rows, ["c,T,A,B,*,AUC,>,,,it is,1,"])
    values = [our_row("A", "x", 0.79), our_row("A", "y", 0.9)]
    values = pd.DataFrame([*values, our_row("B", "x", 0.8), our_row("B", "y", 0.8)])
    low, high = np.array([-0.02, 0.05]), np.array([-0.001, 0.15])
    for widened, verdict in ((0.0, "does not hold"), (0.005, "within noise")):

        def intervals(left, cells, level, widened=widened):
            return claims.Ends(low, high, low - widened, high + widened)

        (line,) = check("new2030", values, intervals, tmp_path).to_dict("records")
        assert line["ours"] == verdict


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


def test_several_pathologies_are_of_the_14_labels_alone():
    """High-level labels and averages rise too, and do not count."""
    pathologies = labels.ASADI[:14]
    others = ("Opacity", "Abnormal", "Uncertain", "mean", "mean of the 14 CheXpert labels")
    key = ("data-driven-improves-several", "BCE", "AUC")
    for rising, verdict in ((2, "does not hold"), (3, "holds")):
        better = {*pathologies[:rising], *others}
        values = [
            our_row(row, column, 0.7 if row != "BCE" and column in better else 0.6)
            for row in ("BCE", "HBCE data-driven")
            for column in (*pathologies, *others)
        ]
        assert our_claims("asadi2025", values)["ours"][key] == verdict


def test_the_ensemble_is_judged_without_tta_and_tta_apart():
    values = [
        our_row("U-Ones+CT+LSR", "mean", 0.80),
        our_row("U-Ones+CT+LSR (TTA)", "mean", 0.79),
        our_row("ensemble", "mean", 0.79),
        our_row("ensemble (TTA)", "mean", 0.85),
        our_row("Ours", "mean", 0.85),
    ]
    ours = our_claims("pham2019", values)["ours"]
    single = ("U-Ones+CT+LSR", "AUC")
    assert ours["ensemble-helps", *single] == "does not hold"
    assert ours["ensemble-with-tta-helps", *single] == "holds"
    assert ours["tta-helps", *single] == "does not hold"
    assert ours["tta-helps", "ensemble", "AUC"] == "holds"


def test_every_other_row_means_the_rows_that_can_be_run():
    rows = ["BR-leaf", "BR-all", "HLUP", "HLCP"]
    values = [our_row(row, "leaf", 0.8) for row in rows] + [our_row("HLUP-finetune", "leaf", 0.9)]
    key = ("best-of-all", "*", "AUC")
    line = our_claims("chen2019", values).loc[key]  # Guendel's .874 was quoted against it
    assert line["ours"] == "not run"
    assert line["our_note"].endswith(
        "holds against the rows that ran; quoted from other papers, not run here: "
        "Guendel et al. 2018"
    )
    beaten = [*values[:-1], our_row("HLUP-finetune", "leaf", 0.7)]
    assert our_claims("chen2019", beaten)["ours"][key] == "does not hold"
    none = our_claims("chen2019", values[1:]).loc[key]
    assert (none["ours"], none["our_note"]) == ("not run", "")
    best = ("best-single-model", "*", "AUC")  # none of Table 1 is quoted
    rows = [*load("pham2019").query("table == 'Table 1'")["row"].unique()]
    values = [our_row(row, value=0.9 if row == "U-Ones+CT+LSR" else 0.8) for row in rows]
    assert our_claims("pham2019", values)["ours"][best] == "holds"
    assert our_claims("chen2019", values)["ours"]["highest-yet", "Guendel et al. 2018", "AUC"] == (
        "not run"
    )


@pytest.mark.parametrize(
    ("amount", "expected"), [(12, "holds"), (13, "holds"), (14, "does not hold")]
)
def test_a_count_is_reached_by_at_least_as_many_for_them_and_for_us(tmp_path, amount, expected):
    for file in published.FOLDER.glob("*.csv"):
        text = file.read_text().replace(",>,13,count,", f",>,{amount},count,")
        (tmp_path / file.name).write_text(text)
    table = load("mo2019").query("table == 'Table I'")
    ours = table.drop(columns="value").rename(columns={"number": "value"})[[*CELL, "value"]]
    checked = check("mo2019", ours, folder=tmp_path).set_index("claim")
    line = checked.loc["thirteen-labels-better"]
    assert (line["published"], line["published_margin"]) == (expected, "13 of 14")
    assert (line["ours"], line["margin"]) == (expected, "13 of 14")
    assert line["our_note"] == "no interval: by sign only"


def gains(tmp_path, scope, amount, ends):
    """Return the verdict on A's gains over B of .1, .2 and .3 in x, y, z with these intervals."""
    rows = {"A": dict.fromkeys("xyz", 0.9), "B": {"x": 0.8, "y": 0.7, "z": 0.6}}
    column = "z" if scope == "most" else "*"
    write_paper(tmp_path, rows, [f"c,T,A,B,{column},AUC,>,{amount},{scope},it is,1,"])
    values = [
        our_row(row, name, value) for row, cells in rows.items() for name, value in cells.items()
    ]
    cells = fixed({("A", "B", name, "AUC"): each for name, each in zip("xyz", ends, strict=True)})
    (line,) = check("new2030", pd.DataFrame(values), cells, tmp_path).to_dict("records")
    assert line["published"] == "holds"
    assert line["our_note"] == ""
    return line["ours"], line["margin"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # of x, y, z: two gains lie above 0 in the whole interval, and none may be negative in two
        (((-0.1, 0.3), (0.1, 0.3), (0.2, 0.4)), ("holds", "3 of 3 (2 to 3 within the intervals)")),
        (
            ((-0.1, 0.3), (-0.1, 0.4), (0.2, 0.4)),
            ("within noise", "3 of 3 (1 to 3 within the intervals)"),
        ),
        (
            ((-0.3, -0.1), (-0.2, -0.1), (0.2, 0.4)),
            ("does not hold", "3 of 3 (1 to 1 within the intervals)"),
        ),
    ],
)
def test_a_count_is_judged_by_the_intervals(tmp_path, ends, expected):
    assert gains(tmp_path, "count", 2, ends) == expected


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (
            ((0.0, 0.2), (0.1, 0.25), (0.26, 0.4)),
            ("holds", "gain 1 of 3 (1 to 1 within the intervals)"),
        ),
        (
            ((0.0, 0.2), (0.1, 0.27), (0.26, 0.4)),
            ("within noise", "gain 1 of 3 (1 to 2 within the intervals)"),
        ),
        (
            ((0.0, 0.2), (0.41, 0.5), (0.15, 0.4)),
            ("does not hold", "gain 1 of 3 (2 to 3 within the intervals)"),
        ),
    ],
)
def test_the_largest_gain_is_judged_by_the_intervals(tmp_path, ends, expected):
    assert gains(tmp_path, "most", "", ends) == expected


def test_a_claim_on_an_undefined_value_says_which():
    values = [our_row(row, name, value) for row in ("R18 + R18-F-MSML", "R18")
              for name, value in (("mean", 0.8), ("W", np.nan))]  # fmt: skip
    line = check("ge2018", pd.DataFrame(values)).set_index(["claim", "left_row"])
    line = line.loc[("f-msml-improves-the-baseline", "R18 + R18-F-MSML")]
    assert (line["ours"], line["our_note"]) == ("not run", "undefined here: W AUC")


def test_a_rank_without_an_interval_says_so():
    table = load("mo2019").query("table == 'Table I'")
    ours = table.drop(columns="value").rename(columns={"number": "value"})[[*CELL, "value"]]
    line = check("mo2019", ours).set_index("claim").loc["hernia-improved-most"]
    assert (line["ours"], line["margin"]) == ("does not hold", "gain 4 of 14")
    assert line["our_note"] == "no interval: by rank only"


def test_the_largest_gain_of_a_label_that_is_not_scored_is_not_judged(tmp_path):
    rows = {"A": {"x": 0.9}, "B": {"x": 0.8}}
    write_paper(tmp_path, rows, ["c,T,A,B,z,AUC,>,,most,it is,1,"])
    values = [our_row(row, "x", cells["x"]) for row, cells in rows.items()]
    (line,) = check("new2030", pd.DataFrame(values), folder=tmp_path).to_dict("records")
    assert (line["published"], line["ours"]) == ("no numbers", "not run")


def test_a_new_paper_brings_its_claims_in_a_file_of_its_own(tmp_path):
    (tmp_path / "chen2019.csv").write_bytes((published.FOLDER / "chen2019.csv").read_bytes())
    rows = {"new": {"mean": 0.8}, "old": {"mean": 0.7}}
    write_paper(tmp_path, rows, ["better,T,new,old,mean,AUC,>,,,it is,1,"])
    (tmp_path / "claims.csv").rename(tmp_path / "new2030.claims.csv")
    (tmp_path / "claims.csv").write_bytes((published.FOLDER / "claims.csv").read_bytes())
    assert published.papers(tmp_path) == ["chen2019", "new2030"]
    assert check("new2030", folder=tmp_path)["published"].tolist() == ["holds"]
    assert load_claims("chen2019", tmp_path).equals(load_claims("chen2019"))


def one_claim(tmp_path, relation, amount="", low=0.0, high=0.0, left=0.9, right=0.88, scope=""):
    """Return the verdicts of one claim, A against B, for our values and the interval of A - B."""
    rows = {"A": {"mean": 0.90}, "B": {"mean": 0.88}}
    write_paper(tmp_path, rows, [f"c,T,A,B,mean,AUC,{relation},{amount},{scope},it is,1,"])
    values = pd.DataFrame([our_row("A", value=left), our_row("B", value=right)])
    pairs = None if low is None else fixed({("A", "B", "mean", "AUC"): (low, high)})
    (line,) = check("new2030", values, pairs, tmp_path).to_dict("records")
    return line


@pytest.mark.parametrize(
    ("relation", "amount", "low", "high", "expected"),
    [
        (">", "", 0.001, 0.02, "holds"),
        (">", "", 0.0, 0.02, "within noise"),
        (">", "", -0.02, 0.0, "does not hold"),
        ("<", "", -0.02, -0.001, "holds"),
        ("<", "", -0.02, 0.0, "within noise"),
        ("<", "", 0.0, 0.02, "does not hold"),
        (">=", "0.005", -0.005, 0.02, "holds"),
        (">=", "0.005", -0.006, 0.02, "within noise"),
        (">=", "0.005", -0.03, -0.005, "within noise"),
        (">=", "0.005", -0.03, -0.006, "does not hold"),
        (">=", "", 0.0, 0.02, "holds"),
        (">=", "", -0.001, 0.02, "within noise"),
        ("<=", "0.005", -0.02, 0.005, "holds"),
        ("<=", "0.005", -0.02, 0.006, "within noise"),
        ("<=", "0.005", 0.005, 0.03, "within noise"),
        ("<=", "0.005", 0.006, 0.03, "does not hold"),
        ("<=", "", -0.02, 0.0, "holds"),
        ("=", "0.005", -0.005, 0.005, "holds"),
        ("=", "0.005", -0.004, 0.001, "holds"),
        ("=", "0.005", 0.001, 0.004, "holds"),  # significant, but less than the amount
        ("=", "0.005", -0.02, 0.001, "within noise"),  # wide intervals show no equality
        ("=", "0.005", -0.3, 0.3, "within noise"),
        ("=", "0.005", 0.004, 0.02, "within noise"),
        ("=", "0.005", 0.006, 0.02, "does not hold"),
        ("=", "0.005", -0.02, -0.0051, "does not hold"),
    ],
)
def test_a_relation_holds_where_it_is_true_in_the_whole_interval(
    tmp_path, relation, amount, low, high, expected
):
    assert one_claim(tmp_path, relation, amount, low, high)["ours"] == expected


@pytest.mark.parametrize(
    ("amount", "low", "high", "expected"),
    [
        # A .90, B .88 printed: 2 points, 2.27 % relative. So 2 % are points, 1.5 with rounding.
        ("2%", 0.0151, 0.03, "holds (at least 0.0150: 2 % points)"),
        ("2%", 0.0149, 0.03, "within noise (at least 0.0150: 2 % points)"),
        ("2%", 0.001, 0.0149, "does not hold (at least 0.0150: 2 % points)"),
        ("2.0%", 0.0194, 0.03, "within noise (at least 0.0195: 2.0 % points)"),
        # 2.3 % fit the relative gain: (2.3 - .05) / 100 of our B, .80
        ("2.3%", 0.0181, 0.03, "holds (at least 0.0180: 2.3 % relative)"),
        ("2.3%", 0.001, 0.0179, "does not hold (at least 0.0180: 2.3 % relative)"),
        ("", 0.001, 0.0179, ""),
    ],
)
def test_a_printed_gain_is_judged_by_its_size_beside_its_sign(
    tmp_path, amount, low, high, expected
):
    line = one_claim(tmp_path, ">", amount, low, high, right=0.8)
    assert line["ours"] == "holds"
    assert line["size"] == expected


def test_a_size_without_an_interval_says_so(tmp_path):
    line = one_claim(tmp_path, ">", "2%", None, left=0.9, right=0.88)
    assert (line["ours"], line["our_note"]) == ("holds", "no interval: by sign only")
    assert line["size"] == "holds (at least 0.0150: 2 % points, no interval)"
    line = one_claim(tmp_path, ">", "2%", None, left=0.894, right=0.88)
    assert line["size"].startswith("does not hold (")
    assert check("new2030", folder=tmp_path)["size"].tolist() == [""]


def test_the_printed_percentages_are_read_as_the_papers_mean_them():
    lines = {
        (line["claim"], line["metric"]): line
        for paper in PAPERS
        for line in load_claims(paper).to_dict("records")
        if line["amount"].endswith("%")
    }
    values = [
        our_row(row, column, value, metric)
        for row, value in (("HLUP-finetune", 0.9), ("BR-all", 0.8))
        for column in ("leaf", "leaf given Abnormal")
        for metric in ("AUC", "AP")
    ]
    chen = check("chen2019", pd.DataFrame(values)).set_index(["claim", "metric"])["size"]
    read = {key: chen[key] for key in lines if key in chen.index}
    assert {key: text.partition(": ")[2] for key, text in read.items()} == {
        ("finetune-beats-br-all", "AUC"): "2 % points, no interval)",
        ("finetune-beats-br-all", "AP"): "2.9 % points, no interval)",
        ("gain-given-abnormal", "AUC"): "2.4 % points, no interval)",
    }
    assert len(lines) == 5  # and Pham's 4 %, which are relative, and 5 % over a quoted row


def test_quoted_rows_have_no_interval_and_that_is_said():
    values = [our_row("HLUP-finetune", "leaf", 0.9), our_row("BR-leaf", "leaf", 0.88)]
    checked = our_claims("chen2019", values)
    for claim in ("highest-yet", "baseline-in-line"):
        line = checked.loc[(claim, "Guendel et al. 2018", "AUC")]
        assert line["ours"] == "not run"
        assert line["our_note"] == (
            "no interval: quoted from another paper, not run here (Guendel et al. 2018)"
        )
    nothing = our_claims("chen2019", values[1:])["our_note"]
    assert nothing["highest-yet", "Guendel et al. 2018", "AUC"] == ""  # ours was not run either


def test_a_failed_row_fails_the_claims_that_need_it():
    values = [our_row("HLUP-finetune", "leaf", 0.9), our_row("HLUP", "leaf", 0.88)]
    failed = {"BR-leaf": "NaN in epoch 2", "BR-all": "out of memory"}
    checked = check("chen2019", pd.DataFrame(values), failed=failed)
    verdicts = {line["claim"]: (line["ours"], line["our_note"]) for _, line in checked.iterrows()}
    assert verdicts["finetune-beats-br-leaf"] == (
        "failed: NaN in epoch 2",
        "BR-leaf failed: NaN in epoch 2",
    )
    assert verdicts["best-of-all"] == (
        "failed: NaN in epoch 2",
        "BR-leaf failed: NaN in epoch 2; BR-all failed: out of memory",
    )
    assert verdicts["two-stages-boost"] == ("not run", "")


@pytest.mark.parametrize(
    ("relation", "amount", "scope", "expected"),
    [
        ("~", "", "", "the unknown relation '~'"),
        (">", "", "some", "the unknown scope 'some'"),
        (">", "two", "", "the amount 'two', which is not a number"),
        (">", "", "count", "the amount '', which is not a number"),
        (">", "1.5", "count", "the amount '1.5', which is not a number"),
        ("=", "-1", "", "the amount '-1', which is not a number"),
    ],
)
def test_a_line_that_cannot_be_judged_is_named(tmp_path, relation, amount, scope, expected):
    with pytest.raises(EvaluationError, match=rf"claims\.csv, line 2: c has {expected}\.$"):
        one_claim(tmp_path, relation, amount, scope=scope)


def three_rows(tmp_path, right_row, scope=""):
    """Return the verdict on a claim that A beats others; B has no AP for y, and C has none."""
    cells = {"A": {"x": (0.9, 0.5), "y": (0.9, 0.5)}, "B": {"x": (0.8, 0.4), "y": (0.7, None)}}
    cells["C"] = {"x": (0.85, None), "y": (0.85, None)}
    lines = [
        f"T,{row},{column},{metric},D,test,{value},"
        for row, columns in cells.items()
        for column, values in columns.items()
        for metric, value in zip(("AUC", "AP"), values, strict=True)
        if value is not None
    ]
    (tmp_path / "new2030.csv").write_text("\n".join([HEADER, *lines, ""]))
    column = "y" if scope else "x|y"
    metric = "AUC" if scope else "AUC|AP"
    (tmp_path / "claims.csv").write_text(
        ",".join(claims.CLAIM_COLUMNS)
        + f"\nnew2030,c,T,A,{right_row},{column},{metric},>,,{scope},it is,1,\n"
    )
    (line,) = check("new2030", folder=tmp_path).to_dict("records")
    return line["published"], line["published_margin"]


def test_empty_cells_spoil_named_comparisons_and_no_others(tmp_path):
    assert three_rows(tmp_path, "*") == ("holds", "+0.0500 to +0.2000")
    assert three_rows(tmp_path, "B") == ("no numbers", "")
    assert three_rows(tmp_path, "B|C") == ("no numbers", "")
    assert three_rows(tmp_path, "quoted") == ("no numbers", "")


def test_the_label_that_gains_most_has_rank_1(tmp_path):
    assert three_rows(tmp_path, "B", "most") == ("holds", "gain 1 of 2")
    assert three_rows(tmp_path, "C", "most") == ("holds", "gain 1 of 2")  # a tie


def test_a_printed_gain_in_both_readings():
    line = {"table": "T", "column": "mean", "metric": "AUC", "left_row": "A", "right_row": "B"}
    cells = {("A", "mean", "AUC"): 0.9, ("B", "mean", "AUC"): 0.8}
    assert claims.gain_readings(line, {"T": cells}) == pytest.approx(
        {"points": 10.0, "relative": 12.5}
    )
    cells["B", "mean", "AUC"] = 0.0
    assert str(claims.gain_readings(line, {"T": cells})["relative"]) == "nan"


def test_the_lines_of_a_paper_are_counted_from_0_and_have_the_columns_of_the_file():
    lines = claims.load_claims("pham2019")
    assert lines.index.tolist() == list(range(len(lines)))
    assert tuple(lines.columns) == tuple(claims.CLAIM_COLUMNS)


def test_a_claim_on_a_row_that_cannot_be_run_says_why():
    absent = {"U-Zeros": "no label is uncertain", "U-Ones [14]": "quoted"}
    checked = claims.check("pham2019", absent=absent).set_index(["claim", "left_row"])
    notes = checked["our_note"]
    assert notes["ct-raises-mean", "U-Zeros+CT"] == "no label is uncertain"  # the right row
    assert notes["policies-of-14-improve-on-ignore", "U-Ones [14]"] == "quoted"
    assert notes["ct-raises-mean", "U-Ones+CT"] == ""
    assert {*checked["ours"]} == {"not run"}
