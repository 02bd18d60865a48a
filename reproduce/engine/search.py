"""The table of a script: its rows, or with --search each row at several values of a setting.

    --search learning_rate=3e-5,1e-4,3e-4

Every row that changes with the setting is trained at each value, for the same number of epochs.
Each of these candidates is a row with a folder of its own. The row itself becomes a copy of the
candidate whose best epoch scored highest on validation; rows that start from it start from that
copy. A candidate that fails, such as on a NaN loss, is not chosen.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from reproduce import RunError
from reproduce.engine.options import BatchSize, Decay, Options, Rate, Weight, check
from reproduce.engine.rows import Combined, Row, describe, wanted

# Settings of how a row is trained. Not its epochs, which are the budget; nor its images and its
# network, which must fit the rows that start from it.
SEARCHABLE = (Rate, Decay, Weight, BatchSize)
ScriptRows = Callable[[Any, str], Sequence[Row | Combined]]  # (Config, dataset) -> rows


@dataclass(frozen=True)
class Candidate(Row):
    """A row at one of the searched values."""

    config: Any = dataclasses.field(default=None, compare=False)
    candidate_of: str = dataclasses.field(default="", compare=False)


@dataclass(frozen=True)
class Chosen(Combined):
    """The candidate with the highest score on validation."""

    values: Sequence[str] = ()  # of each candidate, such as "learning_rate=0.0001"


def table(rows: ScriptRows, config: Any, options: Options) -> list[Row | Combined]:
    """Return the wanted rows of a script; raise a RunError if one of them does not exist."""
    every: list[Row | Combined] = []
    values = parse(config, options.search)
    for row in rows(config, options.dataset):
        every += _searched(row, rows, config, options.dataset, values)
    return wanted(every, options.rows)


def parse(config: Any, texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of every setting that --search names, checked as flags are."""
    hints = get_type_hints(type(config), include_extras=True)
    searchable = [field for field, kind in hints.items() if kind in SEARCHABLE]
    searched: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        field = name.strip().replace("-", "_")
        if field not in searchable or not equals:
            raise RunError(
                f"--search {text}: give SETTING=VALUE,VALUE, such as learning_rate=1e-4,3e-4; "
                f"what can be searched is {', '.join(searchable)}."
            )
        kind = type(getattr(config, field))
        try:
            searched[field] = list(dict.fromkeys(kind(value) for value in values.split(",")))
        except ValueError as error:
            raise RunError(
                f"--search {text}: give numbers separated by commas ({error})."
            ) from error
        for value in searched[field]:
            check(dataclasses.replace(config, **{field: value}))
    return searched


def _searched(
    row: Row | Combined,
    rows: ScriptRows,
    config: Any,
    dataset: str,
    values: dict[str, list[Any]],
) -> list[Row | Combined]:
    """Return a row as its candidates and the chosen one, or as it is if no value changes it."""

    def row_with(setting: dict[str, Any]) -> Row:
        changed = dataclasses.replace(config, **setting)
        same = next(each for each in rows(changed, dataset) if each.name == row.name)
        assert isinstance(same, Row)
        return same

    if not isinstance(row, Row) or not row.fit.epochs:
        return [row]
    fields = [
        field
        for field, tried in values.items()
        if any(describe(row_with({field: value})) != describe(row) for value in tried)
    ]
    if not fields:
        return [row]
    candidates, texts = [], []
    for combination in itertools.product(*(values[field] for field in fields)):
        setting = dict(zip(fields, combination, strict=True))
        text = ", ".join(f"{field}={value}" for field, value in setting.items())
        parts = {field.name: getattr(row_with(setting), field.name) for field in _ROW_FIELDS}
        parts["name"] = f"{row.name} ({text})"
        changed = dataclasses.replace(config, **setting)
        candidates.append(Candidate(**parts, config=changed, candidate_of=row.name))
        texts.append(text)
    names = [candidate.name for candidate in candidates]
    return [*candidates, Chosen(row.name, names, note=row.note, values=texts)]


_ROW_FIELDS = dataclasses.fields(Row)
