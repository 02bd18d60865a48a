"""From predictions to tables: seeds and patients in intervals, rows that failed or collapsed."""

import numpy as np
import pandas as pd
import pytest

from evaluation import bootstrap, metrics, predictions, published
from evaluation.metrics import Group
from evaluation.probabilities import sigmoid
from reproduce.engine.rows import Combined, Data, Run
from reproduce.tables import scoring

LABELS = ("Edema", "Mass")
IMAGES, RESAMPLES = 120, 300
DATA = Data(None, None, {"dataset": "plco"})


def finished(folder, name, seed, quality, noise=0, note="") -> Run:
    """A run whose predictions tell the classes apart by `quality`, with noise of its own."""
    truth = np.random.default_rng(0).random((IMAGES, 2)) < 0.4
    shared = np.random.default_rng(1).normal(size=(IMAGES, 2))
    own = np.random.default_rng([2, seed, len(name)]).normal(size=(IMAGES, 2))
    logits = quality * truth + shared + noise * own
    run = Run(Combined(name, (), note=note), seed, folder / name / f"seed-{seed}", {})
    ids = np.arange(IMAGES).astype(str)
    patients = np.repeat(np.arange(IMAGES // 2), 2).astype(str)
    arrays = ids, patients, np.array(LABELS), truth.astype(np.float32), sigmoid(logits)[None]
    predictions.save(run.folder / "predictions.npz", predictions.Predictions(*arrays, {}))
    return run


def leaf(names):
    return (Group("leaf"),)


def score(runs):
    return scoring.score(runs, leaf, RESAMPLES)


def cell(scored, row="HLCP", group="leaf", metric="AUC"):
    return scored[row].table.set_index(scoring.KEYS).loc[(group, metric)]


# Seeds


@pytest.mark.parametrize(
    ("seeds", "quantile"),
    [([0.8, 0.9], 12.706), ([0.7, 0.75, 0.9], 4.303), ([0.7] * 4 + [0.8], 2.776)],
)
def test_seeds_without_other_variance_have_students_interval(seeds, quantile):
    """The quantiles of t with 1, 2 and 4 degrees of freedom are those of printed tables."""
    points = np.array(seeds)[:, None]
    draws = np.repeat(points[..., None], 4000, axis=2)
    low, high = bootstrap.interval(scoring.over_seeds(draws, points, range(len(seeds)))[0])
    half = quantile * np.std(seeds, ddof=1) / np.sqrt(len(seeds))
    assert (low, high) == pytest.approx((np.mean(seeds) - half, np.mean(seeds) + half), rel=0.08)


def test_the_draws_of_one_seed_are_those_of_the_patients():
    draws = np.random.default_rng(0).random((1, 2, 50))
    np.testing.assert_array_equal(scoring.over_seeds(draws, draws.mean(axis=2), [3]), draws[0])


def test_differences_pair_seeds_as_well_as_patients():
    """Rows that differ by .1 with every seed and patient differ by .1, however seeds vary."""
    rng = np.random.default_rng(0)
    draws, points = rng.random((3, 2, 100)), rng.random((3, 2))
    one = scoring.over_seeds(draws, points, [0, 1, 2])
    other = scoring.over_seeds(draws - 0.1, points - 0.1, [0, 1, 2])
    np.testing.assert_allclose(one - other, 0.1)
    elsewhere = scoring.over_seeds(draws - 0.1, points - 0.1, [3, 4, 5])
    assert np.std(one - elsewhere) > 0.05
    again = scoring.over_seeds(draws, points, [0, 1, 2])
    np.testing.assert_array_equal(one, again)  # repeatable


def test_the_interval_of_several_seeds_is_wider_than_that_of_patients_alone(tmp_path):
    runs = [finished(tmp_path, "HLCP", seed, 1.0 + seed, noise=0.3) for seed in (0, 1)]
    both, (first, second) = score(runs), [score([run]) for run in runs]
    mean = cell(both)
    assert mean["value"] == pytest.approx((cell(first)["value"] + cell(second)["value"]) / 2)
    width = mean["high"] - mean["low"]
    patients_alone = np.mean([each["HLCP"].draws for each in (first, second)], axis=0)
    low, high = np.quantile(patients_alone[-2], [0.025, 0.975])
    assert width > 1.5 * (high - low)
    assert mean["low"] < cell(first)["value"] < cell(second)["value"] < mean["high"] + 0.02
    assert "mean of 2 seeds, seed SD 0." in mean["note"]
    assert scoring.ONE_SEED not in mean["note"]
    pd.testing.assert_frame_equal(both["HLCP"].table, score(runs)["HLCP"].table)
    for run in runs:
        alone = pd.read_csv(run.folder / "metrics.csv")
        assert len(alone) == 2 * (len(LABELS) + 1)


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        (["a", "a", "a"], "3 seeds"),
        (["a", "b", "c"], "3 splits"),
        (["a", "a", "b", "b"], "4 runs (2 splits)"),
    ],
)
def test_the_note_says_what_a_mean_is_over(splits, words):
    made = [Run(Combined("R", ()), 0, None, {"data": {"split": name}}) for name in splits]
    assert scoring.counted(made) == words


