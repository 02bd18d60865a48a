"""pham2019's tables: one prediction a study, and the radiologists' files in either layout."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import DataError, chexpert
from data.labels import CHESTXRAY14, CHEXPERT
from data.phantom import drawing
from evaluation import EvaluationError, predictions
from evaluation.predictions import Predictions
from reproduce.engine.rows import PHANTOMS, Data, Row, Run, Targets, Task
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
        "U-Ones+CT (repaired)": scores_of(0.75, CELLS),
        "U-Ones+CT (as printed)": scores_of(0.99, CELLS),  # sees other labels
        "Ignore": scores_of(0.60, CELLS),  # its control was not run
        "Ignore+CT (repaired)": scores_of(0.65, CELLS),
        "U-Zeros": scores_of(0.60, CELLS),  # its control failed
        "U-Zeros+CT (repaired)": scores_of(0.65, CELLS),
    }
    data = Data(pd.DataFrame(), None, {"dataset": "chexpert"}, not_comparable=PHANTOMS)
    failed = {"U-Zeros (closed labels)": "NaN in epoch 1"}
    tables.claims_with_closed_labels(tmp_path, scored, data, failed, {}, {})
    judged = pd.read_csv(tmp_path / "claims-closed.csv", keep_default_na=False)
    judged = judged[judged["claim"] == "ct-raises-mean"].set_index("left_row")
    assert judged["ours"]["U-Ones+CT"] == "does not hold"  # .75 against .80, not .70
    assert float(judged["margin"]["U-Ones+CT"]) == -0.05
    assert judged["ours"]["Ignore+CT"] == "not run"
    assert judged["ours"]["U-Zeros+CT"] == "failed: NaN in epoch 1"
    assert {*judged["not_comparable"]} == {PHANTOMS}
    page = (tmp_path / "claims-closed.md").read_text()
    assert "drawn phantoms, not comparable" in page
    assert "flat rows trained on the labels that it sees" in page
    assert "drawn phantoms" in capsys.readouterr().out


def test_without_controls_there_is_nothing_to_judge_again(tmp_path):
    data = Data(pd.DataFrame(), None, {"dataset": "chexpert"})
    tables.claims_with_closed_labels(tmp_path, {"U-Ones": scores_of(0.7, CELLS)}, data, {}, {}, {})
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


def test_the_repair_is_judged_on_a_page_of_its_own(tmp_path, capsys):
    scored = {
        "U-Ones": scores_of(0.70, CELLS),
        "U-Ones+CT (as printed)": scores_of(0.60, CELLS),
        "U-Ones+CT (repaired)": scores_of(0.75, CELLS),
        "Ignore": scores_of(0.60, CELLS),
        "ensemble (as printed) (TTA)": scores_of(0.65, CELLS),
    }
    data = Data(pd.DataFrame(), None, {"dataset": "chexpert"}, not_comparable=PHANTOMS)
    failed = {"Ignore+CT (repaired)": "NaN in epoch 2"}
    tables.claims_of_repair(tmp_path, scored, data, failed, {"Ours": "ensemble (TTA)"}, {})
    judged = pd.read_csv(tmp_path / "claims-ours.csv", keep_default_na=False)
    judged = judged[judged["claim"] == "ct-raises-mean"].set_index("left_row")
    assert judged["ours"]["U-Ones+CT"] == "holds"  # .75 against .70; as printed .60 would not
    assert judged["ours"]["Ignore+CT"] == "failed: NaN in epoch 2"
    assert "our repair of conditional training" in (tmp_path / "claims-ours.md").read_text()
    as_printed = tables.of_reading(scored, tables.AS_PRINTED)
    assert [*as_printed] == ["U-Ones", "U-Ones+CT", "Ignore", "ensemble (TTA)"]
    assert [*tables.in_tables(scored)][1:3] == ["U-Ones+CT", "U-Ones+CT (repaired)"]
    capsys.readouterr()


def test_the_images_of_step_1_are_counted_under_the_table():
    """Of three training images one has a known target; the test image does not count."""
    frame = pd.DataFrame({"split": ["train", "train", "train", "test"]})
    data = Data(frame, None, {"dataset": "chexpert"})
    runs = [
        Run(Row(f"CT{reading} (step 1)", Task(("x",), one_known), None, None, None), 0, Path(), {})
        for reading in (tables.AS_PRINTED, tables.REPAIRED)
    ]
    scored = {f"CT{each}": scores_of(0.7, CELLS) for each in (tables.AS_PRINTED, tables.REPAIRED)}
    noted = tables.with_images_of_step_1(scored, [*runs, *runs], data)  # of two seeds
    notes = [row.table["note"].iloc[0] for row in noted.values()]
    assert notes == ["as printed: step 1 saw 1 of 3 training images", ""]


def one_known(frame: pd.DataFrame) -> Targets:
    array = np.array([[np.nan], [1], [np.nan], [1]], np.float32)[: len(frame)]
    return Targets(array, array)


def test_five_labels_by_the_names_of_either_dataset():
    assert tables.five_of(CHEXPERT)[-1] == "Pleural Effusion"
    assert tables.five_of(CHESTXRAY14)[-1] == "Effusion"
    assert [group.name for group in tables.groups(CHEXPERT)] == ["mean"]
    mean, effusion = tables.groups(CHESTXRAY14)
    assert (effusion.name, effusion.labels) == ("Pleural Effusion", ("Effusion",))
    assert mean.labels == ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion")
