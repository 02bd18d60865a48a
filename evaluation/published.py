"""The published numbers: loaded as printed, audited, and set beside ours with computed verdicts.

    python -m evaluation.published audit            what in the printed tables does not fit
    python -m evaluation.published audit --json     the same for a program

`results/published/NAME.csv` holds one printed number a line, `claims.csv` one claimed comparison.
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import EvaluationError

FOLDER = Path(__file__).parents[1] / "results" / "published"
CELL = ["row", "column", "metric"]  # what a number is of, wherever it is printed
SIDE_BY_SIDE = ["table", *CELL, "published", "ours", "low", "high", "difference", "verdict", "note"]
QUOTED = "quoted"  # begins the note of a number that the paper took from another paper
RUNNING_TEXT = ("abstract", "text", "TL;DR")
AVERAGES = {"mean", "weighted mean", "leaf", "high-level", "W", "W normalised", "D", "N"}


def papers(folder: Path = FOLDER) -> list[str]:
    """The papers whose numbers are transcribed."""
    return sorted(path.stem for path in folder.glob("*.csv") if path.stem != "claims")


def load(paper: str, folder: Path = FOLDER) -> pd.DataFrame:
    """A paper's printed numbers: `value` as printed (text), `number` as a float."""
    path = folder / f"{paper}.csv"
    if not path.is_file():
        known = ", ".join(papers(folder)) or "none"
        raise EvaluationError(f"No published numbers of {paper!r} in {folder}; known: {known}.")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return frame.assign(number=pd.to_numeric(frame["value"]))


def claims(paper: str, folder: Path = FOLDER) -> pd.DataFrame:
    """A paper's directional claims, one comparison a line (docs/published.md has the columns)."""
    frame = pd.read_csv(folder / "claims.csv", dtype=str, keep_default_na=False)
    return frame[frame["paper"] == paper].reset_index(drop=True)


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
    return tables_first[~(repeated & tables_first["table"].isin(RUNNING_TEXT))]


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


def check_claims(
    paper: str,
    values: pd.DataFrame | None = None,
    differences: pd.DataFrame | None = None,
    folder: Path = FOLDER,
) -> pd.DataFrame:
    """Each claimed comparison with what the paper's own numbers say of it, and what ours do.

    `values`: row, column (or group), metric, value. `differences`: left_row, right_row, column,
    metric, low, high: the paired-bootstrap interval of left minus right.
    `published` is "holds", "does not hold" or "no numbers"; `ours` is "holds", "does not hold",
    "within noise" (the interval contains 0) or "not run"; margins are left minus right.
    """
    printed = load(paper, folder)
    mine = None if values is None else _our_values(values).set_index(CELL)["value"]
    intervals = _intervals(differences)
    checked = []
    for line in claims(paper, folder).to_dict("records"):
        theirs = _comparisons(line, _cells_of(line, printed), _rows_against(line, printed))
        checked.append({**line, **_published_verdict(line, theirs)})
        against = [row for row in _rows_against(line, printed) if row not in _quoted(printed)]
        ran = mine is not None and {*against} <= {*mine.index.unique("row")}
        ours = _comparisons(line, mine, against if ran else [])
        checked[-1] |= _our_verdict(line, ours, intervals)
    return pd.DataFrame(checked)


def _quoted(printed: pd.DataFrame) -> set[str]:
    return {*printed.loc[printed["note"].str.startswith(QUOTED), "row"]}


def _cells_of(line: dict, printed: pd.DataFrame) -> pd.Series:
    """The numbers of the tables that a claim names; where they differ, of the first."""
    cells = pd.concat([printed[printed["table"] == name] for name in line["table"].split("|")])
    return cells.drop_duplicates(CELL).set_index(CELL)["number"]


def _rows_against(line: dict, printed: pd.DataFrame) -> list[str]:
    """The rows that a claim compares with: named, `quoted`, or `*` for every other."""
    named = line["right_row"]
    if named not in ("*", QUOTED):
        return named.split("|")
    rows = printed.loc[printed["table"].isin(line["table"].split("|")), "row"].unique()
    return [
        row for row in rows if row != line["left_row"] and (named == "*" or row in _quoted(printed))
    ]


def is_average(column: str) -> bool:
    """Whether a column is a group's average rather than one label."""
    return column in AVERAGES or column.startswith("leaf given")


