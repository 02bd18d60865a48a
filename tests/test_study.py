"""Test the study: damaged labels, measured effects, their wording, the page and a whole run."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from data import label_tree, labels, plco
from evaluation import claims, figures, predictions
from evaluation.metrics import Group
from reproduce.engine.rows import Run
from reproduce.study import __main__ as study
from reproduce.study import (
    asadi2025,
    chen2019,
    contrasts,
    measures,
    mo2019,
    page,
    pham2019,
    wording,
)
from reproduce.study.measures import AT, CHANGE, EVEN, MEAN, Measured
from tests.conftest import REPOSITORY


@pytest.fixture
def plco_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = (rng.random((4000, 19)) < 0.08).astype(np.float32)
    truth = label_tree.close(truth, label_tree.PLCO)
    frame = pd.DataFrame(truth, columns=list(labels.PLCO))
    frame[list(plco.PRESERVE)] = 1.0
    return frame.assign(split=["train"] * 2500 + ["val"] * 500 + ["test"] * 1000)


def deletions(frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return by inner label the shares of positives and negatives with deleted children."""
    preserved = frame[list(plco.PRESERVE)].to_numpy() == 1
    truth = frame[list(labels.PLCO)].to_numpy() == 1
    parents, shares = label_tree.parent_matrix(label_tree.PLCO), {}
    for node in label_tree.inner(label_tree.PLCO):
        deleted = ~preserved[:, parents[:, node] > 0]
        assert (deleted.all(axis=1) == deleted.any(axis=1)).all()  # children go together
        kept = preserved[:, node]  # otherwise they were deleted with their parent
        positive, negative = truth[:, node] & kept, ~truth[:, node] & kept
        shares[labels.PLCO[node]] = (deleted[positive].any(axis=1).mean(), deleted[negative].any())
    return shares


def test_labels_are_deleted_as_in_the_released_lists(plco_frame, shared_data):
    chen2019.delete(plco_frame, 0.3)
    path = shared_data / "plco-official-splits" / "val_set_delete0.3.csv.gz"
    complete = pd.read_csv(path.with_name("val_set_delete0.0.csv.gz")).set_index("img_name")
    released = pd.read_csv(path).set_index("img_name")
    released[list(labels.PLCO)] = complete.loc[released.index, list(labels.PLCO)]
    ours, theirs = deletions(plco_frame), deletions(released)
    for name, (share, of_negatives) in theirs.items():
        assert not of_negatives, name
        assert not ours[name][1], name
        assert share == pytest.approx(ours[name][0], abs=0.04), name


def test_deletion_of_nothing_and_of_everything(plco_frame):
    whole = plco_frame.copy()
    chen2019.delete(whole, 0.0)
    pd.testing.assert_frame_equal(whole, plco_frame)
    chen2019.delete(plco_frame, 1.0)
    abnormal = plco_frame["Abnormal"] == 1
    kept = plco_frame[list(plco.PRESERVE)].to_numpy()
    assert kept[abnormal].sum() == abnormal.sum()  # only the root
    assert kept[~abnormal].all()


