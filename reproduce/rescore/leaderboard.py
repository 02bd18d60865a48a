"""Ten models of the CheXpert leaderboard on its 500 test studies, each against Pham et al.'s.

The repository of the test labels holds their predictions. Differences are paired: the bootstrap of
the mean over the five labels, and DeLong's test of each label; both are corrected by Holm's method.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtr

import safefiles
from data import labels
from evaluation import EvaluationError, bootstrap, delong, metrics, tables
from reproduce.rescore.score import text_width
from reproduce.tables import authors

FIVE = list(labels.CHEXPERT_COMPETITION)
TITLE = "CheXpert leaderboard: models released with the test labels, 500 studies"
CLAIM = "outperforms all previous state-of-the-art results"
ENDING = "_predictions.csv"


def read(folder: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray], list[str]]:
    """(truth by study, probabilities by model, sentences): every CSV of a model below `folder`."""
    truth_path = authors.find_file("leaderboard", "groundtruth.csv", folder)
    truth = pd.read_csv(truth_path, index_col="Study")
    models: dict[str, np.ndarray] = {}
    notes = []
    for path in sorted(folder.rglob(f"*{ENDING}")):
        name = path.name.removesuffix(ENDING)
        known = authors.MODELS.get(name)
        if known and safefiles.sha256(path) != known:
            raise EvaluationError(
                f"{path} is not the file that was released (another SHA-256); fetch it again with "
                "--download into an empty folder."
            )
        probabilities = _read_model(path, truth)
        if name in models and not np.array_equal(models[name], probabilities):
            raise EvaluationError(f"Two different files of {name} lie in {folder}; keep one.")
        if not known and name not in models:
            notes.append(f"{path.name} is not one of the ten released models; scored as it is.")
        models[name] = probabilities
    if authors.PHAM_FILE not in models or len(models) < 2:
        source = authors.SOURCES["leaderboard"]
        raise EvaluationError(
            f"{folder} holds {len(models)} of the ten models' CSVs; the comparison needs Pham's "
            f"({authors.PHAM_FILE}{ENDING}) and at least one other. Add --download, or put the "
            f"files of {authors.MODELS_FOLDER} of github.com/{source.repository} into it."
        )
    if lacking := [name for name in authors.MODELS if name not in models]:
        notes.append(f"Not found, so not compared: {', '.join(lacking)}.")
    return truth, models, notes


def _read_model(path: Path, truth: pd.DataFrame) -> np.ndarray:
    """A model's five probabilities in the order of the truth's studies; refuses what lacks any."""
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise EvaluationError(f"{path} is no CSV of predictions ({error}).") from error
    if lacking := [name for name in ("Study", *FIVE) if name not in table]:
        raise EvaluationError(f"{path} lacks the column {', '.join(lacking)}; delete or mend it.")
    table = table.set_index("Study")
    if table.index.duplicated().any() or {*table.index} != {*truth.index}:
        raise EvaluationError(
            f"{path} has {len(table)} rows of {table.index.nunique()} studies; it must have each "
            f"of the {len(truth)} test studies once."
        )
    values = table.loc[truth.index, FIVE].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if not np.isfinite(values).all():
        raise EvaluationError(f"{path} has predictions that are no numbers; fetch it again.")
    return values


def compare(
    truth: pd.DataFrame, models: dict[str, np.ndarray], resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(AUC of every model and label, differences to Pham's), with intervals."""
    targets = truth[FIVE].to_numpy(float)
    patients = truth.index.str.extract(r"(patient\d+)", expand=False).to_numpy()
    groups = (metrics.Group("mean", metrics=("AUC",)),)
    scored, differences = [], []
    pham = models[authors.PHAM_FILE]
    for name, values in models.items():
        table = bootstrap.table(
            targets, values, FIVE, patients, groups, resamples=resamples, seed=seed
        )
        scored.append(table[table["metric"] == "AUC"].assign(model=name))
        if name == authors.PHAM_FILE:
            continue
        gap = bootstrap.compare(
            targets, pham, values, FIVE, patients, groups, resamples=resamples, seed=seed
        )
        gap = gap[gap["metric"] == "AUC"].assign(model=name)
        tested = delong.table(targets, pham, values, FIVE).set_index("label")["p"]
        gap["p"] = gap["group"].map(tested)
        draws = bootstrap.scores(targets, values, patients, resamples, seed).auc
        draws = draws - bootstrap.scores(targets, pham, patients, resamples, seed).auc
        deviation = draws.mean(axis=1).std(ddof=1)
        mean = gap["group"] == "mean"
        if deviation > 0:
            z = gap.loc[mean, "difference"].abs() / deviation
            gap.loc[mean, "p"] = 2 * ndtr(-z)
        else:  # no resample tells the two models apart
            gap.loc[mean, "p"] = 1.0
        differences.append(gap)
    gaps = pd.concat(differences, ignore_index=True)
    gaps["p_holm"] = np.nan
    for mean in (True, False):  # the question of the means, and that of the labels
        lines = (gaps["group"] == "mean") == mean
        gaps.loc[lines, "p_holm"] = delong.holm(gaps.loc[lines, "p"].to_numpy(float))
    return pd.concat(scored, ignore_index=True), gaps