def test_an_undefined_mean_has_no_deviation():
    tables = [pd.DataFrame({"value": [value, np.nan], "note": ""}) for value in (0.7, 0.9)]
    made = scoring._mean_table(tables, "2 splits")
    assert made["note"].tolist() == ["mean of 2 splits, seed SD 0.1414", "mean of 2 splits"]


def test_one_seed_keeps_the_patients_interval_and_says_so(tmp_path):
    run = finished(tmp_path, "HLCP", 0, 1.5, note="our reading")
    table = score([run])["HLCP"].table
    found = predictions.load(run.folder / "predictions.npz")
    expected = bootstrap.table(
        found.targets, found.mean, LABELS, found.patients, leaf(LABELS), resamples=RESAMPLES
    )
    pd.testing.assert_frame_equal(table.drop(columns="note"), expected.drop(columns="note"))
    assert {*table["note"]} == {f"{scoring.ONE_SEED}; our reading"}


def test_widened_intervals_stay_within_0_and_1(tmp_path):
    runs = [finished(tmp_path, "HLCP", seed, quality) for seed, quality in ((0, 1.0), (1, 99.0))]
    table = score(runs)["HLCP"].table
    assert table["high"].max() == 1
    assert table["low"].min() >= 0


def test_differences_of_rows_are_those_of_their_draws(tmp_path):
    scored = score(
        [
            finished(tmp_path, name, seed, quality + seed, noise=0.1)
            for name, quality in (("HLCP", 1.0), ("BR-all", 0.5))
            for seed in (0, 1)
        ]
    )
    table = scoring.differences(scored).set_index(["left_row", "right_row", *scoring.KEYS])
    line = table.loc[("HLCP", "BR-all", "leaf", "AUC")]
    gap = scored["HLCP"].draws - scored["BR-all"].draws
    ends = np.quantile(gap.loc[("leaf", "AUC")], [0.025, 0.975])
    np.testing.assert_allclose(line[["low", "high"]].astype(float), ends)
    unpaired = np.sum([np.ptp(cell(scored, row)[["low", "high"]]) for row in scored])
    assert line["high"] - line["low"] < 0.5 * unpaired  # both rows gain by the second seed
    assert scoring.differences({}).empty


# Collapse


def test_a_row_that_collapsed_says_so(tmp_path):
    runs = [finished(tmp_path, "HLCP", 0, 1.5), finished(tmp_path, "HLCP", 1, 1.5)]
    flat = predictions.load(runs[1].folder / "predictions.npz")
    flat = flat._replace(probabilities=np.full((1, IMAGES, 2), 0.3) + 1e-7)
    predictions.save(runs[1].folder / "predictions.npz", flat)
    assert {*score(runs)["HLCP"].table["note"].str.partition("; ")[2]} == {
        f"{scoring.COLLAPSED} (seed 1)"
    }
    assert score(runs[1:])["HLCP"].table["note"][0] == f"{scoring.ONE_SEED}; {scoring.COLLAPSED}"
    assert scoring.COLLAPSED not in score(runs[:1])["HLCP"].table["note"][0]


# Rows that failed


@pytest.fixture
def scored(tmp_path):
    runs = [finished(tmp_path, name, 0, 1.5) for name in ("HLUP-finetune", "HLUP")]
    return score(runs)


FAILED = {"HLCP": "NaN in epoch 2", "HLCP, same budget": "needs HLCP"}


