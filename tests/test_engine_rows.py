"""Rows as data: their description is their identity, and lists without images or labels."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from data.augment import Augment
from reproduce import RunError, asadi2025, chen2019, ge2018, mo2019, pham2019, wang2017
from reproduce.engine import schedules
from reproduce.engine.rows import (
    Combined,
    Data,
    Fit,
    Network,
    Row,
    Targets,
    Task,
    bce,
    describe,
    mean_auc,
    parents,
    wanted,
)

SCRIPTS = {
    chen2019: ("plco", "chexpert", "chestxray14"),
    pham2019: ("chexpert", "chestxray14", "chestmnist"),
    mo2019: ("chestxray14",),
    ge2018: ("chestxray14",),
    asadi2025: ("chexpert", "chestxray14", "chestmnist"),
    wang2017: ("chestxray14",),
}


def zeros(frame: pd.DataFrame, columns: int = 1) -> Targets:
    array = np.zeros((len(frame), columns), np.float32)
    return Targets(array, array)


def make_row(name: str = "a", **changes) -> Row:
    """A row of one label and one epoch."""
    task = Task(("x",), zeros)
    fit = Fit(1, schedules.Constant(1e-3), 16)
    return Row(name, task, bce, fit, Network("tiny", 32, "none"), **changes)


def test_a_description_is_worked_by_hand():
    fit = Fit(2, schedules.Steps(0.1, 0.5, 3), 8, select=partial(mean_auc, columns=(0, 2)))
    assert describe(fit) == {
        "type": "Fit",
        "epochs": 2,
        "learning_rate": {"type": "Steps", "rate": 0.1, "factor": 0.5, "every": 3},
        "batch_size": 8,
        "select": {"function": "mean_auc", "columns": [0, 2]},
    }
    assert describe(replace(fit, augment=Augment(flip=True)))["augment"] == {
        "type": "Augment",
        "flip": True,
    }


def test_notes_and_defaults_are_no_part_of_a_row():
    @dataclass(frozen=True)
    class Grown(Fit):
        added_later: bool = False

    fit = Fit(2, schedules.Constant(0.1), 8)
    grown = Grown(2, schedules.Constant(0.1), 8)
    assert describe(grown) | {"type": "Fit"} == describe(fit)
    assert describe(make_row(note="read twice")) == describe(make_row())
    assert describe(make_row(centre=True)) != describe(make_row())


@pytest.mark.parametrize(
    "value", [lambda frame: None, np.zeros(3), partial(zeros, None), {1, 2}, object()]
)
def test_values_that_are_no_data_are_refused(value):
    with pytest.raises(TypeError, match="in a row, use a plain value"):
        describe(replace(make_row(), task=Task(("x",), value)))


@pytest.mark.parametrize(
    ("script", "dataset"), [(script, name) for script, names in SCRIPTS.items() for name in names]
)
@pytest.mark.parametrize("demo", [False, True])
def test_every_row_of_every_paper_is_listed_and_told_apart_without_data(script, dataset, demo):
    config = script.Config(**script.DEMO) if demo else script.Config()
    rows = script.rows(config, dataset)
    names = [row.name for row in rows]
    assert len({*names}) == len(names)
    described = [str({**describe(row), "name": ""}) for row in rows]
    trained = [text for text, row in zip(described, rows, strict=True) if isinstance(row, Row)]
    assert len({*trained}) == len(trained)
    for row in rows:
        assert all(names.index(parent) < names.index(row.name) for parent in parents(row))
    again = script.rows(config, dataset)
    assert [describe(row) for row in again] == [describe(row) for row in rows]


def test_targets_are_computed_once_for_rows_that_share_them():
    data = Data(pd.DataFrame({"image_path": ["a", "b"]}), None, {"dataset": "plco"})
    first = data.targets(Task(("x",), partial(zeros, columns=2)))
    assert data.targets(Task(("y",), partial(zeros, columns=2))) is first
    assert data.targets(Task(("y",), partial(zeros, columns=3))).learnt.shape == (2, 3)


def test_wanted_rows_bring_the_rows_that_they_need():
    rows = [
        make_row("HLCP"),
        make_row("fine", start_from="HLCP"),
        make_row("c"),
        make_row("d"),
        Combined("fusion", ("fine", "c")),
    ]

    def names(*asked: str, rows=rows) -> list[str]:
        return [row.name for row in wanted(rows, asked)]

    assert names("fusion") == ["HLCP", "fine", "c", "fusion"]
    assert names("d,c") == ["c", "d"]
    assert names("c, longer", rows=[make_row("c"), make_row("c, longer")]) == ["c, longer"]
    with pytest.raises(RunError, match=r"no row 'e'; the rows are HLCP, fine"):
        names("e")
