"""Chen's claim below Figure 3: a parent improves significantly wherever its child does."""

import numpy as np
import pandas as pd
import pytest

from evaluation.claims import load_claims
from reproduce.engine.rows import Data
from reproduce.tables import chen2019
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
        "by DeLong's p of the first seed; Fracture improves, its parent Bone does not"
    )


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


def test_the_claim_is_in_the_papers_list():
    lines = load_claims("chen2019").set_index("claim")
    assert lines["scope"][chen2019.TREE_CLAIM] == "tree"
    assert lines["line"][chen2019.TREE_CLAIM] == "123"
