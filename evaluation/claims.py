"""What the papers claim of their numbers: each comparison in theirs, and in ours.

`results/published/claims.csv` holds one claimed comparison a line.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluation import EvaluationError
from evaluation.published import (
    CELL,
    FOLDER,
    QUOTED,
    claim_files,
    is_average,
    load,
    our_values,
    read_csv,
)

CLAIM_COLUMNS = [
    *("paper", "claim", "table", "left_row", "right_row", "column", "metric"),
    *("relation", "amount", "scope", "quote", "line"),
]
CHECKED = ["published", "published_margin", "ours", "margin", "our_note"]


def load_claims(paper: str, folder: Path = FOLDER) -> pd.DataFrame:
    """A paper's directional claims, one comparison a line (docs/published.md has the columns)."""
    frame = pd.concat([read_csv(path, CLAIM_COLUMNS) for path in claim_files(folder)])
    return frame[frame["paper"] == paper].reset_index(drop=True)


Cells = dict[tuple[str, str, str], float]  # (row, column, metric) -> value


class ClaimedDifference(NamedTuple):
    """One cell of one row set against the same cell of another."""

    column: str
    metric: str
    right_row: str
    margin: float  # left minus right; NaN where either is unknown


def check(
    paper: str,
    values: pd.DataFrame | None = None,
    differences: pd.DataFrame | None = None,
    folder: Path = FOLDER,
) -> pd.DataFrame:
    """Each claimed comparison with what the paper's own numbers say of it, and what ours do.

    `values`: row, column (or group), metric, value. `differences`: left_row, right_row, column
    (or group), metric, low, high: the paired-bootstrap interval of left minus right.
    `published` is "holds", "does not hold" or "no numbers"; `ours` is "holds", "does not hold",
    "within noise" (the interval contains 0) or "not run"; margins are left minus right.
    """
    tables = by_table(load(paper, folder))
    mine = {} if values is None else _cells(our_values(values).rename(columns={"value": "number"}))
    intervals = _intervals(differences)
    checked = []
    for line in load_claims(paper, folder).to_dict("records"):
        checked.append({**line, **_published_verdict(line, comparisons(line, tables))})
        checked[-1] |= _our_verdict(line, _our_comparisons(line, tables, mine), intervals)
    return pd.DataFrame(checked, columns=[*CLAIM_COLUMNS, *CHECKED])


def by_table(printed: pd.DataFrame) -> dict[str, Cells]:
    """The numbers of each printed table, and under `quoted` those that are not the paper's own."""
    tables = {name: _cells(table) for name, table in printed.groupby("table", sort=False)}
    return {**tables, QUOTED: _cells(printed[printed["note"].str.startswith(QUOTED)])}


def _cells(frame: pd.DataFrame) -> Cells:
    """The numbers by their cell; the first where a cell is given twice."""
    cells: Cells = {}
    for *cell, number in frame[[*CELL, "number"]].itertuples(index=False):
        cells.setdefault(tuple(cell), number)
    return cells


def comparisons(line: dict, tables: dict[str, Cells]) -> list[ClaimedDifference]:
    """What a claim compares, in the numbers of the tables that it names."""
    return _compare_cells(line, named_cells(line, tables), _rows_against(line, tables))


def _our_comparisons(line: dict, tables: dict[str, Cells], mine: Cells) -> list[ClaimedDifference]:
    """The same in our values; none where a row that the claim needs was not run."""
    against = _rows_against(line, tables)
    if line["right_row"] == "*":
        quoted = {row for row, *_ in tables[QUOTED]}
        against = [row for row in against if row not in quoted]
    ran = {row for row, *_ in mine}
    return _compare_cells(line, mine, against) if ran >= {*against, line["left_row"]} else []


def named_cells(line: dict, tables: dict[str, Cells]) -> Cells:
    """The cells of the tables that a claim names; the first of them wins."""
    cells: Cells = {}
    for name in line["table"].split("|"):
        cells |= {cell: value for cell, value in tables.get(name, {}).items() if cell not in cells}
    return cells


def _rows_against(line: dict, tables: dict[str, Cells]) -> list[str]:
    """The rows that a claim compares with: by name, `quoted`, or `*` for every other."""
    if line["right_row"] not in ("*", QUOTED):
        return line["right_row"].split("|")
    cells = named_cells(line, tables)
    wanted = cells if line["right_row"] == "*" else cells.keys() & tables[QUOTED].keys()
    rows = dict.fromkeys(row for row, *_ in cells)
    return [row for row in rows if row != line["left_row"] and row in {name for name, *_ in wanted}]


