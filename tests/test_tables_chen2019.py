"""Chen's claim below Figure 3: a parent improves significantly wherever its child does."""

import numpy as np
import pandas as pd
import pytest

from data import label_tree, policies
from data.labels import CHEXPERT
from evaluation.claims import load_claims
from evaluation.predictions import Predictions
from reproduce.engine.rows import Data
from reproduce.tables import chen2019, consistency
from tests.scored import scores_of

CELLS = [("leaf", "AUC"), ("leaf", "AP")]
LABELS = ["Abnormal", "Pulmonary", "Nodule", "Bone", "Fracture"]
NO_DATA = Data(pd.DataFrame(), None, {"dataset": "plco"})
PARENTS = np.zeros((5, 5))
PARENTS[1, 0] = PARENTS[2, 1] = PARENTS[3, 0] = PARENTS[4, 3] = 1


def compared(p, difference=(0.1,) * 5):
    return pd.DataFrame({"label": LABELS, "difference": difference, "p": p})


@pytest.mark.parametrize(
    ("p", "difference", "ours", "margin"),
    [
        ((0.01,) * 5, (0.1,) * 5, "holds", "4 of 4"),
        ((0.01, 0.01, 0.01, 0.5, 0.5), (0.1,) * 5, "holds", "2 of 2"),
        ((0.01, 0.01, 0.01, 0.06, 0.04), (0.1,) * 5, "does not hold", "2 of 3"),
        ((0.01, 0.01, 0.01, 0.05, 0.04), (0.1,) * 5, "does not hold", "2 of 3"),
        # a parent that gets worse significantly does not improve; a child that does asks nothing
        ((0.01,) * 5, (0.1, -0.1, 0.1, 0.1, 0.1), "does not hold", "2 of 3"),
        ((0.01,) * 5, (0.1, 0.1, -0.1, 0.1, -0.1), "holds", "2 of 2"),
        ((0.01, 0.5, 0.5, 0.5, 0.5), (0.1,) * 5, "within noise", "0 of 0"),
        ((0.01, np.nan, 0.01, 0.5, 0.5), (0.1,) * 5, "does not hold", "0 of 1"),
    ],
)
def test_verdict_by_hand(p, difference, ours, margin):
    judged = chen2019.parents_improve_too(compared(p, difference), PARENTS)
    assert (judged["ours"], judged["margin"]) == (ours, margin)


def test_the_note_names_the_labels():
    judged = chen2019.parents_improve_too(compared((0.01, 0.01, 0.01, 0.06, 0.04)), PARENTS)
    assert judged["our_note"] == (
        "by p over all seeds, after Holm's correction; Fracture improves, its parent Bone does not"
    )


def test_improvements_are_corrected_for_the_number_of_labels():
    """Of 100 draws, 1 of x and none of y lies below 0: p = .02 at least, times 2 by Holm."""
    cells = [("x", "AUC"), ("y", "AUC"), ("z", "AUC")]
    ours, flat = scores_of(0.8, cells), scores_of(0.7, cells)
    above = np.full((3, 100), 0.1)
    above[0, 0] = -0.2
    above[2, :40] = -0.2
    index = flat.draws.index
    ours = ours._replace(draws=pd.DataFrame(0.7 + above, index))
    flat = flat._replace(draws=pd.DataFrame(np.full((3, 100), 0.7), index))
    made = chen2019.improvements(ours, flat, ["x", "y", "z", "unknown"])
    np.testing.assert_allclose(made["p"], [0.06, 0.06, 0.8, np.nan])
    np.testing.assert_allclose(made["difference"], [0.1, 0.1, 0.1, np.nan])


def test_claims_are_judged_again_with_the_twins_of_equal_budget(tmp_path, capsys):
    scored = {
        "HLCP": scores_of(0.70, CELLS),
        "HLCP, same budget": scores_of(0.80, CELLS),
        "BR-leaf": scores_of(0.60, CELLS),  # its twin was not run
        "HLUP-finetune": scores_of(0.75, CELLS),
    }
    chen2019.claims_at_equal_budget(tmp_path, scored, NO_DATA, {})
    judged = pd.read_csv(tmp_path / "claims-equal-budget.csv").set_index("claim")
    assert judged["ours"]["two-stages-boost"] == "does not hold"  # .75 against .80, not .70
    assert float(judged["margin"]["two-stages-boost"]) == -0.05
    assert judged["ours"]["finetune-beats-br-leaf"] == "not run"
    assert "Claims at equal budget" in capsys.readouterr().out


