"""CheXpert's public test set beside its three benchmark radiologists (Pham 2019, section 4.6).

Its 500 studies were hidden when the papers appeared; today anyone can count, as they did, how many
of the radiologists lie below a model's ROC curve.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data import DataError
from evaluation import figures, tables
from reproduce import rescore, results
from reproduce.released import Released


def report(
    folder: Path,
    scored: dict[str, results.Scored],
    best: str,
    labels: Sequence[str],
    readers: dict[str, pd.DataFrame],
    resamples: int,
    phantom: bool = False,
) -> pd.DataFrame:
    """Write public.md, public.csv and figure-4-public.svg; the AUC and counts of the `best` row.

    `readers` are decisions by study; with several seeds they are set beside the first.
    """
    found = scored[best].predictions[0]
    columns = [list(found.labels).index(label) for label in labels]
    decisions = {
        name: _of_studies(name, of_reader, found.ids) for name, of_reader in readers.items()
    }
    decisions = {name: of_reader[list(labels)].to_numpy() for name, of_reader in decisions.items()}
    shown = Released(
        tuple(labels),
        found.patients,
        found.targets[:, columns],
        found.mean[:, columns],
        decisions,
    )
    table = scored[best].table
    table = table[table["metric"] == "AUC"].set_index("group").loc[[*labels, "mean"]].reset_index()
    if decisions:
        table = pd.concat([table, rescore.readers_below(shown, resamples, seed=0)])
    title = f"Public test set, {len(found.ids):,} studies: {best}"
    warning = f"**{figures.PHANTOM_WARNING}**\n\n" if phantom else ""
    page = f"# {title}\n\n{warning}{tables.to_markdown(rescore.wide(table))}"
    (folder / "public.md").write_text(page, encoding="utf-8")
    tables.to_csv(results.values(scored), folder / "public.csv")
    print(f"\n{title}\n{'-' * len(title)}\n{tables.to_text(rescore.wide(table))}")
    figures.roc_curves(
        folder / "figure-4-public.svg",
        shown.targets,
        shown.probabilities,
        labels,
        decisions,
        title,
        phantom,
    )
    return table


def _of_studies(name: str, decisions: pd.DataFrame, studies: Sequence[str]) -> pd.DataFrame:
    missing = [study for study in studies if study not in decisions.index]
    if missing:
        raise DataError(
            f"{name}.csv lacks {len(missing):,} of the {len(studies):,} test studies, such "
            f"as {missing[0]}; take the file that belongs to this test set."
        )
    return decisions.loc[list(studies)]
