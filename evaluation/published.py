"""The published numbers: loaded as printed, audited, and set beside ours with computed verdicts.

    python -m evaluation.published audit            what in the printed tables does not fit
    python -m evaluation.published audit --json     the same for a program

`results/published/NAME.csv` holds one printed number a line, `claims.csv` one claimed comparison;
a paper that was added later brings its claims in `NAME.claims.csv`.
"""

import itertools
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluation import EvaluationError

FOLDER = Path(__file__).parents[1] / "results" / "published"
COLUMNS = ["table", "row", "column", "metric", "dataset", "split", "value", "note"]
CLAIM_COLUMNS = [
    *("paper", "claim", "table", "left_row", "right_row", "column", "metric"),
    *("relation", "amount", "scope", "quote", "line"),
]
CHECKED = ["published", "published_margin", "ours", "margin", "our_note"]
CELL = ["row", "column", "metric"]  # what a number is of, wherever it is printed
SIDE_BY_SIDE = ["table", *CELL, "published", "ours", "low", "high", "difference", "verdict", "note"]
QUOTED = "quoted"  # begins the note of a number that the paper took from another paper
RUNNING_TEXT = ("abstract", "text", "TL;DR")
AVERAGES = {"mean", "weighted mean", "leaf", "high-level", "W", "W normalised", "D", "N"}


def papers(folder: Path = FOLDER) -> list[str]:
    """The papers whose numbers are transcribed."""
    return sorted(path.stem for path in folder.glob("*.csv") if path not in _claim_files(folder))


def load(paper: str, folder: Path = FOLDER) -> pd.DataFrame:
    """A paper's printed numbers: `value` as printed (text), `number` as a float."""
    path = folder / f"{paper}.csv"
    if not path.is_file():
        known = ", ".join(papers(folder)) or "none"
        raise EvaluationError(f"No published numbers of {paper!r} in {folder}; known: {known}.")
    frame = _read(path, COLUMNS)
    number = pd.to_numeric(frame["value"], errors="coerce")
    if number.isna().any():
        line = int(number.isna().idxmax())
        value = frame["value"][line]
        raise EvaluationError(f"{path}, line {line + 2}: the value {value!r} is not a number.")
    return frame.assign(number=number)


def claims(paper: str, folder: Path = FOLDER) -> pd.DataFrame:
    """A paper's directional claims, one comparison a line (docs/published.md has the columns)."""
    frame = pd.concat([_read(path, CLAIM_COLUMNS) for path in _claim_files(folder)])
    return frame[frame["paper"] == paper].reset_index(drop=True)


def _claim_files(folder: Path) -> list[Path]:
    return [folder / "claims.csv", *sorted(folder.glob("*.claims.csv"))]


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in columns if name not in frame]:
        raise EvaluationError(f"{path} lacks the column(s) {', '.join(missing)}.")
    return frame


# Ours beside theirs


def verdict(published: float, low: float, high: float, not_comparable: str | None = None) -> str:
    """Where the published value lies relative to our interval."""
    if not_comparable:
        return f"not comparable ({not_comparable})"
    if np.isnan([published, low, high]).any():
        return "no interval"
    return "below" if published < low else "above" if published > high else "within"


def compare(
    published: pd.DataFrame, ours: pd.DataFrame, not_comparable: str | None = None
) -> pd.DataFrame:
    """Published and our values side by side, one cell a line, each with its verdict.

    `ours`: row, column (or group), metric, value and, where known, low, high, note, split.
    Numbers that running text repeats from a table are left out; rows that only we ran come
    with the table that prints their column.
    """
    ours = _our_values(ours)
    keys = [*CELL, "split"] if "split" in ours else CELL
    if "split" not in ours and (clash := _in_two_splits(published, ours)):
        raise EvaluationError(
            f"{clash} is published on two splits; give our values a `split` column, or pass only "
            "the published numbers of the split that was scored."
        )
    if ours.duplicated(keys).any():
        twice = ours.loc[ours.duplicated(keys), CELL].iloc[0].tolist()
        raise EvaluationError(f"Our values hold {' / '.join(twice)} twice; give each cell once.")
    theirs = _without_repeats(published).rename(columns={"number": "published", "value": "printed"})
    ours = ours.rename(columns={"value": "ours", "note": "our note"}).assign(ran=True)
    side = theirs.merge(ours, "left", keys)
    known = pd.MultiIndex.from_frame(theirs[keys])
    extra = ours[~pd.MultiIndex.from_frame(ours[keys]).isin(known)]
    tables = theirs.drop_duplicates(["column", "metric"]).set_index(["column", "metric"])["table"]
    at = tables.reindex(pd.MultiIndex.from_frame(extra[["column", "metric"]]))
    side = pd.concat([side, extra.assign(table=at.fillna("ours").to_numpy())])
    order = {name: place for place, name in enumerate([*theirs["table"].unique(), "ours"])}
    side = side.sort_values("table", key=lambda table: table.map(order), kind="stable")
    side["difference"] = side["ours"] - side["published"]
    side[["note", "our note"]] = side[["note", "our note"]].fillna("")
    side["verdict"] = [_cell_verdict(cell, not_comparable) for cell in side.to_dict("records")]
    side["note"] = (side["note"] + "; " + side["our note"]).str.strip("; ")
    return side[[*SIDE_BY_SIDE, "printed"]].reset_index(drop=True)


