"""pham2019's tables: one prediction a study, and the radiologists' files in either layout."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import DataError, chexpert
from data.labels import CHEXPERT
from data.phantom import drawing
from evaluation import EvaluationError, predictions
from evaluation.predictions import Predictions
from reproduce.engine.rows import PHANTOMS, Data
from reproduce.tables import pham2019 as tables
from tests.scored import scores_of

CELLS = [("mean", "AUC")]


def test_studies_are_pooled_from_images():
    of_images = Predictions(
        np.array(["a", "b", "c"]),
        np.array(["p", "q", "q"]),
        np.array(["x"]),
        np.array([[1], [0], [0]]),
        np.array([[[0.5], [0.25], [0.75]], [[0.5], [0.75], [0.75]]]),
        {},
    )
    pooled = predictions.pooled(of_images, ["s2", "s1", "s1"])
    assert pooled.ids.tolist() == ["s1", "s2"]
    assert pooled.patients.tolist() == ["q", "p"]
    np.testing.assert_array_equal(pooled.probabilities[..., 0], [[0.5, 0.5], [0.75, 0.5]])
    np.testing.assert_array_equal(pooled.targets, [[0], [1]])
    largest = predictions.pooled(of_images, ["s2", "s1", "s1"], np.max)
    np.testing.assert_array_equal(largest.probabilities[..., 0], [[0.75, 0.5], [0.75, 0.5]])
    with pytest.raises(EvaluationError, match="different truths"):
        predictions.pooled(of_images, ["s1", "s1", "s2"])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pham2019")
    return drawing.write("chexpert", folder, 150, 48, seed=3, prevalence_floor=0.1, progress=False)


def test_radiologists_are_found_in_either_layout(drawn, tmp_path):
    decisions = chexpert.radiologists(drawn)
    assert [*decisions] == ["bc4", "bc6", "bc8"]
    frame = chexpert.read(drawn)
    assert {*decisions["bc4"].index} == {*frame[frame["split"] == "test"]["study_id"]}
    assert np.isin(decisions["bc8"], (0, 1)).all()
    released = tmp_path / "radiologists" / "benchmark_radiologists"
    released.mkdir(parents=True)
    source = next(drawn.rglob("bc6.csv"))
    (released / "bc6.csv").write_bytes(source.read_bytes())
    only = chexpert.radiologists(tmp_path)
    assert [*only] == ["bc6"]
    pd.testing.assert_frame_equal(only["bc6"], decisions["bc6"])
    with pytest.raises(DataError, match=r"bc6.csv lacks 1 of the 2 test studies, such as nobody"):
        tables.of_studies("bc6", decisions["bc6"], [decisions["bc6"].index[0], "nobody"])


def test_claims_are_judged_again_with_flat_rows_on_the_closed_labels(tmp_path, capsys):
    scored = {
        "U-Ones": scores_of(0.70, CELLS),
        "U-Ones (closed labels)": scores_of(0.80, CELLS),
        "U-Ones+CT": scores_of(0.75, CELLS),
        "Ignore": scores_of(0.60, CELLS),  # its control was not run
        "Ignore+CT": scores_of(0.65, CELLS),
        "U-Zeros": scores_of(0.60, CELLS),  # its control failed
        "U-Zeros+CT": scores_of(0.65, CELLS),
    }
    data = Data(pd.DataFrame(), None, {"dataset": "chexpert"}, not_comparable=PHANTOMS)
    failed = {"U-Zeros (closed labels)": "NaN in epoch 1"}
    tables.claims_with_closed_labels(tmp_path, scored, data, failed)
    judged = pd.read_csv(tmp_path / "claims-closed.csv", keep_default_na=False)
    judged = judged[judged["claim"] == "ct-raises-mean"].set_index("left_row")
    assert judged["ours"]["U-Ones+CT"] == "does not hold"  # .75 against .80, not .70
    assert float(judged["margin"]["U-Ones+CT"]) == -0.05
    assert judged["ours"]["Ignore+CT"] == "not run"
    assert judged["ours"]["U-Zeros+CT"] == "failed: NaN in epoch 1"
    assert {*judged["not_comparable"]} == {PHANTOMS}
    page = (tmp_path / "claims-closed.md").read_text()
    assert "drawn phantoms, not comparable" in page
    assert "flat rows trained on the labels that CT sees" in page
    assert "drawn phantoms" in capsys.readouterr().out


def test_without_controls_there_is_nothing_to_judge_again(tmp_path):
    data = Data(pd.DataFrame(), None, {"dataset": "chexpert"})
    tables.claims_with_closed_labels(tmp_path, {"U-Ones": scores_of(0.7, CELLS)}, data, {})
    assert not list(tmp_path.iterdir())


def test_closing_is_counted_on_the_images_that_train(tmp_path, capsys):
    """Consolidation 0 above Pneumonia -1: turned over under U-Ones alone; above 1: always."""
    frame = pd.DataFrame(np.nan, index=range(4), columns=list(CHEXPERT))
    frame["Consolidation"] = [0, 0, np.nan, 0]
    frame["Pneumonia"] = [-1, 1, 1, 1]
    frame["split"] = ["train", "train", "train", "test"]
    tables.write_closing(tmp_path, Data(frame, None, {"dataset": "chexpert"}))
    counts = pd.read_csv(tmp_path / "closing.csv").set_index("label").loc["Consolidation"]
    assert counts[["negatives", "ignore", "zeros", "ones"]].tolist() == [2, 1, 1, 2]
    assert "of 3 images" in capsys.readouterr().out
