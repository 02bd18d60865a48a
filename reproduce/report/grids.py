"""Arrange long results as tables of the page: rows, columns and cells in the printed shape."""

import itertools
from collections import Counter

import pandas as pd

from evaluation import published, tables
from evaluation.published import verdict_kind

# verdict -> symbol and words; symbols differ in shape, for readers who do not see colours
VERDICTS = {
    "within": ("●", "within"),
    "below": ("▼", "below"),
    "above": ("▲", "above"),
    published.EQUAL: ("=", "equal"),
    published.DIFFERS: ("Δ", "same images, differs"),
    published.COMPATIBLE: ("≈", "compatible with other patients"),
    "not comparable": ("◇", "not comparable"),
    "misprint": ("≠", "misprint"),
    "no interval": ("○", "no interval"),
    "undefined": ("∅", "undefined"),
    "not published": ("", "ours only"),
    "quoted": ("”", "quoted"),
    "released": ("", "released by others, not ours"),
    "not run": ("–", "not run"),
    "failed": ("✗", "failed"),
}
WITHOUT_NUMBER = ("quoted", "not run", "failed")  # cells that have no number of ours
AGAINST_PRINTED = ("within", "below", "above", "not comparable")
RESCORED = (published.EQUAL, published.DIFFERS, published.COMPATIBLE)
COUNTED = (*AGAINST_PRINTED, *RESCORED, published.MISPRINT, "no interval", "undefined", "failed")


def verdict_counts(table: pd.DataFrame | None) -> list[tuple[str, int]]:
    """Count the printed cells per verdict, for the verdicts that a run can earn."""
    if table is None:
        return []
    counts = Counter(map(verdict_kind, table["verdict"]))
    return [(verdict, counts[verdict]) for verdict in COUNTED if counts[verdict]]


def rows_run(table: pd.DataFrame | None) -> tuple[int, int]:
    """Count the paper's own rows that have a number of ours, and all of the paper's own rows."""
    if table is None:
        return 0, 0
    own = table[~table["verdict"].map(verdict_kind).isin(["not published", "quoted", "released"])]
    ran = own[~own["verdict"].map(verdict_kind).isin(["not run", "failed"])]
    return ran["row"].nunique(), own["row"].nunique()


def printed_tables(
    side_by_side: pd.DataFrame, numbers: itertools.count, links: dict | None = None
) -> list[dict]:
    """Return each printed table with our numbers in its cells."""
    misprint = side_by_side["verdict"] == published.MISPRINT
    theirs = side_by_side["published"].mask(misprint)
    side_by_side = side_by_side.assign(
        note=side_by_side.get("note", ""),
        runs=side_by_side.get("runs", ""),
        published=theirs,
        difference=side_by_side["ours"] - theirs,
    )
    grids = []
    for name, cells in side_by_side.groupby("table", sort=False):
        shown = grid(cells, numbers, links, turned=None)
        shown["title"] = "Our results for labels and groups not printed" if name == "ours" else name
        shown["notes"] = tables.footnotes(cells)
        grids.append(shown)
    return grids


def label_tables(
    values: pd.DataFrame, numbers: itertools.count, links: dict | None = None
) -> list[dict]:
    """Return one table per metric with every label and group of every row."""
    return [
        grid(as_cells(cells), numbers, links) | {"title": metric, "notes": []}
        for metric, cells in values.groupby("metric", sort=False)
    ]


def as_cells(values: pd.DataFrame) -> pd.DataFrame:
    """Return our values as cells that have no printed value."""
    undefined = values["value"].isna()
    return values.rename(columns={"group": "column", "value": "ours"}).assign(
        printed="",
        published=float("nan"),
        difference=float("nan"),
        runs=values.get("runs", ""),
        verdict=undefined.map({True: "undefined", False: "not published"}),
    )


