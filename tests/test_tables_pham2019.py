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
from reproduce.engine.rows import Data
from reproduce.tables import pham2019 as tables


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