def _our_values(ours: pd.DataFrame) -> pd.DataFrame:
    if "column" not in ours and "group" in ours:
        ours = ours.rename(columns={"group": "column"})
    if missing := [name for name in [*CELL, "value"] if name not in ours]:
        raise EvaluationError(f"Our values lack the column(s) {', '.join(missing)}.")
    optional = {"low": np.nan, "high": np.nan, "note": ""}
    ours = ours.assign(**{name: fill for name, fill in optional.items() if name not in ours})
    return ours[[name for name in [*CELL, "split", "value", *optional] if name in ours]]


def _in_two_splits(published: pd.DataFrame, ours: pd.DataFrame) -> str:
    scored = published.merge(ours[CELL].drop_duplicates(), on=CELL)
    splits = scored.groupby(CELL)["split"].nunique()
    return " / ".join(splits.index[splits > 1][0]) if (splits > 1).any() else ""


def _without_repeats(published: pd.DataFrame) -> pd.DataFrame:
    """Without the numbers of running text that a table, or earlier text, prints too."""
    spoken = published["table"].isin(RUNNING_TEXT)
    tables_first = pd.concat([published[~spoken], published[spoken]])
    repeated = tables_first.duplicated([*CELL, "dataset", "split"])
    return tables_first[~repeated | ~spoken]


def _cell_verdict(cell: dict, not_comparable: str | None) -> str:
    if np.isnan(cell["published"]):
        return "not published"
    if cell["note"].startswith(QUOTED):
        return QUOTED
    if cell["ran"] is not True:
        return "not run"
    if np.isnan(cell["ours"]):
        return "undefined"
    return verdict(cell["published"], cell["low"], cell["high"], not_comparable)


# Claims

Cells = dict[tuple[str, str, str], float]  # (row, column, metric) -> value


class Comparison(NamedTuple):
    """One cell of one row set against the same cell of another."""

    column: str
    metric: str
    right_row: str
    margin: float  # left minus right; NaN where either is unknown


def check_claims(
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
    mine = {} if values is None else _cells(_our_values(values).rename(columns={"value": "number"}))
    intervals = _intervals(differences)
    checked = []
    for line in claims(paper, folder).to_dict("records"):
        checked.append({**line, **_published_verdict(line, comparisons(line, tables))})
        checked[-1] |= _our_verdict(line, _our_comparisons(line, tables, mine), intervals)
    return pd.DataFrame(checked, columns=[*CLAIM_COLUMNS, *CHECKED])


def is_average(column: str) -> bool:
    """Whether a column is a group's average rather than one label."""
    named = ("leaf given", "mean of", "weighted mean of")
    return column in AVERAGES or column.startswith(named)


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


def comparisons(line: dict, tables: dict[str, Cells]) -> list[Comparison]:
    """What a claim compares, in the numbers of the tables that it names."""
    return _compare_cells(line, named_cells(line, tables), _rows_against(line, tables))


def _our_comparisons(line: dict, tables: dict[str, Cells], mine: Cells) -> list[Comparison]:
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


def _compare_cells(line: dict, cells: Cells, against: list[str]) -> list[Comparison]:
    left, columns = line["left_row"], line["column"].split("|")
    if columns == ["*"] or line["scope"] == "most":
        labels = (column for row, column, _ in cells if row == left)
        columns = [column for column in dict.fromkeys(labels) if not is_average(column)]
    found = [
        Comparison(
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


def _margins(cells: list[Comparison]) -> np.ndarray:
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


def _rank(line: dict, cells: list[Comparison]) -> int:
    """The place of the named column among all labels by gain, 1 for the largest."""
    gains = {cell.column: cell.margin for cell in cells}
    return 1 + sum(gain > gains.get(line["column"], np.nan) for gain in gains.values())


def _published_verdict(line: dict, cells: list[Comparison]) -> dict:
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


def _margin_text(line: dict, cells: list[Comparison], meets: np.ndarray) -> str:
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


def _our_verdict(line: dict, cells: list[Comparison], intervals: dict) -> dict:
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


def main(arguments: list[str] | None = None) -> int:
    import argparse

    from evaluation import audit

    parser = argparse.ArgumentParser(
        "python -m evaluation.published", description=__doc__.partition("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("audit", help="what in the printed tables does not fit")
    command.add_argument("papers", nargs="*", metavar="PAPER", help="default: all of them")
    command.add_argument("--folder", type=Path, default=FOLDER, help="of the published CSV files")
    command.add_argument("--json", action="store_true", help="for a program, not for people")
    options = parser.parse_args(arguments)
    try:
        result = audit.report(options.papers, options.folder)
    except EvaluationError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    print(audit.as_json(result) if options.json else audit.as_text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