def chexpert_frame(images: int = 2000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = (rng.random((images, 14)) < 0.3).astype(float)
    truth = label_tree.close(truth.astype(np.float32), label_tree.CHEXPERT)
    truth[:, 0] = truth[:, 1:13].max(axis=1) == 0
    return pd.DataFrame(truth, columns=list(labels.CHEXPERT)).assign(split="train")


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_uncertain_labels_hide_the_share_of_positives(share):
    frame = chexpert_frame()
    truth = frame.copy()
    pham2019.make_uncertain(frame, share)
    assert (frame[labels.NO_FINDING] == truth[labels.NO_FINDING]).all()
    for label in labels.CHEXPERT[1:]:
        uncertain = frame[label] == -1
        fewer = min(truth[label].sum(), len(truth) - truth[label].sum())
        assert uncertain.sum() == round(pham2019.UNCERTAIN * fewer)
        assert truth[label][uncertain].mean() == pytest.approx(share, abs=0.002)
        assert (frame[label][~uncertain] == truth[label][~uncertain]).all()


def test_hidden_positives_and_uncertain_labels_have_the_shares_that_radiologists_found():
    frame = chexpert_frame(6000)
    truth = frame.copy()
    pham2019.hide(frame, 0.48)
    for label, share in pham2019.PRESENT.items():
        uncertain = frame[label] == -1
        assert truth[label][uncertain].mean() == pytest.approx(share, abs=0.002)
        left = (truth[label] == 1) & ~uncertain
        assert (frame[label][left] == 0).mean() == pytest.approx(0.48, abs=0.001)
        negative = truth[label] != 1
        assert frame[label][negative & ~uncertain].equals(truth[label][negative & ~uncertain])
    others = [label for label in labels.CHEXPERT if label not in pham2019.PRESENT]
    pd.testing.assert_frame_equal(frame[others], truth[others])


def test_as_many_labels_are_deleted_at_random_as_along_the_tree(plco_frame):
    by_tree = plco_frame.copy()
    chen2019.delete(by_tree, 0.5)
    chen2019.delete_at_random(plco_frame, 0.5)
    columns = list(plco.PRESERVE)
    assert plco_frame[columns].sum().equals(by_tree[columns].sum())
    assert deletions(by_tree)["Abnormal"][1] == 0  # along the tree, only below present labels
    truth = plco_frame[list(labels.PLCO)].to_numpy() == 1
    kept = plco_frame[columns].to_numpy() == 1
    leaves = label_tree.leaves(label_tree.PLCO)
    assert (~kept & ~truth)[:, leaves].any()  # at random, absent ones too


def test_broken_parents_have_present_children():
    frame = chexpert_frame()
    truth = frame.copy()
    asadi2025.break_hierarchy(frame, 0, 0.3)
    changed = {label for label in labels.CHEXPERT if (frame[label] != truth[label]).any()}
    assert changed == {labels.NO_FINDING, "Enlarged Cardiomediastinum", "Consolidation"}
    child = truth["Pneumonia"] == 1
    assert (frame["Consolidation"][child] == 0).mean() == pytest.approx(0.3, abs=0.05)
    assert (frame["Consolidation"][~child] == truth["Consolidation"][~child]).all()
    unbroken = truth.copy()
    asadi2025.break_hierarchy(unbroken, 0, 0.0)
    pd.testing.assert_frame_equal(unbroken, truth)


def test_damage_never_reaches_the_test_set():
    frame = chexpert_frame(300).assign(split=["train"] * 150 + ["val"] * 50 + ["test"] * 100)
    frame.attrs["dataset"] = "chexpert"

    def set_all(part: pd.DataFrame, value: float) -> None:
        part[list(labels.CHEXPERT)] = value

    damaged = contrasts.damage_labels(frame, set_all, -1)
    assert damaged.attrs == frame.attrs
    assert (damaged.loc[damaged["split"] != "test", labels.CHEXPERT] == -1).all().all()
    in_test = damaged["split"] == "test"
    pd.testing.assert_frame_equal(damaged[in_test], frame[in_test])
    assert (frame[list(labels.CHEXPERT)] != -1).all().all()  # the argument is unchanged


@pytest.mark.parametrize("name", study.CONTRASTS)
def test_a_contrast_turns_one_knob_and_wants_rows_that_exist(name):
    contrast = study.CONTRASTS[name]
    assert not (contrast.drawn and contrast.setting)
    assert contrast.drawn or contrast.damage or contrast.setting
    rows = (contrast.rows or contrast.script.rows)(contrast.config, contrast.dataset)
    assert {*contrast.wanted} <= {row.name for row in rows}
    for panel in contrast.panels:
        hash(panel.measure)  # panels that share a measure compute it once


def test_knobs_and_settings_take_the_value():
    levels, rare = study.CONTRASTS["chen2019-levels"], study.CONTRASTS["chen2019-rare"]
    assert (levels.config_at(2).levels, rare.config_at(30)) == (2, chen2019.CONFIG)
    assert (rare.knobs_at(30).odds, levels.knobs_at(2)) == (30, contrasts.TRUE_LABELS)


def test_the_penalty_takes_its_scale_from_the_knob():
    contrast = study.CONTRASTS["asadi2025-penalty"]
    rows = asadi2025.rows(contrast.config_at(8.0), "chexpert")
    loss = contrasts.row_named(rows, asadi2025.PENALISED).loss
    assert loss.keywords["scale"] == 8.0
    assert loss.keywords["form"] == "differentiable"


def test_focal_loss_is_that_of_lin_2017():
    targets, logits = np.array([[1.0, 0.0]]), np.array([[0.3, -1.2]])
    p = 1 / (1 + np.exp(-logits))
    positive = -0.25 * (1 - p[0, 0]) ** 2 * np.log(p[0, 0])
    negative = -0.75 * p[0, 1] ** 2 * np.log(1 - p[0, 1])
    assert float(mo2019.focal(targets)(targets, logits)) == pytest.approx(
        (positive + negative) / 2, rel=1e-5
    )


def test_plain_cross_entropy_differs_from_the_baseline_in_its_loss():
    rows = mo2019.script.rows(mo2019.CONFIG, "chestxray14")
    plain = contrasts.row_named(rows, mo2019.script.PLAIN)
    weighted = contrasts.row_named(rows, mo2019.script.BASELINE)
    assert plain.loss is not weighted.loss
    assert (plain.fit, plain.readout, plain.task) == (weighted.fit, weighted.readout, weighted.task)


# Effects


def finished_run(folder, row: str, seed: int, probabilities: np.ndarray, targets) -> Run:
    from reproduce.engine.rows import Combined

    folder = folder / row / f"seed-{seed}"
    folder.mkdir(parents=True)
    images = [f"{number}.png" for number in range(len(targets))]
    predictions.save(
        folder / "predictions.npz",
        predictions.Predictions(
            np.array(images), np.array(images), np.array(labels.ASADI), targets, probabilities, {}
        ),
    )
    return Run(Combined(row, []), seed, folder, {}, "")


def two_rows(folder, images=60, seeds=2) -> list[Run]:
    rng = np.random.default_rng(0)
    targets = (rng.random((images, 21)) < 0.5).astype(np.float32)
    runs = []
    for row, skill in (("good", 0.4), ("bad", 0.1)):
        for seed in range(seeds):
            noise = np.random.default_rng([seed, round(10 * skill)]).random((3, images, 21))
            mixed = (skill * targets + (1 - skill) * noise).astype(np.float32)
            runs.append(finished_run(folder, row, seed, mixed, targets))
    return runs


def test_an_effect_is_the_paired_difference_of_two_rows(tmp_path):
    runs = two_rows(tmp_path)
    auc = measures.AUC(Group("mean"))
    panel = measures.Panel(
        "AUC",
        auc,
        [
            measures.Effect("lead", "good", "bad"),
            measures.Effect("none", "good", "good"),
            measures.Effect("lost", "good", "failed row"),
        ],
    )
    measured = auc(runs, 100)
    lead, none, *own = panel.table({0.5: measured}).to_dict("records")
    assert lead["low"] < lead["low90"] < lead["value"] < lead["high90"] < lead["high"]
    assert lead["low"] > 0
    assert none["value"] == none["low"] == none["high"] == 0  # the same patients and seeds
    assert lead["value"] == pytest.approx(measured["good"].value - measured["bad"].value)
    assert [line["effect"] for line in own] == ["bad itself", "good itself"]
    assert own[0]["value"] == measured["bad"].value
    assert {line["part"] for line in (lead, none, *own)} == {AT}  # one value has no trend


def test_mean_change_and_break_even_of_a_line():
    noise = np.random.default_rng(0).normal(0, 0.01, 4000)
    each = [Measured(0.02 * knob - 0.02, 0.02 * knob - 0.02 + noise) for knob in (0.0, 1.0, 3.0)]
    by_part = {line["part"]: line for line in measures.parts(each, [0.0, 1.0, 3.0], log=False)}
    assert by_part[MEAN]["value"] == pytest.approx(0.02 * 4 / 3 - 0.02)
    assert by_part[CHANGE]["value"] == pytest.approx(0.06)
    # the same noise at every value of the knob cancels in the slope
    assert by_part[CHANGE]["low"] == pytest.approx(by_part[CHANGE]["high"])
    assert by_part[EVEN]["value"] == pytest.approx(1.0)
    # the line moves by ±1.96 * .01, which is ±.98 of the knob at a slope of .02
    assert by_part[EVEN]["low"] == pytest.approx(0.02, abs=0.06)
    assert by_part[EVEN]["high"] == pytest.approx(1.98, abs=0.06)


def test_the_break_even_of_a_logarithmic_knob_and_of_no_crossing():
    draws = np.linspace(-1e-4, 1e-4, 101)
    rising = [Measured(value, value + draws) for value in (-0.01, 0.01)]
    even = measures.parts(rising, [1.0, 100.0], log=True)[-1]
    assert (even["part"], even["value"]) == (EVEN, pytest.approx(10.0))
    above = [Measured(value, value + draws) for value in (0.01, 0.03)]
    assert measures.parts(above, [1.0, 100.0], log=True)[-1]["part"] == CHANGE
    assert [line["part"] for line in measures.parts([above[0], None], [1.0, 2.0], False)] == [AT]


def test_violations_are_counted_per_image(tmp_path):
    pairs = np.argwhere(label_tree.parent_matrix(label_tree.ASADI) > 0)
    order = np.linspace(0.9, 0.1, 21)  # the first label is the most probable
    always = np.tile(order, (1, 40, 1)).astype(np.float32)
    expected = sum(child < parent for child, parent in pairs)
    runs = [finished_run(tmp_path, "row", 0, always, np.zeros((40, 21), np.float32))]
    measured = measures.Violations()(runs, 20)["row"]
    assert measured.value == expected
    np.testing.assert_allclose(measured.draws, expected)
    decided = sum(order[child] >= 0.5 > order[parent] for child, parent in pairs)
    assert 0 < decided < expected
    assert measures.Violations(0.5)(runs, 20)["row"].value == decided


def test_spread_detects_errors_that_entropy_does_not(tmp_path):
    images = 200
    targets = np.ones((images, 21), np.float32)
    wrong = np.arange(images) % 4 == 0
    mean = np.where(wrong, 0.2, 0.7)[:, None].repeat(21, axis=1)
    apart = np.where(wrong, 0.1, 0.01)[:, None]
    runs = [
        finished_run(
            tmp_path, "row", 0, np.stack([mean - apart, mean + apart]).astype("f4"), targets
        )
    ]
    measured = measures.ErrorDetection("row")(runs, 10)
    assert measured["spread"].value == pytest.approx(1)
    assert measured["entropy"].value == pytest.approx(0)
    assert measures.ErrorDetection("another")(runs, 10) == {}


# Words


def line(value: float, low: float, high: float, **more) -> pd.Series:
    narrower = {"low90": low + 0.001, "high90": high - 0.001}
    return pd.Series({"value": value, "low": low, "high": high, **narrower, **more})


def test_verdicts_in_words():
    assert wording.verdict(line(0.02, 0.01, 0.03)) == "above 0"
    assert wording.verdict(line(-0.02, -0.03, -0.01)) == "below 0"
    assert wording.verdict(line(0.0, -0.1, 0.1)) == "undecided"
    assert wording.verdict(line(0.0, -0.0105, 0.0105)) == "equal to within .01"
    assert wording.verdict(line(0.004, 0.001, 0.007)) == "above 0 but equal to within .01"
    assert wording.interval(line(0.02, 0.01, 0.03)) == "+.020 [+.010, +.030]"
    assert wording.signed(-1.25) == "-1.250"
    assert wording.signed(np.nan) == "unknown"


def test_parts_in_words():
    lines = [
        line(0.01, 0.001, 0.02, part=MEAN, knob=np.nan),
        line(0.03, 0.02, 0.04, part=CHANGE, knob=np.nan),
        line(0.45, 0.3, 0.612, part=EVEN, knob=np.nan),
        line(-0.005, -0.01, 0.0, part=AT, knob=0.5),
    ]
    effects = pd.DataFrame(lines).assign(panel="AUC", effect="A − B", against="B")
    assert wording.mean(effects, "A") == "+.010 [+.001, +.020], above 0"
    assert wording.change(effects, "A") == "+.030 [+.020, +.040] (break-even at 0.45 [0.3, 0.61])"
    assert wording.at(effects, "A", "AUC", 0.5) == "-.005 [-.010, 0]"
    assert wording.mean(effects, "C") == "unknown, because rows failed"


def all_effects(contrast) -> pd.DataFrame:
    """Return random effects in the shape that a finished contrast saves."""
    rng = np.random.default_rng(0)
    frames = []
    for panel in contrast.panels:
        rows = {effect.row for effect in panel.effects} | {each.against for each in panel.effects}
        points = {knob: rng.normal(0, 0.02, len(rows)) for knob in contrast.values}
        drawn = {
            knob: {
                row: Measured(value, value + rng.normal(0, 0.01, 50))
                for row, value in zip(rows - {""}, values, strict=False)
            }
            for knob, values in points.items()
        }
        frames.append(panel.table(drawn, contrast.log))
    return pd.concat(frames).assign(contrast=contrast.name, seeds=page.SEEDS)


@pytest.mark.parametrize("name", study.CONTRASTS)
def test_every_contrast_concludes_from_its_effects(name, tmp_path):
    contrast = study.CONTRASTS[name]
    page.save(name, all_effects(contrast), tmp_path)
    conclusion = contrast.conclude(page.load(contrast, tmp_path))
    assert "unknown" not in conclusion
    assert "nan" not in conclusion
    written = page.write({name: contrast}, tmp_path, tmp_path / "docs")
    text, figure = written.read_text(), tmp_path / "docs" / "study" / f"{name}.svg"
    assert conclusion in text
    assert f"study/{name}.svg" in text
    assert figures.PHANTOM_WARNING in text
    assert "So far" not in text
    assert figures.PHANTOM_WARNING in figure.read_text()
    assert figure.stat().st_size < 60_000
    assert {*contrast.claims} <= {*claims.load_claims(contrast.paper)["claim"]}


def test_a_page_with_fewer_seeds_says_so(tmp_path):
    contrast = study.CONTRASTS["chen2019-levels"]
    page.save(contrast.name, all_effects(contrast).assign(seeds=1), tmp_path)
    written = page.write({contrast.name: contrast}, tmp_path, tmp_path)
    assert "So far with 1 of 5 seeds" in written.read_text()


def test_results_with_other_effects_are_not_used(tmp_path):
    contrast = study.CONTRASTS["pham2019-uncertain"]
    effects = all_effects(contrast)
    page.save(contrast.name, effects[effects["panel"] == contrast.panels[0].title], tmp_path)
    assert page.load(contrast, tmp_path) is None
    written = page.write({contrast.name: contrast}, tmp_path, tmp_path)
    assert f"`{contrast.name}`: {page.NOT_YET}" in written.read_text()


def test_a_contrast_without_results_keeps_the_numbers_of_the_page(tmp_path, monkeypatch):
    contrast = study.CONTRASTS["chen2019-levels"]
    monkeypatch.setattr(page, "OWN", tmp_path / "own")
    assert page.load(contrast, tmp_path) is None
    saved = all_effects(contrast).assign(hours=1.5)
    page.save(contrast.name, saved, tmp_path / "own")
    written = page.write({contrast.name: contrast}, tmp_path, tmp_path / "docs")
    assert "took 1.5 hours" in written.read_text()
    copied = pd.read_csv(tmp_path / "docs" / "study" / "chen2019-levels.csv")
    np.testing.assert_allclose(copied["value"], saved["value"])


def test_the_page_in_docs_is_made_of_its_numbers(tmp_path):
    """Regenerate the page from docs/study/*.csv; it names contrasts that are not computed."""
    docs = REPOSITORY / "docs"
    written = page.write(study.CONTRASTS, tmp_path, tmp_path / "docs")
    assert written.read_text() == (docs / "study.md").read_text()
    computed = {path.stem for path in (docs / "study").glob("*.csv")}
    assert {path.stem for path in (docs / "study").glob("*.svg")} == computed
    assert computed <= {*study.CONTRASTS}
    assert len(computed) > len(study.CONTRASTS) / 2


# The command


def command(*words, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "reproduce.study", *map(str, words)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        **more,
    )


def test_an_unknown_contrast_is_named(tmp_path):
    result = command("--only", "moss", "--results-dir", tmp_path)
    assert result.returncode == 2
    assert "moss" in result.stderr
    assert "chen2019-deleted" in result.stderr


def test_a_finished_contrast_is_not_trained_again(tmp_path):
    words = ["--quick", "--only", "pham2019-misaligned", "--results-dir", tmp_path / "results"]
    first = command(*words, "--cache-dir", tmp_path / "cache")
    assert first.returncode == 0, first.stderr
    contrast = study.CONTRASTS["pham2019-misaligned"]
    effects = page.load(contrast, tmp_path / "results" / "quick")
    assert effects["value"].notna().all()
    written = tmp_path / "results" / "quick" / "docs" / "study.md"
    assert "study/pham2019-misaligned.svg" in written.read_text()
    again = command(*words, "--cache-dir", tmp_path / "cache")
    assert "2 of 2 runs are finished" in again.stdout
    assert "epoch" not in again.stdout
    pd.testing.assert_frame_equal(page.load(contrast, tmp_path / "results" / "quick"), effects)
