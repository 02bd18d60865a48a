"""Write a results folder as the scripts do, made from the published numbers, for the report."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import claims, figures, published, tables
from evaluation.predictions import Predictions, save
from reproduce.engine import runs
from reproduce.report import __main__ as report

HOSTILE = "<script>alert('row')</script>"
COMMIT = "0123456789ab"
UNFINISHED = "BR-leaf/seed-0-1a2b3c4d"  # a run's folder; those of earlier versions are seed-0
SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
 width="90pt" height="60pt" viewBox="0 0 90 60" onload="alert(1)"><style>*{color:red}</style>
<script>alert(2)</script><defs><path id="m" d="M 0.123456 1
L 2 3.98765"/><clipPath id="c"><rect width="9" height="9"/></clipPath></defs>
<g clip-path="url(#c)"><use xlink:href="#m" style="fill: url('#m')"/></g>
<image xlink:href="http://example.org/x.png"/><text>AUC &lt;b&gt;</text></svg>"""


def write_run(folder: Path, row: str, ids=("a", "b"), finished=True, **recorded) -> None:
    """Write a run's folder; `recorded` replaces facts of its config.json."""
    folder.mkdir(parents=True)
    sets = {"train": 8, "val": 2, "test": len(ids)}
    settings = {"row": row, "seed": 7, "fit": {"epochs": 3}, "data": {"sets": sets}}
    made = {"commit": COMMIT, "host": "bench", "machine": "x86_64, 2 cores", "device": "cpu"}
    made |= {"started": "2026-01-02 10:00:00", "command": f"x --rows '{row}'"}
    record = {"version": "0.0.0", "settings": settings, "sessions": [made]}
    runs.write_record(folder, record | recorded)
    (folder / "history.csv").write_text("epoch,seconds\n1,20\n2,21\n")
    if finished:
        numbers = np.zeros((len(ids), 1), np.float32)
        predictions = Predictions(ids, ids, np.array(["x"]), numbers, numbers[None], {})
        save(folder / "predictions.npz", predictions)


def folder_of(row: str) -> str:
    return re.sub(r"\W+", "-", row).strip("-") + "/seed-0"


def values_of(rows, labels: dict[str, float]) -> pd.DataFrame:
    """Return values.csv, in which every row has these AUCs."""
    cells = [(row, label, value) for row in rows for label, value in labels.items()]
    frame = pd.DataFrame(cells, columns=["row", "group", "value"]).assign(metric="AUC")
    return frame.assign(low=frame["value"] - 0.01, high=frame["value"] + 0.01, note="")


def write_set(folder: Path, ran: dict, reason=None, ids=("a", "b"), off=0.0) -> pd.DataFrame:
    """Write runs of `ran` (our row -> the printed one) and tables of their numbers.

    Our numbers differ from the printed ones by `off`, and their intervals reach 0.01 to each side.
    """
    printed = published.load(folder.parent.name)
    of_rows = [printed[printed["row"] == row].assign(row=our) for our, row in ran.items()]
    ours = pd.concat(of_rows).drop_duplicates(published.CELL)
    ours = ours[published.CELL].assign(value=ours["number"] + off)
    ours = ours.assign(low=ours["value"] - 0.01, high=ours["value"] + 0.01)
    side = published.compare(printed, ours, reason)
    side["runs"] = side["row"].map({row: folder_of(row) for row in ran}).fillna("")
    for row in ran:
        write_run(folder / folder_of(row), row, ids)
    tables.to_csv(side, folder / "table.csv")
    shared = values_of(ran, {"Hernia": 0.5, "Mass": 0.6, "mean": 0.55})
    tables.to_csv(shared, folder / "values.csv")
    return side


def write_results(folder: Path) -> Path:
    """Write real, synthetic, unfinished and broken results, and their page."""
    real = folder / "chen2019" / "plco"
    ran = {"HLCP": "HLCP", "HLUP-finetune": "HLUP-finetune", HOSTILE: "BR-all"}
    side = write_set(real, ran, off=0.002)
    scored = side.dropna(subset="ours").drop(columns=["low", "high", "note"])
    checked = claims.check("chen2019", scored.rename(columns={"ours": "value"}))
    checked.loc[0, "quote"] = HOSTILE
    tables.to_csv(checked, real / "claims.csv")
    (real / "figure-3.svg").write_text(SVG)
    (real / "notes.csv").write_text(f'label,auc\n"{HOSTILE}",0.123456\nNA,1\n')
    write_run(real / UNFINISHED, "BR-leaf", finished=False)
    for paper, rows, ids in (
        ("ge2018", ("R18", "D121"), ("a", "b")),
        ("mo2019", ("DenseNet121 proposed loss", "ResNet-50 weighted CE"), ("b", "c")),
    ):
        phantoms = folder / paper / "chestxray14-phantoms"
        write_set(phantoms, {row: row for row in rows}, "drawn phantoms", ids, -0.2)
        (phantoms / "roc.svg").write_text(SVG)
    broken = folder / "pham2019" / "chexpert"
    write_run(broken / "Ignore" / "seed-0", "Ignore")
    (broken / "table.csv").write_text('table,row\n"Table 1')
    (broken / "roc.svg").write_text("<svg")
    (broken / "U-Ones" / "seed-0").mkdir(parents=True)
    (broken / "U-Ones" / "seed-0" / "config.json").write_text("{")
    write_evidence(folder / "evidence" / "released")
    report.main(["--results-dir", str(folder)])
    return folder


def write_evidence(folder: Path) -> None:
    """Write what `rescore evidence` writes: Markdown, a table and a figure of Matplotlib."""
    groups = {"by": "sex", "subgroup": ["female", "male"], "group": "mean", "metric": "AUC"}
    lines = groups | {"value": [0.8, 0.7], "low": 0.6, "high": 0.9, "positives": 9, "images": 20}
    frame = pd.DataFrame(lines)
    tables.to_csv(frame, folder / "subgroups.csv")
    figures.subgroups(folder / "subgroups.svg", frame, "By sex")
    (folder / "evidence.md").write_text(
        "# Published results\n\nIn short.\n\n## Every number\n\n|  | AUC |\n| --- | ---: |\n"
        "| female | .800 [.600, .900] |\n\n![A figure](evidence/subgroups.svg)\n\n"
        "### More\n\nEnd.\n"
    )