def test_without_twins_there_is_nothing_to_judge_again(tmp_path):
    chen2019.claims_at_equal_budget(tmp_path, {"HLCP": scores_of(0.7, CELLS)}, NO_DATA, {})
    assert not list(tmp_path.iterdir())


def test_every_row_is_conditioned_on_the_same_images():
    """CheXpert: Support Devices alone are not Abnormal, Lung Opacity alone is without any leaf."""
    names, tree = label_tree.HIERARCHIES["chexpert-abnormal"]
    leaves = [names[label] for label in label_tree.leaves(tree)]
    inner = [names[label] for label in label_tree.inner(tree)]
    found = [["Support Devices"], ["Lung Opacity"], ["Edema"], ["Fracture"], []]
    released = pd.DataFrame(0.0, range(5), [name for name in CHEXPERT if name in names])
    for image, present in enumerate(found):
        released.loc[image, present] = 1
    truth = policies.hierarchy_targets(released, "chexpert-abnormal")
    abnormal = truth[:, names.index("Abnormal")] == 1
    assert abnormal.tolist() == [False, True, True, True, False]
    columns = [names.index(name) for name in leaves]
    assert (truth[:, columns] == 1).any(axis=1).tolist() == [True, False, True, True, False]
    scores = np.random.default_rng(0).random(truth.shape)
    seen = []
    for chosen in (list(names), leaves):
        groups = chen2019.columns_of(chosen, leaves, inner, abnormal)
        (group,) = (each for each in groups if each.name == "leaf given Abnormal")
        own = [names.index(name) for name in chosen]
        targets, _ = group.arrays(truth[:, own], scores[:, own], chosen)
        seen.append(~np.isnan(targets).all(axis=1))
    np.testing.assert_array_equal(seen, [abnormal, abnormal])


def predicted(probabilities) -> Predictions:
    """Return predictions of PLCO's labels, all 0.1 but those given by label and image."""
    names = label_tree.HIERARCHIES["plco"][0]
    table = np.full((4, len(names)), 0.1)
    for name, column in probabilities.items():
        table[:, names.index(name)] = column
    return Predictions(None, None, np.array(names), None, table[None], {})


def test_consistency_by_hand(tmp_path, capsys):
    """Abnormal is above Pulmonary, and 4 images are shown; every other pair is level at .1."""
    broken = predicted({"Abnormal": [0.4, 0.9, 0.9, 0.9], "Pulmonary": [0.6, 0.95, 0.7, 0.2]})
    right = predicted({"Abnormal": [0.9] * 4, "Pulmonary": [0.6] * 4})
    leaves_only = right._replace(labels=right.labels[:14], probabilities=np.zeros((1, 4, 14)))
    scored = {
        name: scores_of(0.7, CELLS)._replace(predictions=[each])
        for name, each in (("BR-all", broken), ("HLCP", right), ("BR-leaf", leaves_only))
    }
    consistency.write(tmp_path, scored)
    table = pd.read_csv(tmp_path / "consistency.csv", index_col=0, dtype=str)
    assert list(table.index) == ["BR-all", "HLCP"]
    assert table.loc["BR-all"].tolist() == ["25.0", "50.0", ".125", ".200"]
    assert table.loc["HLCP", "child > parent / 100"] == "0.0"
    pairs = pd.read_csv(tmp_path / "violations.csv").query("row == 'BR-all'")
    assert pairs.set_index(["parent", "child"]).loc[("Abnormal", "Pulmonary"), "exceeding"] == 2
    assert "children above parents" in capsys.readouterr().out


def test_rows_without_a_hierarchy_have_no_consistency(tmp_path):
    consistency.write(tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_the_claim_is_in_the_papers_list():
    lines = load_claims("chen2019").set_index("claim")
    assert lines["scope"][chen2019.TREE_CLAIM] == "tree"
    assert lines["line"][chen2019.TREE_CLAIM] == "123"
