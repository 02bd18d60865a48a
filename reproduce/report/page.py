"""The whole report as one HTML page, from what lies in a results folder."""

import ast
import base64
import hashlib
import itertools
import json
from datetime import datetime
from pathlib import Path

import jinja2
import pandas as pd

from evaluation import EvaluationError, audit, claims, published, tables
from reproduce import ROOT, RunError
from reproduce.engine.provenance import provenance
from reproduce.report import grids, html, results_folder

TEMPLATES = Path(__file__).parent
LEDGERS = ROOT / "docs" / "papers"
TITLES = {  # of what is no paper
    "evidence": "Published results, checked on real chest X-rays",
    "leaderboard": "Models of the CheXpert leaderboard against Pham et al.'s, on its 500 studies",
    "rescored": "Anyone's predictions, scored by reproduce.rescore",
}
RELEASED_ROW = "released: "  # begins the name of a row that others predicted
LONGEST = 300  # lines shown of a further CSV


def paper(
    name: str, sets: list[results_folder.ResultSet], numbers: itertools.count, out: Path
) -> dict:
    """A paper's part of the page."""
    problems: list[str] = []
    title, ledger = _title_and_ledger(name, out, problems)
    shown = [result_set(each, numbers, out) for each in sets]
    findings = []
    if name in published.papers():
        try:
            findings = audit.report([name])["findings"]
            if not any(each["tables"] for each in shown):
                shown.append(
                    as_published(name, numbers, "As published" if shown else "Not run yet")
                )
        except EvaluationError as error:  # a damaged file of published numbers
            problems.append(str(error))
    return {
        "name": name,
        "command": command(name),
        "title": title,
        "problems": problems,
        "sets": shown,
        "audit": findings,
        "ledger": ledger,
    }


def command(name: str) -> str:
    """What runs a paper, or scores what was released where there is no script."""
    if (ROOT / "reproduce" / f"{name}.py").is_file():
        return f"bash reproduce/{name}.sh"
    return f"python -m reproduce.rescore {name} --released DIR --download"


def _title_and_ledger(name: str, out: Path, problems: list[str]) -> tuple[str, str]:
    """The paper's title and its document of deviations, as HTML."""
    if name in TITLES:
        return TITLES[name], ""
    document, script = LEDGERS / f"{name}.md", ROOT / "reproduce" / f"{name}.py"
    try:
        text = document.read_text(encoding="utf-8") if document.is_file() else ""
        heading, _, rest = text.partition("\n")
        title = heading.removeprefix("# ").strip() if heading.startswith("# ") else ""
        if not title and script.is_file():  # the citation on top of it
            docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
            title = " ".join(docstring.split("\n\n")[:2])
    except (OSError, ValueError, SyntaxError) as error:
        problems.append(f"{document} or {script} cannot be read ({error}).")
        return "", ""
    return title, html.markdown(rest, document.parent, out) if text else ""


def as_published(name: str, numbers: itertools.count, title: str) -> dict:
    """The printed tables and claims of a paper that has no table of ours yet."""
    nothing = pd.DataFrame(columns=[*published.CELL, "split", "value"]).astype({"value": float})
    printed = published.compare(published.load(name), nothing)
    return {
        "title": title,
        "id": f"{name}-published",
        "phantom": False,
        "facts": {},
        **dict.fromkeys(("problems", "failures", "labels", "figures", "others", "runs"), ()),
        "prose": "",
        "tables": grids.printed_tables(printed, numbers),
        "claims": [("claims", grouped_claims(claims.check(name)))],
    }


def result_set(each: results_folder.ResultSet, numbers: itertools.count, out: Path) -> dict:
    """One paper on one dataset."""
    run_ids = {run.path: f"run-{next(numbers)}" for run in each.runs}
    base = f"{each.paper}/{each.name}"
    links = {path.removeprefix(base + "/"): name for path, name in run_ids.items()}
    figures, problems = [], list(each.problems)
    for path in each.figures:
        label = f"{each.paper}, {each.title}: {path.stem}"
        try:
            content = results_folder.read_bytes(path)
            if path.suffix == ".png":
                drawing = html.png(content, label)
            else:
                drawing = html.svg(content, f"s{next(numbers)}-", label)
        except (OSError, ValueError) as error:
            problems.append(f"{base}/{path.name} cannot be shown ({error}).")
            continue
        figures.append((path.stem.replace("-", " "), drawing))
    runs = [
        {"id": run_ids[run.path], "run": run, "href": html.link(run.folder, out)}
        for run in each.runs
    ]
    problems += [f"{run.path}: {problem}." for run in each.runs for problem in run.problems]
    return {
        "title": each.title,
        "id": f"{each.paper}-{each.name}",
        "phantom": each.phantom,
        "problems": problems,
        "failures": [(run.row, run.path, run.failed) for run in each.runs if run.failed],
        "facts": facts(each),
        "tables": [] if each.table is None else grids.printed_tables(each.table, numbers, links),
        "labels": [] if each.values is None else grids.label_tables(each.values, numbers, links),
        "claims": [(stem, grouped_claims(frame)) for stem, frame in each.claims],
        "figures": figures,
        "prose": _prose(each, out, problems),
        "others": [other(stem, frame, numbers) for stem, frame in each.others],
        "runs": runs,
    }


