"""Long results as tables in the printed shape: rows, columns and cells, ready to be drawn."""

import itertools
from collections import Counter

import pandas as pd

from evaluation import published, tables
from reproduce.report import results_folder

# verdict -> symbol and words; symbols differ in shape, so colour is never alone in saying it
VERDICTS = {
    "within": ("●", "within"),
    "below": ("▼", "below"),
    "above": ("▲", "above"),
    "not comparable": ("◇", "not comparable"),
    "no interval": ("○", "no interval"),
    "undefined": ("∅", "undefined"),
    "not published": ("", "ours alone"),
    "quoted": ("”", "quoted"),
    "not run": ("–", "not run"),
}
IDLE = ("quoted", "not run")
COUNTED = ("within", "below", "above", "not comparable", "no interval", "undefined")


def kind(verdict: str) -> str:
    """A verdict without its reason."""
    return verdict.partition(" (")[0]


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
    own = table[~table["verdict"].map(kind).isin(["not published", "quoted"])]
    ran = own[own["verdict"] != "not run"]
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
        grid = _grid(cells, numbers, links or {})
        made.append({**grid, "title": title, "notes": tables.footnotes(cells)})
    return made


def label_tables(values: pd.DataFrame, numbers: itertools.count, links=None) -> list[dict]:
    """Every label and group of every row, a table for each metric."""
    return [
        _grid(_as_cells(cells), numbers, links or {}, turned=True) | {"title": metric, "notes": []}
        for metric, cells in values.groupby("metric", sort=False)
    ]


def _as_cells(values: pd.DataFrame) -> pd.DataFrame:
    cells = values.rename(columns={"group": "column", "value": "ours"})
    runs = cells.get("runs", "")
    return cells.assign(
        printed="", published=float("nan"), difference=float("nan"), runs=runs
    ).assign(verdict=cells["ours"].isna().map({True: "undefined", False: "not published"}))


def across(sets: list[results_folder.ResultSet], numbers: itertools.count) -> list[dict]:
    """The labels that several papers were scored on, on one dataset, method beside method."""
    made = []
    named = [
        each for each in sets if each.values is not None and each.name != results_folder.RELEASED
    ]
    for name in dict.fromkeys(each.name for each in named):
        same = [each for each in named if each.name == name]
        frames = []
        for each in same:
            labels = each.values[~each.values["group"].map(published.is_average)]
            links = {"row": each.paper + " · " + labels["row"], "paper": each.paper}
            frames.append(labels[labels["metric"] == "AUC"].assign(**links, runs=""))
        cells = pd.concat(frames)
        shared = cells.groupby("group")["paper"].nunique()
        cells = cells[cells["group"].isin(shared[shared > 1].index)]
        digests = {results_folder.test_images(run) for each in same for run in each.finished[:1]}
        made.append(
            {
                "title": same[0].title,
                "phantom": same[0].phantom,
                "papers": [each.paper for each in same],
                "same_images": len(digests) == 1 and "" not in digests,
                "grid": _grid(_as_cells(cells), numbers, {}, turned=True)
                | {"title": f"{same[0].title}: AUC of every shared label", "notes": []}
                if len(cells)
                else None,
            }
        )
    return made


def _grid(cells: pd.DataFrame, numbers: itertools.count, links: dict, turned=None) -> dict:
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
    by_place = {
        (record["row"], record["heading"]): _cell(record, decimals, scales[record[scale_of]], links)
        for record in records
    }
    if turned is None:
        turned = len(columns) > tables.MANY_COLUMNS
    down, over = (columns, rows) if turned else (rows, columns)
    verdicts = cells.groupby("row")["verdict"].agg(set)
    alone = [*IDLE, "not published"] if cells["published"].notna().any() else IDLE
    said = {
        row: VERDICTS[words.pop()][1]
        for row, words in verdicts.items()
        if words <= {*alone} and len(words) == 1
    }
    lines = [
        (name, [by_place.get((other, name) if turned else (name, other)) for other in over])
        for name in down
    ]
    return {
        "id": f"t{next(numbers)}",
        "columns": over,
        "lines": lines,
        "said": said,  # rows that say once what all of their cells would
        "corner": "Label" if turned else "Method",
        "metric": "" if several else str(cells["metric"].iloc[0]),
        "compared": bool(cells["verdict"].map(kind).isin(COUNTED[:4]).any()),
    }


def _decimals(printed: str) -> int:
    return len(printed.partition(".")[2])


def _scale(cells: pd.DataFrame) -> tuple[float, float]:
    """What the bars of these cells reach from and to."""
    ran = cells[~cells["verdict"].isin(IDLE)]
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
        "ours": "" if verdict in IDLE else tables.number(ours, decimals),
        "interval": "",
        "difference": "",
        "bar": None,
        "runs": [links[path] for path in str(cell["runs"]).split() if path in links],
    }
    if verdict in IDLE or pd.isna(ours):
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

    def place(value: float) -> str:
        return f"{100 * (value - start) / span:.1f}"

    return {
        "low": place(cell["low"]),
        "width": f"{100 * (cell['high'] - cell['low']) / span:.1f}",
        "ours": place(cell["ours"]),
        "printed": "" if pd.isna(cell["published"]) else place(cell["published"]),
    }
