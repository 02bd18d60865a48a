"""Score predictions that exist already: those that authors released, or your own.

    python -m reproduce.rescore pham2019 --released DIR [--download]
    python -m reproduce.rescore asadi2025 --released DIR [--download]
    python -m reproduce.rescore leaderboard --released DIR [--download]
    python -m reproduce.rescore zech2018 --released DIR [--download] --data-dir ChestX-ray14
    python -m reproduce.rescore uncertain --released DIR [--download]
    python -m reproduce.rescore label-error --released DIR --data-dir ChestX-ray14
    python -m reproduce.rescore ensembles --released DIR [--download] --data-dir ChestX-ray14
    python -m reproduce.rescore normals --released DIR [--download] --data-dir ChestX-ray14
    python -m reproduce.rescore trees --released DIR [--download] --data-dir ChestX-ray14
    python -m reproduce.rescore evidence --released DIR      all of these, as docs/evidence.md
    python -m reproduce.rescore --predictions FILE --truth FILE [--compare FILE] [--results-dir DIR]
    python -m reproduce.rescore --predictions results/.../predictions.npz
    python -m reproduce.rescore --predictions A.csv --predictions B.csv ...      their mean
    python -m reproduce.rescore --predictions preds.npy --ids ids.txt --truth FILE
    python -m reproduce.rescore --predictions preds.csv --data-dir ChestX-ray14 --by sex,age,view
    python -m reproduce.rescore --predictions preds.csv --data-dir ChestX-ray14 \\
        --truth experts --experts DIR

A CSV (or .csv.gz) has ids in its first column and one column per label, named LABEL, prob_LABEL,
LABEL_pred or, in a truth file, LABEL_GT. The official label file of ChestX-ray14 is read as it is,
with its patients, sex, age and view. The predictions.npz of a run holds its own truth. Images that
only one file has are left out and counted. A warning is printed if the predictions fit other rows
than the ones that they name. Intervals come from 1,000 resamples of the patients.

A paper's tables are written to DIR/PAPER/released (DIR is results, unless --results-dir names
another folder). The tables of your own files are printed, and with --results-dir also written to
DIR/rescored/NAME; NAME is the file's after its folder's, or the run's: chen2019-plco-HLCP-seed-0.
"""

import argparse
import sys
from pathlib import Path

from data import label_tree
from evaluation import operating_points, subgroups
from reproduce import ROOT, Parser
from reproduce.engine.options import one_sentence
from reproduce.rescore import evidence, leaderboard, released, score
from reproduce.rescore.reading import is_array
from reproduce.tables import authors

