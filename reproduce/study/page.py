"""Write docs/study.md and its figures from the effects of the finished contrasts."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import safefiles
from evaluation import figures, tables
from reproduce import ROOT, RunError
from reproduce.study import figures as study_figures
from reproduce.study.contrasts import IMAGES, PIXELS, Contrast
from reproduce.study.measures import AT, CHANGE, EVEN, MEAN

OWN = ROOT / "docs" / "study"  # the numbers of the suite's own page
NUMBERS = ["value", "low", "high", "low90", "high90"]
COLUMNS = ["contrast", "panel", "effect", "against", "part", "knob", *NUMBERS, "seeds", "hours"]
SEEDS = 5  # of a complete contrast
NOT_YET, SO_FAR = "not computed yet", "So far with"
INTRODUCTION = f"""# The study: when do the papers' mechanisms work?

Look up whether a mechanism works when its assumptions hold, and what happens when they do not.
**All numbers are of {figures.PHANTOM_WARNING} with anything published: no patient is in it.**
[Phantoms](data.md#phantoms) are synthetic radiographs with known truth. Each contrast turns one
knob of the images, the training labels or the settings, trains the paper's own rows at every value
and scores them on undamaged test labels.

**Tables** hold differences of two rows, and one row "itself", at each value of the knob; then the
mean over the knob, the change from its first to its last value along a least-squares line, and the
value at which that line crosses zero, cut to the range of the knob. Brackets are 95 % intervals
over test patients and {SEEDS} seeds, paired in both and over the knob ([how](statistics.md)).
"Equal to within .01" is a test too: the 90 % interval lies within ±.01.

**Limits.** Findings are simple shapes, the networks have 70,000 weights and learn from about
{int(0.7 * IMAGES):,} images of {PIXELS} × {PIXELS} pixels. An effect that is seen here is possible,
of unknown size on radiographs; one that is not seen may still exist. A mechanism that fails
although its assumptions hold needs another explanation.

`bash reproduce/study.sh` generates this page; do not edit it.
"""


@contextlib.contextmanager
def counted(name: str, results: Path) -> Iterator[None]:
    """Add the processor time of a contrast to that of earlier sessions, even if it fails."""
    path, began = results / f"{name}.json", _cpu_seconds()
    try:
        yield
    finally:
        safefiles.write(
            path, json.dumps({"cpu_seconds": round(_known(path) + _cpu_seconds() - began)})
        )


def _known(path: Path) -> float:
    return float(json.loads(path.read_text())["cpu_seconds"]) if path.exists() else 0.0


def _cpu_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def save(name: str, effects: pd.DataFrame, results: Path) -> None:
    """Write the effects of a contrast."""
    tables.to_csv(effects.reindex(columns=COLUMNS), results / f"{name}.csv")


def load(contrast: Contrast, results: Path) -> pd.DataFrame | None:
    """Return the effects of a contrast; None if it is unfinished or had other effects then.

    Without results, those of the suite's own page are returned.
    """
    own = results / f"{contrast.name}.csv"
    path = own if own.exists() else OWN / f"{contrast.name}.csv"
    if not path.exists():
        return None
    try:
        effects = pd.read_csv(path)[COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        message = f"{path} cannot be read ({error}). Delete it and rerun the command."
        raise RunError(message) from error
    wanted = {(panel.title, effect.name) for panel in contrast.panels for effect in panel.effects}
    known = {*zip(effects["panel"], effects["effect"], strict=True)}
    if path == own:
        effects["hours"] = _known(results / f"{contrast.name}.json") / 3600
    return effects if wanted <= known else None


def write(contrasts: dict[str, Contrast], results: Path, docs: Path) -> Path:
    """Write study.md, and study/NAME.svg and NAME.csv, into the folder `docs`."""
    parts, paper = [INTRODUCTION], ""
    hours = 0.0
    for name, contrast in contrasts.items():
        if contrast.paper != paper:
            paper = contrast.paper
            parts.append(f"## {paper}\n")
        effects = load(contrast, results)
        parts.append(_contrast(contrast, effects, docs))
        if effects is not None:
            tables.to_csv(effects, docs / "study" / f"{name}.csv")
            hours += effects["hours"].iloc[0]
    parts.append(
        f"## Running the study\n\n`bash reproduce/study.sh` took {hours:.1f} hours of one core for "
        "the contrasts above; `--only NAME` runs one. Rerun the command to resume.\n"
    )
    return safefiles.write(docs / "study.md", "\n".join(parts).rstrip() + "\n")


def _contrast(contrast: Contrast, effects: pd.DataFrame | None, docs: Path) -> str:
    """Return a contrast's question, its answer in words, its figure and its numbers."""
    title = f"### {contrast.question}\n\n"
    if effects is None:
        return f"{title}`{contrast.name}`: {NOT_YET}.\n"
    path = docs / "study" / f"{contrast.name}.svg"
    caption = f"{contrast.paper}: {contrast.question}"
    shown = effects[effects["part"] == AT]
    if contrast.trade_off:
        itself = shown[shown["effect"].str.endswith(" itself")]
        study_figures.draw_trade_off(path, itself, caption, contrast.knob)
    else:
        study_figures.draw(
            path, shown.dropna(subset="against"), caption, contrast.knob, contrast.log
        )
    text = contrast.conclude(effects)
    if (seeds := effects["seeds"].min()) < SEEDS:
        text += f" **{SO_FAR} {seeds} of {SEEDS} seeds.**"
    if contrast.claims:
        text += f" Bears on the paper's claims {', '.join(contrast.claims)}."
    picture = f"![{contrast.name}: {figures.PHANTOM_WARNING}](study/{path.name})"
    several = len(contrast.panels) > 1
    grids = [
        (f"{panel}:\n\n" if several else "") + tables.to_markdown(_grid(part))
        for panel, part in effects.groupby("panel", sort=False)
    ]
    by = "" if several else f"{contrast.panels[0].title}, "
    head = f"`{contrast.name}`: {by}by {contrast.knob}\n\n"
    return f"{title}{text}\n\n{picture}\n\n{head}" + "\n".join(grids)


def _grid(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the effects of one panel, one column per value of the knob and per summary."""
    ends = effects[["value", "low", "high"]].to_numpy()
    text = pd.Series([tables.with_interval(*line) for line in ends], effects.index)
    of_knob = [f"{value:.2g} [{low:.2g}, {high:.2g}]" for value, low, high in ends]
    text = text.mask(effects["part"] == EVEN, pd.Series(of_knob, effects.index))
    is_at = effects["part"] == AT
    column = effects["part"].mask(is_at, effects["knob"].map("{:g}".format))
    cells = effects.assign(text=text, column=column)
    itself = cells["against"].isna() & ~is_at
    grid = cells[~itself].pivot(index="effect", columns="column", values="text").fillna("")
    order = [*column[is_at].unique(), *(part for part in (MEAN, CHANGE, EVEN) if part in grid)]
    return grid.loc[cells["effect"].unique(), order].rename_axis(index=None, columns=None)