def _compare_cells(line: dict, cells: Cells, against: list[str]) -> list[ClaimedDifference]:
    left, columns = line["left_row"], line["column"].split("|")
    if columns == ["*"] or line["scope"] == "most":
        labels = (column for row, column, _ in cells if row == left)
        columns = [column for column in dict.fromkeys(labels) if not is_average(column)]
    found = [
        ClaimedDifference(
            column,
            metric,
            right,
            cells.get((left, column, metric), np.nan) - cells.get((right, column, metric), np.nan),
        )
        for column, metric, right in itertools.product(columns, line["metric"].split("|"), against)
    ]
    if line["column"] == "*" or line["right_row"] in ("*", QUOTED):
        return [cell for cell in found if not np.isnan(cell.margin)]  # N/A spoils no "every other"
    return found


def _margins(cells: list[ClaimedDifference]) -> np.ndarray:
    return np.array([cell.margin for cell in cells]).round(9)  # 0.857 - 0.852 is not above 0.005


def _meets(line: dict, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the relation surely holds for a margin between low and high, and where it may."""
    relation = line["relation"]
    slack = float(line["amount"] or 0) if relation in ("=", "<=", ">=") else 0.0
    match relation:
        case ">":
            return low > 0, high > 0
        case "<":
            return high < 0, low < 0
        case ">=":
            return (high >= -slack,) * 2
        case "<=":
            return (low <= slack,) * 2
        case "=":
            return ((low <= slack) & (high >= -slack),) * 2
    raise EvaluationError(f"claims.csv: {line['claim']} has the unknown relation {relation!r}.")


def _rank(line: dict, cells: list[ClaimedDifference]) -> int:
    """The place of the named column among all labels by gain, 1 for the largest."""
    gains = {cell.column: cell.margin for cell in cells}
    return 1 + sum(gain > gains.get(line["column"], np.nan) for gain in gains.values())


def _published_verdict(line: dict, cells: list[ClaimedDifference]) -> dict:
    margins = _margins(cells)
    if not cells or np.isnan(margins).any():
        return {"published": "no numbers", "published_margin": ""}
    meets = _meets(line, margins, margins)[0]
    holds = meets.all()
    if line["scope"] == "most":
        holds = _rank(line, cells) == 1
    elif line["scope"] == "count":
        holds = meets.sum() == int(line["amount"])
    words = "holds" if holds else "does not hold"
    return {"published": words, "published_margin": _margin_text(line, cells, meets)}


def _margin_text(line: dict, cells: list[ClaimedDifference], meets: np.ndarray) -> str:
    if line["scope"] == "most":
        return f"gain {_rank(line, cells)} of {len(cells)}"
    if line["scope"] == "count":
        return f"{meets.sum()} of {len(cells)}"
    margins = _margins(cells)
    return " to ".join(dict.fromkeys(f"{end:+.4f}" for end in (margins.min(), margins.max())))


def _intervals(differences: pd.DataFrame | None) -> dict[tuple, tuple[float, float]]:
    """(left, right, column, metric) -> the interval of left minus right, for both directions."""
    if differences is None:
        return {}
    if "column" not in differences:
        differences = differences.rename(columns={"group": "column"})
    found = {}
    for row in differences.to_dict("records"):
        cell = row["column"], row["metric"]
        found[row["left_row"], row["right_row"], *cell] = row["low"], row["high"]
        found[row["right_row"], row["left_row"], *cell] = -row["high"], -row["low"]
    return found


def _our_verdict(line: dict, cells: list[ClaimedDifference], intervals: dict) -> dict:
    margins = _margins(cells)
    if not cells or np.isnan(margins).any():
        return {"ours": "not run", "margin": "", "our_note": ""}
    unknown = (np.nan, np.nan)
    keys = [(line["left_row"], cell.right_row, cell.column, cell.metric) for cell in cells]
    low, high = np.array([intervals.get(key, unknown) for key in keys]).T
    bare = line["scope"] == "most" or bool(np.isnan(low).any())
    sure, possible = _meets(line, margins, margins) if bare else _meets(line, low, high)
    need = int(line["amount"]) if line["scope"] == "count" else len(cells)
    holds, may_hold = sure.sum() >= need, possible.sum() >= need
    if line["scope"] == "most":
        holds = may_hold = _rank(line, cells) == 1
    return {
        "ours": "holds" if holds else "within noise" if may_hold else "does not hold",
        "margin": _margin_text(line, cells, _meets(line, margins, margins)[0]),
        "our_note": "no interval: by sign only" if bare else "",
    }