def grid(
    cells: pd.DataFrame,
    numbers: itertools.count,
    links: dict | None = None,
    turned: bool | None = True,
) -> dict:
    """Arrange cells in rows and columns.

    `turned` puts the methods across and the labels down; None does so only for many columns.
    """
    several_metrics = cells["metric"].nunique() > 1
    metric = " " + cells["metric"] if several_metrics else ""
    cells = cells.assign(heading=cells["column"] + metric)
    rows = list(cells["row"].unique())
    fullest_row = cells["row"].value_counts(sort=False).idxmax()  # has the columns in their order
    fullest = cells.loc[cells["row"] == fullest_row, "heading"]
    columns = list(dict.fromkeys([*fullest, *cells["heading"]]))
    decimals = cells["printed"].fillna("").map(published.decimals).max() or tables.DECIMALS
    # bars compare methods on one label or group; those of a single method compare its labels
    scaled_by = "heading" if len(rows) > 1 else "metric"
    scales = {name: _scale(group) for name, group in cells.groupby(scaled_by)}
    if turned is None:
        turned = len(columns) > tables.MANY_COLUMNS
    by_position = {}
    for record in cells.to_dict("records"):
        row, column = record["row"], record["heading"]
        position = (column, row) if turned else (row, column)
        by_position[position] = _cell(record, decimals, scales[record[scaled_by]], links or {})
    down, across = (columns, rows) if turned else (rows, columns)
    return {
        "id": f"t{next(numbers)}",
        "columns": across,
        "lines": [(name, [by_position.get((name, other)) for other in across]) for name in down],
        "row_verdicts": _row_verdicts(cells),
        "corner": "Label" if turned else "Method",
        "metric": "" if several_metrics else str(cells["metric"].iloc[0]),
        "compared": bool(cells["verdict"].map(verdict_kind).isin(AGAINST_PRINTED).any()),
    }


def _row_verdicts(cells: pd.DataFrame) -> dict[str, str]:
    """Return the verdict of each row whose cells share one that is shown once, beside its name."""
    shown_once = [*WITHOUT_NUMBER, "released"]
    if cells["published"].notna().any():
        shown_once.append("not published")
    row_verdicts = {}
    for row, verdicts in cells.groupby("row")["verdict"].unique().items():
        kind = verdict_kind(verdicts[0])
        if len(verdicts) == 1 and kind in shown_once:
            row_verdicts[row] = verdicts[0] if kind == "failed" else VERDICTS[kind][1]
    return row_verdicts


def _scale(cells: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the scale on which the bars of these cells are drawn."""
    ran = cells[~cells["verdict"].map(verdict_kind).isin(WITHOUT_NUMBER)]
    known = ran[["published", "ours", "low", "high"]].stack()
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)


def _cell(cell: dict, decimals: int, scale: tuple[float, float], links: dict) -> dict:
    """Return a cell's texts, its bar and the runs that its number links to."""
    verdict = verdict_kind(cell["verdict"])
    printed = cell["printed"] if isinstance(cell["printed"], str) else ""
    if printed:
        decimals = published.decimals(printed)
    low, high, ours, difference = cell["low"], cell["high"], cell["ours"], cell["difference"]
    shown = {
        "verdict": verdict,
        "full": cell["verdict"],
        "printed": tables.as_read(printed, cell["note"]),
        "data": [printed, *(_exact(value) for value in (ours, low, high))],
        "ours": "" if verdict in WITHOUT_NUMBER else tables.number(ours, decimals),
        "interval": "",
        "difference": "",
        "bar": None,
        "runs": [links[path] for path in str(cell["runs"]).split() if path in links],
    }
    if verdict in WITHOUT_NUMBER or pd.isna(ours):
        return shown
    if not (pd.isna(low) or pd.isna(high)):
        shown["interval"] = f"[{tables.number(low, decimals)}, {tables.number(high, decimals)}]"
        shown["bar"] = _bar(cell, scale)
    if not pd.isna(difference):
        sign = "−" if difference < 0 else "+"
        shown["difference"] = sign + tables.number(abs(difference), decimals)
    return shown


def _exact(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.6g}"


def _bar(cell: dict, scale: tuple[float, float]) -> dict:
    """Return the positions of the interval, our value and the printed one, in percent."""
    start, end = scale
    percent_per_unit = 100 / ((end - start) or 1.0)

    def position(value: float) -> str:
        return f"{percent_per_unit * (value - start):.1f}"

    return {
        "low": position(cell["low"]),
        "width": f"{percent_per_unit * (cell['high'] - cell['low']):.1f}",
        "ours": position(cell["ours"]),
        "printed": "" if pd.isna(cell["published"]) else position(cell["published"]),
    }
