"""Tables of the page from long results: rows, columns and cells in the printed shape."""

import itertools
from collections import Counter

import pandas as pd

from evaluation import tables

# verdict -> symbol and words; symbols differ in shape, for those who see no colours
VERDICTS = {
    "within": ("●", "within"),
    "below": ("▼", "below"),
    "above": ("▲", "above"),
    "not comparable": ("◇", "not comparable"),
    "no interval": ("○", "no interval"),
    "undefined": ("∅", "undefined"),
    "not published": ("", "ours alone"),
    "quoted": ("”", "quoted"),
    "released": ("", "released by others, not ours"),
    "not run": ("–", "not run"),
    "failed": ("✗", "failed"),
}
WITHOUT_NUMBER = ("quoted", "not run", "failed")  # cells in which no number of ours can stand
AGAINST_PRINTED = ("within", "below", "above", "not comparable")
COUNTED = (*AGAINST_PRINTED, "no interval", "undefined", "failed")


def kind(verdict: str) -> str:
    """A verdict without its reason: `not comparable (drawn phantoms)`, `failed: NaN in epoch 2`."""
    return "failed" if verdict.startswith("failed") else verdict.partition(" (")[0]


def verdict_counts(table: pd.DataFrame | None) -> list[tuple[str, int]]:
    """How many printed cells have each verdict that a run can earn."""
    if table is None:
        return []
    counts = Counter(map(kind, table["verdict"]))
    return [(verdict, counts[verdict]) for verdict in COUNTED if counts[verdict]]


def rows_run(table: pd.DataFrame | None) -> tuple[int, int]:
    """How many of the rows that the paper prints as its own have a number of ours."""
    if table is None:
        return 0, 0
    own = table[~table["verdict"].map(kind).isin(["not published", "quoted", "released"])]
    ran = own[~own["verdict"].map(kind).isin(["not run", "failed"])]
    return len({*ran["row"]}), len({*own["row"]})


def printed_tables(side: pd.DataFrame, numbers: itertools.count, links=None) -> list[dict]:
    """Each printed table with ours in its cells; many columns are turned into rows."""
    side = side.assign(
        note=side.get("note", ""),
        runs=side.get("runs", ""),
        difference=side["ours"] - side["published"],
    )
    made = []
    for name, cells in side.groupby("table", sort=False):
        own = name == "ours"  # labels and groups that the paper prints nowhere
        title = "Ours, not in a printed table" if own else name
        made.append(
            grid(cells, numbers, links or {}) | {"title": title, "notes": tables.footnotes(cells)}
        )
    return made


def label_tables(values: pd.DataFrame, numbers: itertools.count, links=None) -> list[dict]:
    """Every label and group of every row, a table for each metric."""
    return [
        grid(as_cells(cells), numbers, links or {}, turned=True) | {"title": metric, "notes": []}
        for metric, cells in values.groupby("metric", sort=False)
    ]


def as_cells(values: pd.DataFrame) -> pd.DataFrame:
    cells = values.rename(columns={"group": "column", "value": "ours"})
    runs = cells.get("runs", "")
    return cells.assign(
        printed="", published=float("nan"), difference=float("nan"), runs=runs
    ).assign(verdict=cells["ours"].isna().map({True: "undefined", False: "not published"}))


