"""Tables of our numbers beside the published ones, as Markdown, terminal text or CSV."""

import itertools
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import safefiles
from evaluation.published import FAILED, RELEASED, verdict_kind

WIDTH = 100
MANY_COLUMNS = 8  # a table with more (Mo's 14 labels) is printed with its columns down the page
HEADING = 9  # a heading is wrapped to the width of its column, but not below this
DECIMALS = 3  # of numbers without a printed counterpart
MISSING = "n/a"
NOT_RUN = ("not run", "quoted")
LONGEST_REASON = 40  # characters of "failed: REASON" that fit beside the name of a row
NOT_COMPARABLE = "not comparable ("
HOW_CLAIMS_ARE_JUDGED = (
    "Ours: a claim *holds* where it is true in the whole 95 % interval of the difference between "
    "our rows, *does not hold* where it is true nowhere in it, and is *within noise* where it is "
    "true in a part of it. Their numbers are judged as they are printed."
)


def number(value: float, decimals: int = DECIMALS) -> str:
    """A value to so many decimals, without a leading zero: `.873`; NaN is n/a."""
    if pd.isna(value):
        return MISSING
    text = f"{value:.{decimals}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def interval(value: float, low: float, high: float, decimals: int = DECIMALS) -> str:
    """`.873 [.861, .884]`; without the brackets where no interval is known."""
    if pd.isna(low) or pd.isna(high):
        return number(value, decimals)
    return f"{number(value, decimals)} [{number(low, decimals)}, {number(high, decimals)}]"


