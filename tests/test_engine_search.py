"""--search: every row at every value, the best on validation chosen, and what starts from it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import safefiles
from data import labels
from evaluation import predictions
from reproduce import RunError, chen2019, predict
from reproduce.engine import runs, search, train
from reproduce.engine.options import Options
from reproduce.engine.rows import Combined, Row
from reproduce.engine.search import Candidate, Chosen
from tests.test_engine_train import (  # noqa: F401
    Config,
    data,
    finish,
    make_row,
    options_for,
)

ROOT = Path(__file__).parents[1]
CONFIG = chen2019.Config(weights="none")


def table_of(*texts: str) -> dict[str, Row | Combined]:
    options = Options(dataset="plco", search=texts)
    return {row.name: row for row in search.table(chen2019.rows, CONFIG, options)}


def test_every_row_gets_the_same_values_for_the_same_number_of_epochs():
    searched = table_of("learning_rate=3e-5,1e-4,3e-4")
    plain = {each.name: each for each in chen2019.rows(CONFIG, "plco")}
    for name, original in plain.items():
        chosen = searched[name]
        if original.start_from:  # its own rate is another setting
            assert isinstance(chosen, Row)
            assert not isinstance(chosen, Candidate)
            continue
        assert isinstance(chosen, Chosen)
        candidates = [searched[each] for each in chosen.of]
        assert [each.config.learning_rate for each in candidates] == [3e-5, 1e-4, 3e-4]
        assert [each.fit.learning_rate(0, []) for each in candidates] == [3e-5, 1e-4, 3e-4]
        assert {each.fit.epochs for each in candidates} == {original.fit.epochs}
        assert {each.fit.select for each in candidates} != {None}
    assert len(searched) == len(plain) + 3 * 6  # six one-stage rows


def test_two_stages_are_searched_by_the_rate_of_each():
    searched = table_of("learning_rate=1e-4,3e-4", "finetune_learning_rate=1e-5,3e-5")
    fine = searched["HLUP-finetune"]
    assert isinstance(fine, Chosen)
    assert fine.values == ["finetune_learning_rate=1e-05", "finetune_learning_rate=3e-05"]
    assert {searched[each].start_from for each in fine.of} == {"HLCP"}
    twin = searched["BR-all, same budget"]
    assert len(twin.of) == len(fine.of)  # a twin has the values of the row that it controls for
    assert {searched[each].start_from for each in twin.of} == {"BR-all"}


def test_several_settings_are_every_combination():
    searched = table_of("learning_rate=1e-4,3e-4,1e-4", "batch_size=16,32")
    assert len(searched["HLCP"].of) == 4  # a value given twice is one value
    assert searched["HLCP"].values[0] == "learning_rate=0.0001, batch_size=16"
    assert searched["HLUP-finetune"].values == ["batch_size=16", "batch_size=32"]


def test_without_search_nothing_changes():
    assert not any(isinstance(each, Combined) for each in table_of().values())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("learning_rate", "give SETTING=VALUE,VALUE"),
        ("rate=1", "what can be searched is batch_size, learning_rate, finetune_learning_rate"),
        ("size=64,96", "what can be searched is"),  # images are decoded once
        ("backbone=tiny,densenet121", "what can be searched is"),  # weights would not fit
        ("epochs=5,10", "what can be searched is"),  # the budget
        ("learning_rate=1e-4,fast", "numbers separated by commas"),
        ("learning_rate=1e-4,", "numbers separated by commas"),
        ("learning_rate=-1", "--learning-rate -1: give a number above 0"),
        ("batch_size=0,8", "--batch-size 0: give a whole number from 1"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(text, sentence):
    with pytest.raises(RunError, match=sentence.replace("(", r"\(")):
        search.parse(CONFIG, [text])


# Which candidate is chosen, with a training that only writes its files


@pytest.fixture
def train_search(tmp_path, data, monkeypatch):  # noqa: F811
    """Return a function that trains one searched row and its child by only writing their files.

    `scores` gives the validation score of each epoch by value.
    """

    def of_scores(scores: dict[str, list[float]], **options):
        def write_files(run, weights, *_):
            own = scores.get(run.row.name, [0.5])
            if own == ["fails"]:
                raise runs.RowFailed("NaN in epoch 1", "Lower --learning-rate.")
            (run.folder / runs.WEIGHTS).write_bytes(run.row.name.encode())
            runs.add_to_record(run.folder, weights=safefiles.sha256(run.folder / runs.WEIGHTS))
            pd.DataFrame({"val": own}).to_csv(run.folder / "history.csv", index=False)
            if weights is not None:
                (run.folder / "started-from.txt").write_bytes(weights.read_bytes())
            finish(run, float(np.nan_to_num(own[-1], nan=0.5)))

        monkeypatch.setattr(train, "train_row", write_files)
        monkeypatch.setattr(train.backend, "start", lambda *_, **__: "cpu")
        parent = make_row("HLCP")
        fields = {name: getattr(parent, name) for name in parent.__dataclass_fields__}
        candidates = [
            Candidate(**fields | {"name": name, "config": Config(), "candidate_of": "HLCP"})
            for name in scores
        ]
        chosen = Chosen("HLCP", list(scores), values=list(scores))
        table = [*candidates, chosen, make_row("fine", start_from="HLCP")]
        return train.train_table("p", table, Config(), data, options_for(tmp_path, **options))

    return of_scores


def test_the_best_epoch_on_validation_is_chosen_and_children_start_from_it(train_search):
    # b ends higher than a, but a was higher in its second epoch, which is the one that it kept
    chosen, child = train_search({"a": [0.5, 0.9, 0.6], "b": [0.6, 0.7, 0.8], "c": [0.2, 0.3, 0.4]})
    assert chosen.row.name == "HLCP"
    assert (chosen.folder / runs.WEIGHTS).read_bytes() == b"a"
    assert (child.folder / "started-from.txt").read_bytes() == b"a"
    of_a = predictions.load(next(chosen.folder.parents[1].glob("a/seed-0-*/predictions.npz")))
    copied = runs.load_predictions(chosen.folder, chosen.digest)
    np.testing.assert_array_equal(copied.probabilities, of_a.probabilities)
    assert copied.meta["row"] == "HLCP"
    note = runs.record(chosen.folder)["chosen"]
    assert note == "a, chosen on validation of 3 (a: 0.9000, b: 0.8000, c: 0.4000)"


def test_of_equal_scores_the_first_value_is_chosen(train_search):
    chosen, _ = train_search({"a": [0.7], "b": [0.7]})
    assert (chosen.folder / runs.WEIGHTS).read_bytes() == b"a"


def test_values_that_fail_or_cannot_be_scored_are_left_out(train_search):
    chosen, child = train_search({"a": ["fails"], "b": [np.nan], "c": [np.nan, 0.6]})
    assert chosen.finished
    assert child.finished
    assert (chosen.folder / runs.WEIGHTS).read_bytes() == b"c"
    assert "a: failed, b: nan, c: 0.6000" in runs.record(chosen.folder)["chosen"]
    runs.finish([chosen, child])  # no error: a value that fails is a result of the search


def test_a_row_fails_where_every_value_does(train_search, capsys):
    trained = train_search({"a": ["fails"], "b": ["fails"]})
    assert runs.failed_rows(trained) == {
        "HLCP": "no value of 2 has a validation score",
        "fine": "needs HLCP",
    }
    assert "Give --search other values (a: failed, b: failed)" in capsys.readouterr().out
    assert all(run.finished for run in train_search({"a": [0.5], "b": [0.4]}, retry_failed=True))


# A whole run


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("search")
    command = [sys.executable, "-m", "reproduce.chen2019", "--phantoms", "120", "--size", "32"]
    command += ["--epochs", "2", "--finetune-epochs", "1", "--resamples", "10", "--device", "cpu"]
    command += ["--search", "learning_rate=1e-5,1e-2,1e30", "--rows", "HLUP-finetune"]
    command += ["--results-dir", folder / "results", "--cache-dir", folder / "cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "results" / "chen2019" / "plco-phantoms", done.stdout


def run_of(folder: Path, row: str) -> Path:
    (run,) = (folder / row).glob("seed-0-*")
    return run


def test_a_whole_search(results):
    folder, printed = results
    best = {}
    for rate in ("1e-05", "0.01"):
        history = pd.read_csv(run_of(folder, f"HLCP-learning_rate-{rate}") / "history.csv")
        assert len(history) == 2
        best[rate] = history["val"].max()
    record = json.loads((run_of(folder, "HLCP") / "config.json").read_text())
    winner = max(best, key=best.__getitem__)
    assert record["chosen"].startswith(f"learning_rate={winner}, chosen on validation of 3 (")
    assert "learning_rate=1e+30: failed" in record["chosen"]
    weights = [
        (run_of(folder, name) / "best.weights.h5").read_bytes()
        for name in ("HLCP", f"HLCP-learning_rate-{winner}")
    ]
    assert weights[0] == weights[1]
    assert not (run_of(folder, "HLCP-learning_rate-1e+30") / "predictions.npz").exists()
    child = json.loads((run_of(folder, "HLUP-finetune") / "config.json").read_text())
    assert child["settings"]["from"] == {"HLCP": record["digest"]}
    table = (folder / "table.md").read_text()
    assert f"learning_rate={winner}, chosen on validation of 3" in table
    assert "(learning_rate=" not in table.replace(record["chosen"], "")  # candidates: not in tables
    assert f"HLCP, seed 0: {record['chosen']}" in printed


@pytest.mark.parametrize("name", ["HLCP", "HLUP-finetune"])
def test_a_chosen_run_predicts_new_images_as_it_predicted_its_own(results, name, tmp_path):
    folder, _ = results
    run = run_of(folder, name)
    expected = predictions.load(run / "predictions.npz")
    (phantoms,) = (folder.parents[2] / "cache" / "phantoms").glob("plco-*")
    images = [next(phantoms.rglob(f"{Path(image).name}*")) for image in expected.ids[:3]]
    assert predict.main(["--run", str(run), *map(str, images), "--out", str(tmp_path)]) == 0
    read = pd.read_csv(tmp_path / "predictions.csv")
    np.testing.assert_allclose(read[list(labels.PLCO)], expected.mean[:3], atol=1e-9)