def grid(cells: pd.DataFrame, numbers: itertools.count, links: dict, turned=None) -> dict:
    """Rows x columns of cells; `turned` puts the methods across and the labels down."""
    several = cells["metric"].nunique() > 1
    cells = cells.assign(
        heading=cells["column"] + (" " + cells["metric"] if several else ""),
    )
    rows = list(cells["row"].unique())
    fullest = cells[cells["row"] == cells["row"].value_counts(sort=False).idxmax()]
    columns = list(dict.fromkeys([*fullest["heading"], *cells["heading"]]))
    decimals = cells["printed"].fillna("").map(_decimals).max() or tables.DECIMALS
    # bars compare methods on one label or group; a lone method's compare its labels
    scale_of = "heading" if len(rows) > 1 else "metric"
    scales = {name: _scale(alike) for name, alike in cells.groupby(scale_of)}
    records = cells.to_dict("records")
    by_row_and_column = {
        (record["row"], record["heading"]): _cell(record, decimals, scales[record[scale_of]], links)
        for record in records
    }
    if turned is None:
        turned = len(columns) > tables.MANY_COLUMNS
    down, over = (columns, rows) if turned else (rows, columns)
    alike = [*WITHOUT_NUMBER, "released"]
    if cells["published"].notna().any():
        alike.append("not published")
    row_verdicts = {
        row: verdicts[0] if kind(verdicts[0]) == "failed" else VERDICTS[kind(verdicts[0])][1]
        for row, verdicts in cells.groupby("row")["verdict"].unique().items()
        if len(verdicts) == 1 and kind(verdicts[0]) in alike
    }
    lines = [
        (
            name,
            [by_row_and_column.get((other, name) if turned else (name, other)) for other in over],
        )
        for name in down
    ]
    return {
        "id": f"t{next(numbers)}",
        "columns": over,
        "lines": lines,
        "row_verdicts": row_verdicts,  # of rows whose cells all have the same
        "corner": "Label" if turned else "Method",
        "metric": "" if several else str(cells["metric"].iloc[0]),
        "compared": bool(cells["verdict"].map(kind).isin(AGAINST_PRINTED).any()),
    }


def _decimals(printed: str) -> int:
    return len(printed.partition(".")[2])


def _scale(cells: pd.DataFrame) -> tuple[float, float]:
    """What the bars of these cells reach from and to."""
    ran = cells[~cells["verdict"].map(kind).isin(WITHOUT_NUMBER)]
    known = ran[["published", "ours", "low", "high"]].stack()
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)


def _cell(cell: dict, decimals: int, scale: tuple[float, float], links: dict) -> dict:
    verdict = kind(cell["verdict"])
    printed = cell["printed"] if isinstance(cell["printed"], str) else ""
    if printed:
        decimals = _decimals(printed)
    low, high, ours = cell["low"], cell["high"], cell["ours"]
    interval = not (pd.isna(low) or pd.isna(high))
    shown = {
        "verdict": verdict,
        "full": cell["verdict"],
        "printed": printed.replace("0.", ".", 1) if printed.startswith("0.") else printed,
        "data": [printed, *(_exact(value) for value in (ours, low, high))],
        "ours": "" if verdict in WITHOUT_NUMBER else tables.number(ours, decimals),
        "interval": "",
        "difference": "",
        "bar": None,
        "runs": [links[path] for path in str(cell["runs"]).split() if path in links],
    }
    if verdict in WITHOUT_NUMBER or pd.isna(ours):
        return shown
    if interval:
        ends = tables.number(low, decimals), tables.number(high, decimals)
        shown["interval"] = f"[{ends[0]}, {ends[1]}]"
        shown["bar"] = _bar(cell, scale)
    if not pd.isna(cell["difference"]):
        text = tables.number(abs(cell["difference"]), decimals)
        shown["difference"] = ("−" if cell["difference"] < 0 else "+") + text
    return shown


def _exact(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.6g}"


def _bar(cell: dict, scale: tuple[float, float]) -> dict:
    """Where the interval, our value and the printed one stand, in percent of the scale."""
    start, span = scale[0], (scale[1] - scale[0]) or 1.0

    def percent(value: float) -> str:
        return f"{100 * (value - start) / span:.1f}"

    return {
        "low": percent(cell["low"]),
        "width": f"{100 * (cell['high'] - cell['low']) / span:.1f}",
        "ours": percent(cell["ours"]),
        "printed": "" if pd.isna(cell["published"]) else percent(cell["published"]),
    }