def as_printed(side_by_side: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Each printed table in the paper's shape: under a published row, ours and the verdicts."""
    tables = side_by_side.groupby("table", sort=False)
    return {_title(name, cells): _printed(cells) for name, cells in tables}


def _title(name: str, cells: pd.DataFrame) -> str:
    metrics = cells["metric"].unique()
    return name if len(metrics) > 1 else f"{name} ({metrics[0]})"


def _printed(cells: pd.DataFrame) -> pd.DataFrame:
    decimals = cells["printed"].dropna().map(_decimals).max()
    decimals = DECIMALS if pd.isna(decimals) else decimals  # of our cells that were not printed
    cells = cells.assign(
        heading=cells["column"] + (" " + cells["metric"] if cells["metric"].nunique() > 1 else ""),
        printed=[_as_printed(value) for value in cells["printed"]],
        ours=[_our_cell(cell, decimals) for cell in cells.to_dict("records")],
        verdict=cells["verdict"].map(verdict_kind),  # the reason stands above the table
        failed=cells["verdict"].where(cells["verdict"].str.startswith(FAILED), ""),
    )
    rows = list(cells["row"].unique())
    fullest = cells[cells["row"] == cells["row"].value_counts(sort=False).idxmax()]
    columns = list(dict.fromkeys([*fullest["heading"], *cells["heading"]]))
    printed, ours, verdicts = (
        cells.pivot(index="row", columns="heading", values=values).reindex(rows, columns=columns)
        for values in ("printed", "ours", "verdict")
    )
    reasons = cells.groupby("row")["failed"].max()
    lines = {}
    for row in rows:
        words = set(verdicts.loc[row].dropna())
        ran = not words <= {*NOT_RUN}
        if printed.loc[row].fillna("").ne("").any():
            shown = (
                "published" if ran else "quoted" if words == {"quoted"} else "published, not run"
            )
            lines[row, shown] = printed.loc[row]
        told = words - {"undefined"}  # those cells say so themselves: n/a
        if told == {"failed"}:
            lines[row, f"ours, {_shortened(reasons[row])}"] = ours.loc[row]
        elif told == {RELEASED}:
            lines[row, "not ours"] = ours.loc[row]
        elif told in ({"not comparable"}, {"not published"}):
            lines[row, f"ours, {told.pop()}"] = ours.loc[row]
        elif ran:
            lines[row, "ours"] = ours.loc[row]
            lines[row, "verdict"] = verdicts.loc[row]
    wide = pd.DataFrame(lines, index=pd.Index(columns)).fillna("")
    return wide if len(columns) > MANY_COLUMNS else wide.T


def _as_printed(value: str) -> str:
    return "" if pd.isna(value) else value.replace("0.", ".", 1) if value[:2] == "0." else value


def _shortened(reason: str) -> str:
    short = len(reason) <= LONGEST_REASON
    return reason if short else reason[: LONGEST_REASON - 1].rstrip() + "…"


def _our_cell(cell: dict, decimals: int) -> str:
    if cell["verdict"] in NOT_RUN or cell["verdict"].startswith(FAILED):
        return ""
    if not pd.isna(cell["printed"]):
        decimals = _decimals(cell["printed"])
    return interval(cell["ours"], cell["low"], cell["high"], decimals)


def _decimals(printed: str) -> int:
    return len(printed.partition(".")[2])


def to_markdown(table: pd.DataFrame) -> str:
    """A side-by-side frame table by table under its headings; any other frame as it is."""
    if not _is_side_by_side(table):
        return "\n".join(_markdown_lines(table)) + "\n"
    parts = [f"**{warning}**\n" for warning in warnings(table)]
    for name, printed in as_printed(table).items():
        parts += [f"### {name}\n", "\n".join(_markdown_lines(printed)) + "\n"]
    parts += (
        ["\n".join(f"- {line}" for line in footnotes(table)) + "\n"] if footnotes(table) else []
    )
    return "\n".join(parts)


def titled(title: str, text: str) -> str:
    """A text under its title, for a terminal."""
    return f"{title}\n{'-' * len(title)}\n{text}"


def to_text(table: pd.DataFrame, width: int = WIDTH) -> str:
    """The same for a terminal: aligned, wide tables continued in further blocks of columns."""
    if not _is_side_by_side(table):
        return "\n\n".join(_text_blocks(table, width)) + "\n"
    parts = [f"*** {warning} ***" for warning in warnings(table)]
    for name, printed in as_printed(table).items():
        parts += [titled(name, "\n\n".join(_text_blocks(printed, width)))]
    notes = "\n".join(textwrap.fill(line, width) for line in footnotes(table))
    return "\n\n".join([*parts, notes]).rstrip() + "\n"


def to_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """The frame as CSV, whole or not at all."""
    return _write(path, table.to_csv(index=False))


def write(table: pd.DataFrame, folder: str | Path, stem: str) -> tuple[Path, Path]:
    """`folder/stem.csv` for programs and `folder/stem.md` for people."""
    folder = Path(folder)
    return (
        to_csv(table, folder / f"{stem}.csv"),
        _write(folder / f"{stem}.md", to_markdown(table)),
    )


def warnings(side_by_side: pd.DataFrame) -> list[str]:
    """Why our numbers must not be read against the published ones, once for each reason."""
    verdicts = side_by_side["verdict"]
    reasons = verdicts[verdicts.str.startswith(NOT_COMPARABLE)].drop_duplicates()
    reasons = reasons.str.removeprefix(NOT_COMPARABLE).str.removesuffix(")")
    return [warning(reason) for reason in reasons]


def warning(reason: str) -> str:
    """What stands above numbers that must not be read against the published ones."""
    return f"{reason}, not comparable with the published values"


def claims_page(checked: pd.DataFrame, title: str, not_comparable: str | None) -> str:
    """Judged claims as Markdown: each quote once, and a line for each comparison under it."""
    counts = checked["ours"].str.split(":").str[0].value_counts()
    parts = [f"# {title}\n", *([f"**{warning(not_comparable)}**\n"] if not_comparable else [])]
    parts += [f"{HOW_CLAIMS_ARE_JUDGED}\n"]
    words = ", ".join(f"{word} {count}" for word, count in counts.items())
    parts += [f"**Of {len(checked)} comparisons, ours:** {words}.\n"]
    lines = []
    records = checked.fillna("").to_dict("records")
    for (name, quote), group in itertools.groupby(records, lambda c: (c["claim"], c["quote"])):
        for i, line in enumerate(group):
            theirs = _with_details(line["published"], line["published_margin"])
            ours = _with_details(line["ours"], line["margin"], line["size"], line["our_note"])
            claim = "" if i else f"{name}: “{quote}”"
            lines.append([claim, ": ".join(claim_in_words(line)), theirs, ours])
    columns = ["claim", "comparison", "their numbers", "ours"]
    return "\n".join([*parts, left_aligned(pd.DataFrame(lines, columns=columns))])


def claim_in_words(line: dict) -> tuple[str, str]:
    """`HLUP-finetune > BR-all by 2 %` and `leaf AUC (Table 1)` of a line of claims.csv."""
    rows = "every other row" if line["right_row"] == "*" else line["right_row"].replace("|", ", ")
    columns = "every label" if line["column"] == "*" else line["column"].replace("|", ", ")
    amount = ""
    if line["scope"] == "count":
        columns = f"{line['amount']} of the labels" if line["column"] == "*" else columns
    elif line["amount"]:
        amount = f" {'by' if line['relation'] in '<>' else 'to within'} {line['amount']}"
    gain = ", more than for any other label" if line["scope"] == "most" else ""
    relation = {">=": "≥", "<=": "≤"}.get(line["relation"], line["relation"])
    metric, table = line["metric"].replace("|", " and "), line["table"].replace("|", ", ")
    return f"{line['left_row']} {relation} {rows}{amount}", f"{columns} {metric}{gain} ({table})"


def _with_details(verdict: str, *details: str) -> str:
    return "; ".join(filter(None, [f"**{verdict}**", *details]))


def left_aligned(table: pd.DataFrame) -> str:
    """A Markdown table of words."""
    heading, ruler, *lines = _markdown_lines(table)
    return "\n".join([heading, ruler.replace("---:", "---"), *lines]) + "\n"


def footnotes(side_by_side: pd.DataFrame) -> list[str]:
    """The notes on cells, each once; where a quoted number comes from is left to the CSV."""
    noted = side_by_side[side_by_side["note"].ne("") & side_by_side["verdict"].ne("quoted")]
    sizes = side_by_side.groupby(["table", "row"]).size()
    ran_here = side_by_side["ours"].notna() & side_by_side["verdict"].ne(RELEASED)
    our_cells = {*side_by_side.index[ran_here]}
    cells_of: dict[str, set] = {}
    where_of: dict[str, list[str]] = {}
    split = noted.assign(note=noted["note"].str.split("; ")).explode("note")
    for (note, table, row), cells in split.groupby(["note", "table", "row"], sort=False):
        whole = 1 < len(cells) == sizes[table, row]
        columns = [""] if whole else ", " + cells["column"] + " " + cells["metric"]
        where_of.setdefault(note, []).extend(f"{table}, {row}{column}" for column in columns)
        cells_of.setdefault(note, set()).update(cells.index)
    lines = []
    for note, cell_names in where_of.items():
        more = f"; and {len(cell_names) - 2} more cells" if len(cell_names) > 3 else ""
        where = f"{'; '.join(cell_names[: 2 if more else 3])}{more}"
        if len(cell_names) > 1 and cells_of[note] >= our_cells:
            where = "All of ours"
        lines.append(f"{where}: {note}")
    verdicts = side_by_side[["row", "verdict"]].drop_duplicates().itertuples(index=False)
    cut = [each for each in verdicts if each.verdict.startswith(FAILED)]
    return lines + [f"{row}: {text}" for row, text in cut if text != _shortened(text)]


def _is_side_by_side(table: pd.DataFrame) -> bool:
    return {"published", "ours", "verdict", "printed"} <= {*table.columns}


def _grid(table: pd.DataFrame) -> tuple[list[str], list[list[str]], int]:
    """Header and rows as text, and how many leading columns name the row."""
    named = not isinstance(table.index, pd.RangeIndex)
    names = table.index.nlevels if named else 0
    header = [""] * names + [
        f"{column[0]} ({column[1]})" if isinstance(column, tuple) else str(column)
        for column in table.columns
    ]
    rows, above = [], None
    for key, values in zip(table.index, table.itertuples(index=False), strict=True):
        key = key if isinstance(key, tuple) else (key,)
        shown = ["" if names > 1 and key[0] == above else str(key[0]), *map(str, key[1:])]
        rows.append(shown[:names] + [_text(value) for value in values])
        above = key[0]
    return header, rows, names


def _text(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return MISSING if value is None or value is pd.NA else str(value)


def _markdown_lines(table: pd.DataFrame) -> Iterator[str]:
    header, rows, names = _grid(table)
    yield "| " + " | ".join(header) + " |"
    yield "|" + "".join(" --- |" if i < names else " ---: |" for i in range(len(header)))
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _text_blocks(table: pd.DataFrame, width: int) -> Iterator[str]:
    """Aligned lines; columns beyond the width follow in a further block, rows named again."""
    header, rows, names = _grid(table)
    columns = [*zip(*rows, strict=True)] or [()] * len(header)  # a table may have no rows
    widths = [
        max([HEADING if i >= names else 1, *map(len, column)]) for i, column in enumerate(columns)
    ]
    heads = [
        textwrap.wrap(name, widths[i], break_long_words=False) for i, name in enumerate(header)
    ]
    widths = [max([width, *map(len, head)]) for width, head in zip(widths, heads, strict=True)]
    tall = max(map(len, heads))
    lines = [*zip(*([""] * (tall - len(head)) + head for head in heads), strict=True), *rows]
    start = names
    while start < len(header):
        stop, used = start + 1, sum(widths[:names]) + 2 * names + widths[start]
        while stop < len(header) and used + 2 + widths[stop] <= width:
            used += 2 + widths[stop]
            stop += 1
        block = [*range(names), *range(start, stop)]
        yield "\n".join(
            "  ".join(
                line[i].ljust(widths[i]) if i < names else line[i].rjust(widths[i]) for i in block
            ).rstrip()
            for line in lines
            if any(line[i] for i in block)
        )
        start = stop


def _write(path: str | Path, text: str) -> Path:
    """UTF-8, whole or not at all; bytes of a file name that are no UTF-8 become \\udcXX."""
    return safefiles.write(path, text.encode("utf-8", "backslashreplace"))