def test_failed_rows_stand_in_their_places(tmp_path, scored, capsys):
    aliases = {"HLUP (ours)": "HLUP", "HLUP (naive)": "HLCP"}
    scoring.write("chen2019", tmp_path, scored, DATA, aliases, failed=FAILED)
    side = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    verdicts = side.groupby("row")["verdict"].agg(set)
    assert verdicts["HLCP"] == {"failed: NaN in epoch 2"}
    assert verdicts["HLUP (naive)"] == {"failed: NaN in epoch 2"}  # a printed name of the same row
    assert verdicts["HLCP, same budget"] == {"failed: needs HLCP"}
    assert verdicts["BR-leaf"] == {"not run"}
    page, printed = (tmp_path / "table.md").read_text(), capsys.readouterr().out
    assert "| HLCP | published | .879 | .229 |" in page
    assert "|  | ours, failed: NaN in epoch 2 |" in page
    assert "| HLCP, same budget | ours, failed: needs HLCP |" in page
    assert "ours, failed: needs HLCP" in printed
    assert "published, not run" in page
    values = pd.read_csv(tmp_path / "values.csv", keep_default_na=False)
    failed = values[values["row"] == "HLCP"]
    assert {*failed["note"]} == {"failed: NaN in epoch 2"}
    assert {*failed["value"]} == {""}
    claims = pd.read_csv(tmp_path / "claims.csv", keep_default_na=False).set_index("claim")
    assert claims["ours"]["two-stages-boost"] == "failed: NaN in epoch 2"
    assert claims["our_note"]["two-stages-boost"] == "HLCP failed: NaN in epoch 2"
    assert claims["ours"]["finetune-beats-hlup"] in ("holds", "within noise", "does not hold")
    assert claims["ours"]["br-all-no-gain"] == "not run"
    assert "All of ours: one seed: the interval covers other patients" in page


def test_long_reasons_are_cut_in_the_table_and_whole_below_it(tmp_path, scored):
    reason = "out of memory: 12 GB were asked for and 3 GB were free (lower --batch-size)"
    scoring.write("chen2019", tmp_path, scored, DATA, failed={"HLCP": reason})
    page = (tmp_path / "table.md").read_text()
    assert "|  | ours, failed: out of memory: 12 GB were asked… |" in page
    assert f"- HLCP: failed: {reason}" in page


def test_every_row_may_fail(tmp_path):
    scoring.write("chen2019", tmp_path, {}, DATA, failed=FAILED)
    values = pd.read_csv(tmp_path / "values.csv", keep_default_na=False)
    assert {*values["row"]} == {*FAILED}
    assert "failed: needs HLCP" in (tmp_path / "table.md").read_text()


def test_a_row_that_lost_a_seed_keeps_its_numbers_and_says_so(tmp_path, scored):
    scoring.write("chen2019", tmp_path, scored, DATA, failed={"HLUP": "NaN in epoch 2"})
    side = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    of_row = side[side["row"] == "HLUP"]
    ran = of_row[of_row["ours"] != ""]
    assert len(ran)
    assert ran["note"].str.contains("another seed failed: NaN in epoch 2").all()
    assert not side["verdict"].str.startswith("failed").any()


def test_a_papers_own_table_may_judge_a_claim(tmp_path, scored):
    verdict = {"ours": "holds", "margin": "3 of 3", "our_note": "by DeLong's p"}
    claim = "significance-respects-the-tree"
    scoring.write("chen2019", tmp_path, scored, DATA, judged={claim: verdict})
    claims = pd.read_csv(tmp_path / "claims.csv", keep_default_na=False).set_index("claim")
    assert claims.loc[claim, ["ours", "margin", "our_note"]].to_dict() == verdict
    scoring.write("chen2019", tmp_path, scored, DATA)
    claims = pd.read_csv(tmp_path / "claims.csv", keep_default_na=False).set_index("claim")
    assert claims.loc[claim, "ours"] == "not run"


def test_values_of_a_row_that_is_not_printed_are_kept(tmp_path, scored):
    scoring.write("chen2019", tmp_path, scored, DATA)
    values = pd.read_csv(tmp_path / "values.csv")
    assert {*values["group"]} == {*LABELS, "leaf"}
    assert {*values["runs"]} == {"HLUP-finetune/seed-0", "HLUP/seed-0"}
    side = pd.read_csv(tmp_path / "table.csv")
    assert {*side["column"]} == {*published.load("chen2019")["column"]}


def test_the_view_is_what_is_scored(tmp_path):
    run = finished(tmp_path, "HLCP", 0, 1.5)
    studies = np.repeat(np.arange(IMAGES // 4), 4).astype(str)

    def by_study(found):
        found = found._replace(targets=found.targets[np.repeat(np.arange(0, IMAGES, 4), 4)])
        return predictions.pooled(found, studies)

    scored = scoring.score([run], leaf, 20, view=by_study)
    found = scored["HLCP"].predictions[0]
    assert found.mean.shape == (IMAGES // 4, 2)
    auc = metrics.macro_mean(metrics.auroc(found.targets, found.mean))
    assert cell(scored)["value"] == pytest.approx(auc)


def test_rows_are_scored_from_the_named_test_set(tmp_path):
    run = finished(tmp_path, "HLCP", 0, 1.5)
    (run.folder / "predictions.npz").rename(run.folder / "predictions-public.npz")
    scoring.score([run], leaf, 20, "predictions-public")
    assert (run.folder / "metrics-public.csv").is_file()
