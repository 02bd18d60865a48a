"""Hyper-parameter search: every row trained at every value, the best chosen on validation.

    --search learning_rate=3e-5,1e-4,3e-4

Every row is trained at the same values of the settings that it does not ignore, for the same number
of epochs. Each of these candidates is a row with a folder of its own. The row itself becomes a copy
of the candidate whose best epoch scored highest on validation; rows that start from it start from
that copy. A candidate that fails, such as on a NaN loss, is not chosen.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from reproduce import RunError
from reproduce.engine import ranges
from reproduce.engine.rows import Combined, Data, Row

# What can be searched is how a row is trained. Not its epochs, which are the budget; nor its images
# and its network, which must fit the rows that start from it.
SEARCHABLE = (ranges.Rate, ranges.Decay, ranges.Weight, ranges.BatchSize)


@dataclass(frozen=True)
class Candidate(Row):
    """A row at one of the searched values."""

    config: Any = None
    candidate_of: str = ""


@dataclass(frozen=True)
class Chosen(Combined):
    """The candidate with the highest score on validation."""

    values: Sequence[str] = ()  # of each candidate, such as "learning_rate=0.0001"


def parse(config: Any, texts: Sequence[str]) -> dict[str, list]:
    """The values of every setting that --search names, as the setting's type and in its range."""
    hints = get_type_hints(type(config), include_extras=True)
    searchable = [field for field, kind in hints.items() if kind in SEARCHABLE]
    searched: dict[str, list] = {}
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
            ranges.check(dataclasses.replace(config, **{field: value}))
    return searched


def table(rows: Callable, config: Any, data: Data, options) -> list[Row | Combined]:
    """The script's rows; each that is searched as its candidates and the chosen one."""
    plain = rows(config, data)
    values = parse(config, options.search)
    if not values:
        return plain
    made: list[Row | Combined] = []
    for row in plain:
        searched = [field for field in values if not _ignores(row, field)]
        if not searched:
            made.append(row)
            continue
        candidates = []
        for chosen in itertools.product(*(values[field] for field in searched)):
            setting = dict(zip(searched, chosen, strict=True))
            text = ", ".join(f"{field}={value}" for field, value in setting.items())
            other = dataclasses.replace(config, **setting)
            at_value = next(each for each in rows(other, data) if each.name == row.name)
            fields = {
                field.name: getattr(at_value, field.name) for field in dataclasses.fields(Row)
            }
            fields |= {"name": f"{row.name} ({text})", "config": other, "candidate_of": row.name}
            candidates.append(Candidate(**fields))
        texts = [each.name.removeprefix(f"{row.name} (")[:-1] for each in candidates]
        names = [each.name for each in candidates]
        made += [*candidates, Chosen(row.name, names, note=row.note, values=texts)]
    return made


def _ignores(row: Row | Combined, field: str) -> bool:
    return not isinstance(row, Row) or not row.fit.epochs or field in row.ignores


def config_of(row: Row | Combined, config: Any) -> Any:
    """The settings that a row runs with."""
    return row.config if isinstance(row, Candidate) else config