def verdict(scored: pd.DataFrame, gaps: pd.DataFrame) -> tuple[str, str]:
    """Whether Pham's mean AUC is the best of these models: (verdict, the sentence about it)."""
    mean = scored[scored["group"] == "mean"].set_index("model")["value"]
    of_means = gaps[gaps["group"] == "mean"].set_index("model")
    better = [name for name, gap in of_means.iterrows() if gap["low"] > 0 and gap["p_holm"] < 0.05]
    worse = [name for name, gap in of_means.iterrows() if gap["high"] < 0 and gap["p_holm"] < 0.05]
    rank = int((mean > mean[authors.PHAM_FILE]).sum()) + 1
    word = "within noise"
    if better:
        word = "does not hold"
    elif len(worse) == len(of_means):
        word = "holds"
    sentence = (
        f"Pham's model is number {rank} of {len(mean)} by mean AUC (the highest, "
        f"{tables.number(mean.max(), 4)}, is {mean.idxmax()}'s). After Holm's correction "
        f"{len(worse)} of the {len(of_means)} others are worse, {len(better)} better and "
        f"{len(of_means) - len(worse) - len(better)} cannot be told apart from it."
    )
    return word, sentence


def for_people(scored: pd.DataFrame, gaps: pd.DataFrame) -> pd.DataFrame:
    """One line a model, best mean first: mean AUC, difference to Pham's, each label."""
    cells = scored.assign(
        cell=[
            tables.interval(value, low, high, 4)
            for value, low, high in scored[["value", "low", "high"]].to_numpy()
        ]
    ).pivot(index="model", columns="group", values="cell")
    order = scored[scored["group"] == "mean"].sort_values("value", ascending=False)["model"]
    wide = cells.loc[order, ["mean"]].rename(columns={"mean": "mean AUC"})
    of_means = gaps[gaps["group"] == "mean"].set_index("model")
    shown = {
        gap.Index: tables.interval(gap.difference, gap.low, gap.high, 4)
        for gap in of_means.itertuples()
    }
    wide["difference to Pham's"] = [shown.get(name, "") for name in order]
    holm = {name: f"{p:.2g}" for name, p in of_means["p_holm"].items()}
    wide["p (Holm)"] = [holm.get(name, "") for name in order]
    wide = wide.join(cells[FIVE]).rename(index={authors.PHAM_FILE: f"{authors.PHAM_FILE} (Pham)"})
    return wide.rename_axis(index=None, columns=None)


def write(options: argparse.Namespace, results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The leaderboard's tables, printed and written."""
    if options.download:
        authors.download("leaderboard", options.released, options.base_url)
    truth, models, notes = read(options.released)
    scored, gaps = compare(truth, models, options.resamples, options.seed)
    word, sentence = verdict(scored, gaps)
    source = authors.SOURCES["leaderboard"]
    lines = [
        f"Claim: Pham et al.'s method {CLAIM!r}: {word}. {sentence}",
        *notes,
        f"Source: github.com/{source.repository} at {source.commit[:12]}, each file known by its "
        f"SHA-256. Licence: {source.licence}.",
    ]
    out = results / "leaderboard" / "released"
    tables.to_csv(scored, out / "models.csv")
    tables.to_csv(gaps, out / "differences.csv")
    claim = {"claim": CLAIM, "ours": word, "note": sentence}
    tables.to_csv(pd.DataFrame([claim]), out / "state-of-the-art.csv")
    shown = for_people(scored, gaps)
    text = [f"# {TITLE}", *lines, tables.to_markdown(shown)]
    safefiles.write(out / "table.md", "\n\n".join(text))
    print(tables.titled(TITLE, tables.to_text(shown, text_width())))
    print("\n".join(lines) + f"\n\nWritten to {out}: table.md, models.csv, differences.csv.")
    return scored, gaps