PAPERS = (*released.PAPERS, "leaderboard", *evidence.SECTIONS, "evidence")
ON_CHESTXRAY14 = ("zech2018", "label-error", "ensembles", "normals", "trees", "evidence")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the checked options."""
    parser = Parser(
        "python -m reproduce.rescore",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paper", nargs="?", choices=PAPERS, help="whose released predictions to score")
    add("--results-dir", type=Path, metavar="DIR", help="write tables and figures below it")
    add("--resamples", type=int, default=1000, help="of the patients (%(default)s)")
    add("--seed", type=int, default=0, help="of the resamples (%(default)s)")
    _add_analyses(parser.add_argument_group("further analyses"))
    _add_released(parser.add_argument_group("predictions that authors released"))
    _add_own(parser.add_argument_group("your own predictions"))
    options = parser.parse_args(arguments)
    _check(parser, options)
    return options


def _add_analyses(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--by", type=subgroups.parse, metavar="A,B", help="subgroups by sex, age, view")
    add(
        "--operating-point",
        type=operating_points.parse,
        metavar="RULE",
        help="youden, sensitivity=0.9 or specificity=0.9",
    )
    add("--calibrate", action="store_true", help="reliability, ECE, Brier score, temperature")
    add("--data-dir", type=Path, metavar="DIR", help="folder of ChestX-ray14 with its label file")
    add("--experts", type=Path, metavar="DIR", help="folder of the labels for --truth experts")


def _add_released(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--released", type=Path, metavar="DIR", help="folder with the released files")
    add("--download", action="store_true", help="download missing files to it")
    add("--base-url", metavar="URL", help="download from this mirror instead")
    add("--write-docs", action="store_true", help="also update docs/ and README.md")


def _add_own(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--predictions",
        action="append",
        type=Path,
        metavar="FILE",
        help="CSV, predictions.npz or .npy; several times: the mean of these networks",
    )
    add("--ids", type=Path, metavar="FILE", help="ids of the rows of .npy: lines, or a CSV column")
    add("--truth", action="append", metavar="FILE", help="CSV of 0, 1 or blank; or: experts")
    add(
        *("--validation", "--threshold-from"),
        action="append",
        type=Path,
        metavar="FILE",
        help="the same model on validation images, which choose thresholds and a temperature",
    )
    add("--thresholds", type=Path, metavar="FILE", help="CSV of label,threshold: operating points")
    add("--compare", type=Path, metavar="FILE", help="predictions of a second model")
    add(
        "--labels",
        type=lambda text: text.split(","),
        metavar="A,B",
        help="only these labels; of .npy: all, in order",
    )
    add("--id-column", metavar="C", help="column that matches rows (default: the first)")
    add("--patient-column", metavar="C", help="column of patients in truth or predictions")
    # kept for older commands; images without a prediction are left out and counted anyway
    add("--allow-missing", action="store_true", help=argparse.SUPPRESS)
    trees = [*label_tree.HIERARCHIES]
    add("--tree", choices=trees, help="adds leaf and high-level means, violations")
    add("--ge", action="store_true", help="adds W-, D- and N-AUC of Ge et al. 2018")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse impossible numbers and flags that contradict each other or would be ignored."""
    _settle_truth(parser, options)
    paper, details = options.paper, options.by or options.operating_point or options.calibrate
    predictions, validation = options.predictions or [], options.validation or []
    only_own = [options.compare, options.tree, options.labels, options.ge, options.validation]
    only_own += [options.id_column, options.patient_column, options.ids, options.thresholds]
    arrays = [path for path in (*predictions, options.compare) if path and is_array(path)]
    if paper not in ON_CHESTXRAY14:
        only_own += [options.truth, options.second_truth]
    only_released = options.released, options.download, options.base_url, options.write_docs
    refusals = {
        f"name a paper ({', '.join(PAPERS)}), or --predictions FILE": (
            bool(paper) == bool(predictions)
        ),
        f"give --released DIR, the folder with the files of {paper} or for their download": (
            paper and not options.released
        ),
        "flags for your own predictions do not go with a paper's released ones": (
            paper and any(only_own)
        ),
        "flags for a paper's released predictions do not go with --predictions": (
            predictions and any(only_released)
        ),
        "--base-url says where --download fetches from; give both": (
            options.base_url and not options.download
        ),
        f"--by, --operating-point and --calibrate do not go with {paper}": (
            paper and paper not in released.PAPERS and details
        ),
        "--validation chooses thresholds and a temperature; add --operating-point, --by or "
        "--calibrate": validation and not details,
        "--predictions names a file twice; an ensemble needs different networks": (
            len({*predictions}) < len(predictions)
        ),
        "give --validation once per --predictions, in the same order": (
            validation and len(validation) != len(predictions)
        ),
        "--thresholds gives thresholds; leave out --operating-point, and --validation unless with "
        "--calibrate": options.thresholds
        and (options.operating_point or (validation and not options.calibrate)),
        "--ids names the rows of an .npy, but no file of predictions is one": (
            options.ids and not arrays
        ),
        "--resamples must be at least 1": options.resamples < 1,
        "--seed must be a whole number, 0 or more": options.seed < 0,
    }
    for message, refused in refusals.items():
        if refused:
            parser.error(message)


def _settle_truth(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Set `truth` to one file or None, `second_truth` to whether --truth experts was given."""
    given = options.truth or []
    files = [Path(each) for each in given if each != "experts"]
    options.second_truth = "experts" in given
    if len(files) > 1 or (files and options.data_dir):
        parser.error("give one label file, by --truth FILE or by --data-dir DIR")
    if options.data_dir and options.paper not in (None, *ON_CHESTXRAY14):
        parser.error("--data-dir is the folder of ChestX-ray14; leave it out")
    if options.second_truth and not (options.experts or options.released or options.data_dir):
        parser.error("--truth experts needs --experts DIR, the folder with the experts' labels")
    experts_read = options.second_truth or options.paper in ("label-error", "evidence")
    if options.experts and not experts_read:
        parser.error("--experts goes with --truth experts")
    options.experts = options.experts or options.released or options.data_dir
    options.truth = files[0] if files else None


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    with one_sentence("Stopped."):
        options = parse(arguments)
        if options.data_dir:
            options.truth = authors.find_label_file(options.data_dir)
        if options.download:
            for part in evidence.sources(options.paper):
                authors.download(part, options.released, options.base_url)
        results = options.results_dir or ROOT / "results"
        if options.paper == "leaderboard":
            leaderboard.write(options, results)
        elif options.paper == "evidence":
            evidence.write(options, results)
        elif options.paper in evidence.SECTIONS:
            evidence.write_section(options, results)
        elif options.paper:
            released.write(options, results)
        else:
            score.own_command(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