def _prose(each: results_folder.ResultSet, out: Path, problems: list[str]) -> str:
    """The page that `rescore evidence` wrote, without its title; other sets have none."""
    document = each.folder / "evidence.md"
    if not document.exists():
        return ""
    try:
        text = results_folder.read_bytes(document).decode("utf-8")
    except (OSError, ValueError) as error:
        problems.append(f"{each.paper}/{each.name}/{document.name} cannot be shown ({error}).")
        return ""
    return html.markdown(text.partition("\n")[2], each.folder, out, below=3)


def facts(each: results_folder.ResultSet) -> dict:
    """A result set in the overview: rows finished, verdicts, when and on which machines."""
    rows = {run.row for run in each.runs}
    finished = {run.row for run in each.finished}
    sessions = [session for run in each.runs for session in run.sessions]
    when = max((str(session.get("started", "")) for session in sessions), default="")
    found = [*each.folder.glob("table.csv")]
    if not when and found:
        when = f"{datetime.fromtimestamp(found[0].stat().st_mtime):%Y-%m-%d %H:%M:%S}"
    machines = dict.fromkeys(
        ", ".join(str(session.get(key, "")) for key in ("host", "machine", "device"))
        for session in sessions
        if session.get("device")
    )
    sizes = [run.settings.get("data", {}).get("sets", {}) for run in each.runs]
    return {
        "rows": (len(finished), len(rows)),
        "failed": len({run.row for run in each.runs if run.failed}),
        "printed": grids.rows_run(each.table),
        "verdicts": grids.verdict_counts(each.table),
        "when": when[:16],
        "machines": list(machines),
        "sizes": max(sizes, key=len, default={}),
        "seconds": sum(run.seconds for run in each.runs),
    }


def across(sets: list[results_folder.ResultSet], numbers: itertools.count) -> list[dict]:
    """The labels that several papers were scored on, on one dataset, method beside method."""
    made = []
    scored = [
        each for each in sets if each.values is not None and each.name != results_folder.RELEASED
    ]
    for name in dict.fromkeys(each.name for each in scored):
        same = [each for each in scored if each.name == name]
        frames = []
        for each in same:
            values = pd.DataFrame(each.values)
            labels = values[~values["group"].map(published.is_average)]
            labels = labels[~labels["row"].str.startswith(RELEASED_ROW)]
            links = {"row": each.paper + " · " + labels["row"], "paper": each.paper}
            frames.append(labels[labels["metric"] == "AUC"].assign(**links, runs=""))
        cells = pd.concat(frames)
        shared = cells.groupby("group")["paper"].nunique()
        cells = cells[cells["group"].isin(shared[shared > 1].index)]
        digests = {results_folder.test_images(run) for each in same for run in each.finished[:1]}
        title = f"{same[0].title}: AUC of every shared label"
        made.append(
            {
                "title": same[0].title,
                "phantom": same[0].phantom,
                "papers": [each.paper for each in same],
                "same_images": len(digests) == 1 and "" not in digests,
                "grid": grids.grid(grids.as_cells(cells), numbers, {}, turned=True)
                | {"title": title, "notes": []}
                if len(cells)
                else None,
            }
        )
    return made


def grouped_claims(frame: pd.DataFrame) -> list[dict]:
    """Claims with their comparisons; several lines with one name and quote are one claim."""
    lines = frame.fillna("").astype(str).to_dict("records")
    for line in lines:
        line["comparison"], line["where"] = tables.claim_in_words(line)
    key = lambda line: (line["claim"], line.get("quote", ""))  # noqa: E731
    return [
        {"claim": name, "quote": quote, "lines": list(group)}
        for (name, quote), group in itertools.groupby(lines, key)
    ]


def other(stem: str, frame: pd.DataFrame, numbers: itertools.count) -> dict:
    """Any further CSV as it is, its decimals shortened."""
    shown = frame.head(LONGEST).map(_short)
    return {
        "id": f"t{next(numbers)}",
        "title": stem,
        "columns": [str(name) for name in frame.columns],
        "rows": shown.values.tolist(),
        "left_out": len(frame) - len(shown),
    }


def _short(text: str) -> str:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return text
    return f"{number:.4g}" if "." in text else text


def environment() -> jinja2.Environment:
    """Everything that comes from a file is escaped; only html.py hands out HTML."""
    template_engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template_engine.filters["duration"] = duration
    template_engine.filters["settings"] = lambda record: json.dumps(
        record, indent=1, ensure_ascii=False
    )
    template_engine.globals["VERDICTS"] = grids.VERDICTS
    return template_engine


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def build(results: Path, out: Path) -> str:
    """The whole page."""
    if not results.is_dir():
        problem = f"{results} is no folder" if results.exists() else f"There is no folder {results}"
        raise RunError(f"{problem}; run bash reproduce/chen2019.sh first.")
    sets = results_folder.result_sets(results)
    if not sets:
        raise RunError(
            f"No results lie in {results}; run bash reproduce/chen2019.sh, or all papers by "
            "bash reproduce/all.sh, then this again."
        )
    names = {*published.papers(), *(each.paper for each in sets)}
    numbers, ran = itertools.count(1), {each.paper for each in sets}
    papers = [
        paper(name, [each for each in sets if each.paper == name], numbers, out)
        for name in sorted(names, key=lambda name: (name not in ran, name[-4:], name))  # by year
    ]
    script, style = ((TEMPLATES / f"page.{kind}").read_text("utf-8") for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    commit = provenance("")["commit"]
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            papers=papers,
            columns=list(dict.fromkeys(each.title for each in sets)),
            across=across(sets, numbers),
            script=script,
            style=style,
            digest=digest,
            when=f"{datetime.now():%Y-%m-%d %H:%M}",
            commit=commit,
            results=results,
        )
    )
