"""Test the study: damaged labels, measured effects, their wording, the page and a whole run."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from data import label_tree, labels, plco
from evaluation import figures, predictions
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


def test_broken_parents_have_present_children():
    frame = chexpert_frame()
    truth = frame.copy()
    asadi2025.break_hierarchy(frame, 0.3)
    changed = {label for label in labels.CHEXPERT if (frame[label] != truth[label]).any()}
    assert changed == {labels.NO_FINDING, "Enlarged Cardiomediastinum", "Consolidation"}
    child = truth["Pneumonia"] == 1
    assert (frame["Consolidation"][child] == 0).mean() == pytest.approx(0.3, abs=0.05)
    assert (frame["Consolidation"][~child] == truth["Consolidation"][~child]).all()
    unbroken = truth.copy()
    asadi2025.break_hierarchy(unbroken, 0.0)
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
    turned = [contrast.drawn, contrast.damage, contrast.setting]
    assert sum(bool(each) for each in turned) == 1
    rows = (contrast.rows or contrast.script.rows)(contrast.config, contrast.dataset)
    assert {*contrast.wanted} <= {row.name for row in rows}
    for panel in contrast.panels:
        hash(panel.measure)  # panels that share a measure compute it once


def test_knobs_and_settings_take_the_value():
    levels, rare = study.CONTRASTS["chen2019-levels"], study.CONTRASTS["chen2019-rare"]
    assert (levels.config_at(2).levels, rare.config_at(30)) == (2, chen2019.CONFIG)
    assert (rare.knobs_at(30).odds, levels.knobs_at(2)) == (30, contrasts.TRUE_LABELS)


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
    lead, none, lost, *own = panel.table(measured).to_dict("records")
    assert lead["low"] < lead["value"] < lead["high"]
    assert lead["low"] > 0
    assert none["value"] == none["low"] == none["high"] == 0  # the same patients and seeds
    assert np.isnan(lost["value"])
    assert lead["value"] == pytest.approx(measured["good"].value - measured["bad"].value)
    assert [line["effect"] for line in own] == ["bad itself", "good itself", "failed row itself"]
    assert own[0]["value"] == measured["bad"].value
    assert np.isnan(own[2]["value"])


def test_violations_are_counted_per_image(tmp_path):
    pairs = np.argwhere(label_tree.parent_matrix(label_tree.ASADI) > 0)
    order = np.linspace(0.9, 0.1, 21)  # the first label is the most probable
    always = np.tile(order, (1, 40, 1)).astype(np.float32)
    expected = sum(child < parent for child, parent in pairs)
    runs = [finished_run(tmp_path, "row", 0, always, np.zeros((40, 21), np.float32))]
    measured = measures.violations(runs, 20)["row"]
    assert measured.value == expected
    np.testing.assert_allclose(measured.draws, expected)


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


def effects_of(*lines: tuple[float, float, float, float]) -> pd.DataFrame:
    frame = pd.DataFrame(lines, columns=["knob", "value", "low", "high"])
    return frame.assign(panel="AUC", effect="A − B", against="B", contrast="x", seeds=3)


def test_verdicts_in_words():
    high, low, noise = (0, 0.02, 0.01, 0.03), (0.5, -0.02, -0.03, -0.01), (1, 0.0, -0.1, 0.1)
    assert wording.verdict(effects_of(noise)) == "within noise at every value"
    assert wording.verdict(effects_of(high, low)) == "higher at 0 and lower at 0.5"
    renamed = wording.verdict(effects_of(high, low, noise), "better", "worse")
    assert renamed == "better at 0 and worse at 0.5, within noise elsewhere"
    failed = (0.7, np.nan, np.nan, np.nan)
    assert wording.verdict(effects_of(failed)) == "unknown, because rows failed"
    assert [wording.interval(line) for _, line in effects_of(high, noise).iterrows()] == [
        "+.020 [+.010, +.030]",
        "+.000 [-.100, +.100]",
    ]


def all_effects(contrast) -> pd.DataFrame:
    """Return random effects in the shape that a finished contrast saves."""
    rng = np.random.default_rng(0)
    lines = []
    for knob in contrast.values:
        for panel in contrast.panels:
            for effect in panel.effects:
                value = rng.normal(0, 0.02)
                line = {"contrast": contrast.name, "knob": knob, "panel": panel.title}
                line |= {"effect": effect.name, "against": effect.against, "value": value}
                lines.append(line | {"low": value - 0.01, "high": value + 0.01})
    return pd.DataFrame(lines).assign(seeds=page.SEEDS)


@pytest.mark.parametrize("name", study.CONTRASTS)
def test_every_contrast_concludes_from_its_effects_and_names_rows_that_exist(name, tmp_path):
    contrast = study.CONTRASTS[name]
    effects = all_effects(contrast)
    conclusion = contrast.conclude(effects)
    assert "unknown" not in conclusion
    assert "nan" not in conclusion
    page.save(name, effects, tmp_path)
    written = page.write({name: contrast}, {contrast.paper: {}}, tmp_path, tmp_path / "docs")
    text, figure = written.read_text(), tmp_path / "docs" / "study" / f"{name}.svg"
    assert conclusion in text
    assert f"study/{name}.svg" in text
    assert figures.PHANTOM_WARNING in text
    assert "So far" not in text
    assert figures.PHANTOM_WARNING in figure.read_text()
    assert figure.stat().st_size < 60_000


def test_a_page_with_fewer_seeds_says_so(tmp_path):
    contrast = study.CONTRASTS["chen2019-levels"]
    page.save(contrast.name, all_effects(contrast).assign(seeds=1), tmp_path)
    written = page.write({contrast.name: contrast}, {"chen2019": {}}, tmp_path, tmp_path)
    assert "So far with 1 of 3 seeds" in written.read_text()
    assert not page.is_complete(written)


def test_results_with_other_effects_are_not_used(tmp_path):
    contrast = study.CONTRASTS["pham2019-uncertain"]
    effects = all_effects(contrast)
    page.save(contrast.name, effects[effects["panel"] == contrast.panels[0].title], tmp_path)
    assert page.load(contrast, tmp_path) is None
    written = page.write({contrast.name: contrast}, {"pham2019": {}}, tmp_path, tmp_path)
    assert f"`{contrast.name}`: {page.NOT_YET}" in written.read_text()


def test_claims_name_contrasts_that_exist():
    from evaluation.claims import load_claims

    for paper, by_claim in study.CLAIMS.items():
        for why in by_claim.values():
            panels = study.CONTRASTS[why.contrast].panels
            named = [panel for panel in panels if panel.title.startswith(why.panel)]
            effects = [effect.name for panel in named for effect in panel.effects]
            count = 2 if why == pham2019.SMOOTHED else 1
            assert sum(name.startswith(why.effect) for name in effects) == count
        assert {*by_claim} <= {*load_claims(paper)["claim"]}


def test_the_page_names_unfinished_parts(tmp_path):
    text = page.write(study.CONTRASTS, study.CLAIMS, tmp_path, tmp_path).read_text()
    assert text.count(page.NOT_YET) >= 2 * len(study.CONTRASTS)
    assert "no patient is in it" in " ".join(text.split())


def test_the_page_in_docs_is_complete():
    assert page.is_complete(REPOSITORY / "docs" / "study.md")


def test_claims_are_explained_by_the_contrast(tmp_path):
    folder = tmp_path / "papers" / "mo2019" / "chestxray14-phantoms"
    folder.mkdir(parents=True)
    line = {"claim": "proposed-beats-baseline", "left_row": "A", "right_row": "B"}
    line |= {"column": "mean", "metric": "AUC", "published": "holds", "ours": "does not hold"}
    never = line | {"claim": "never", "ours": "not run"}
    pd.DataFrame([line | {"margin": "-0.2"}, never]).to_csv(folder / "claims.csv", index=False)
    effects = all_effects(study.CONTRASTS["mo2019-imbalance"])
    of_a = effects["effect"] == "A: eq. (2) as printed"
    lines = [(0.02, 0.01, 0.03), *[(0.0, -0.1, 0.1)] * 3]
    effects.loc[of_a, ["value", "low", "high"]] = lines
    page.save("mo2019-imbalance", effects, tmp_path)
    text = page.write(study.CONTRASTS, study.CLAIMS, tmp_path, tmp_path).read_text()
    row, reason = (line for line in text.splitlines() if "proposed-beats-baseline" in line)
    assert "does not hold (-0.2)" in row
    assert "A: eq. (2) as printed: higher at 1, within noise elsewhere, by negatives" in reason
    assert "| never |" not in text


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
    assert effects["effect"][effects["against"].isna()].str.endswith(" itself").all()
    written = tmp_path / "results" / "quick" / "docs" / "study.md"
    assert "study/pham2019-misaligned.svg" in written.read_text()
    assert not page.is_complete(written)  # so docs/study.md is not replaced
    again = command(*words, "--cache-dir", tmp_path / "cache")
    assert "4 of 4 runs are finished" in again.stdout or "3 of 3 runs" in again.stdout
    assert "epoch" not in again.stdout
    pd.testing.assert_frame_equal(page.load(contrast, tmp_path / "results" / "quick"), effects)