def _comparisons(line: dict, cells: pd.Series | None, against: list[str]) -> pd.DataFrame:
    """The cells that a claim compares, with the margin of left over right; NaN where unknown."""
    left, named = line["left_row"], line["column"].split("|")
    known = {} if cells is None else cells.to_dict()
    labels = [
        column
        for column in dict.fromkeys(column for row, column, _ in known if row == left)
        if not is_average(column)
    ]
    columns = labels if named == ["*"] or line["scope"] == "most" else named
    pairs = itertools.product(columns, line["metric"].split("|"), against)
    margins = pd.DataFrame(
        [
            (
                column,
                metric,
                right,
                known.get((left, column, metric), np.nan),
                known.get((right, column, metric), np.nan),
            )
            for column, metric, right in pairs
        ],
        columns=["column", "metric", "right_row", "left", "right"],
    )
    margins["margin"] = (margins["left"] - margins["right"]).round(9)
    open_ended = named == ["*"] or line["right_row"] in ("*", QUOTED)
    return margins.dropna() if open_ended else margins  # an N/A does not spoil "every other"


def _meets(line: dict, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the relation surely holds for a margin between low and high, and where it may."""
    slack = (
        float(line["amount"]) if line["amount"] and line["relation"] in ("=", "<=", ">=") else 0.0
    )
    match line["relation"]:
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
    raise EvaluationError(
        f"claims.csv: {line['claim']} has an unknown relation {line['relation']!r}"
    )


def _most(line: dict, margins: pd.DataFrame) -> bool:
    """Whether the named column gains more than any other label."""
    gain = margins.set_index("column")["margin"]
    return bool(gain[line["column"]] > gain.drop(line["column"]).max())


def _published_verdict(line: dict, cells: pd.DataFrame) -> dict:
    margin = cells["margin"]
    if cells.empty or margin.isna().any():
        return {"published": "no numbers", "published_margin": ""}
    meets = _meets(line, margin, margin)[0]
    holds = meets.all()
    if line["scope"] == "most":
        holds = _most(line, cells)
    elif line["scope"] == "count":
        holds = meets.sum() == int(line["amount"])
    return {
        "published": "holds" if holds else "does not hold",
        "published_margin": _margin_text(line, cells, meets),
    }


def _margin_text(line: dict, cells: pd.DataFrame, meets: pd.Series) -> str:
    margin = cells["margin"]
    if line["scope"] == "most":
        rank = cells.set_index("column")["margin"].rank(ascending=False)[line["column"]]
        return f"gain {rank:.0f} of {len(cells)}"
    if line["scope"] == "count":
        return f"{meets.sum()} of {len(cells)}"
    ends = dict.fromkeys(f"{end:+.4g}" for end in (margin.min(), margin.max()))
    return " to ".join(ends)


def _intervals(differences: pd.DataFrame | None) -> dict[tuple, tuple[float, float]]:
    if differences is None:
        return {}
    if "column" not in differences and "group" in differences:
        differences = differences.rename(columns={"group": "column"})
    found = {}
    for row in differences.to_dict("records"):
        cell = row["column"], row["metric"]
        found[row["left_row"], row["right_row"], *cell] = row["low"], row["high"]
        found[row["right_row"], row["left_row"], *cell] = -row["high"], -row["low"]
    return found


def _our_verdict(line: dict, cells: pd.DataFrame, intervals: dict) -> dict:
    margin = cells["margin"]
    if cells.empty or margin.isna().any():
        return {"ours": "not run", "margin": "", "our_note": ""}
    if line["scope"] == "most":
        words, sure = ("holds" if _most(line, cells) else "does not hold"), margin > 0
        return {"ours": words, "margin": _margin_text(line, cells, sure), "our_note": "no interval"}
    unknown = (np.nan, np.nan)
    keys = zip(cells["right_row"], cells["column"], cells["metric"], strict=True)
    low, high = np.array([intervals.get((line["left_row"], *key), unknown) for key in keys]).T
    bare = bool(np.isnan(low).any())
    sure, possible = _meets(line, margin, margin) if bare else _meets(line, low, high)
    need = int(line["amount"]) if line["scope"] == "count" else len(cells)
    words = "within noise" if possible.sum() >= need else "does not hold"
    return {
        "ours": "holds" if sure.sum() >= need else words,
        "margin": _margin_text(line, cells, _meets(line, margin, margin)[0]),
        "our_note": "no interval: sign only" if bare else "",
    }
