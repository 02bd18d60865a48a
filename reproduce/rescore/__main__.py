"""Scores predictions that exist already: the authors' released ones, or anyone's.

    python -m reproduce.rescore pham2019 --released DIR [--download]
    python -m reproduce.rescore asadi2025 --released DIR [--download]
    python -m reproduce.rescore leaderboard --released DIR [--download]
    python -m reproduce.rescore zech2018 --released DIR [--download] --data-dir ChestX-ray14
    python -m reproduce.rescore evidence --released DIR      all of these, as docs/evidence.md
    python -m reproduce.rescore --predictions FILE --truth FILE [--compare FILE] [--results-dir DIR]
    python -m reproduce.rescore --predictions results/.../predictions.npz
    python -m reproduce.rescore --predictions preds.csv --data-dir ChestX-ray14 --by sex,age,view
    python -m reproduce.rescore --predictions preds.csv --data-dir ChestX-ray14 \\
        --truth experts --experts DIR

A CSV (or .csv.gz) has ids in its first column and one column a label, named LABEL, prob_LABEL,
LABEL_pred or, for truth, LABEL_GT. The official label file of ChestX-ray14 is read as it is, with
its patients. A predictions.npz of a run holds its own truth. Images that only one file has are left
out and counted; predictions that fit other rows than the ones that they name are reported.
Intervals are of 1,000 resamples of the patients.

A paper's tables go to DIR/PAPER/released (DIR is results, unless --results-dir names another).
Anyone's go to DIR/rescored/NAME where --results-dir is given, and are only printed otherwise; NAME
is the file's with its folder's, or the run's: chen2019-plco-HLCP-seed-0.
"""

import argparse
import sys
from pathlib import Path

from data import label_tree
from evaluation import operating_points, subgroups
from reproduce import Parser
from reproduce.engine.options import one_sentence
from reproduce.rescore import evidence, leaderboard, released, score
from reproduce.tables import authors

PAPERS = (*released.PAPERS, "leaderboard", "evidence")
OF_CHESTXRAY14 = ("zech2018", "evidence")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        "python -m reproduce.rescore",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paper", nargs="?", choices=PAPERS, help="whose released predictions")
    parser.add_argument(
        "--results-dir",
        type=Path,
        metavar="DIR",
        help="for tables and figures, in a folder of their own below it",
    )
    parser.add_argument("--resamples", type=int, default=1000, help="of the patients (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (%(default)s)")
    _add_further(parser.add_argument_group("further analyses"))
    theirs = parser.add_argument_group("released by a paper's authors")
    theirs.add_argument("--released", type=Path, metavar="DIR", help="where their files lie")
    theirs.add_argument("--download", action="store_true", help="fetch what is missing there")
    theirs.add_argument("--base-url", metavar="URL", help="fetch from this mirror instead")
    theirs.add_argument("--write-docs", action="store_true", help="also into docs/papers")
    _add_own(parser.add_argument_group("anyone's predictions"))
    options = parser.parse_args(arguments)
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse flags that contradict each other or would be ignored, and impossible numbers."""
    if lacking := [
        name for name, value in vars(options).items() if value == []
    ]:  # what Python 3.11 makes of --results-dir=--
        parser.error(f"--{lacking[0].replace('_', '-')} needs a value")
    _settle_truth(parser, options)
    if bool(options.paper) == bool(options.predictions):
        parser.error(f"name a paper ({', '.join(PAPERS)}), or --predictions FILE")
    if options.paper and not options.released:
        parser.error(f"say with --released DIR where the files of {options.paper} lie, or belong")
    for_own = [options.compare, options.tree, options.labels, options.ge, options.validation]
    for_own += [options.id_column, options.patient_column]
    if options.paper not in OF_CHESTXRAY14:
        for_own += [options.truth, options.second_truth]
    if options.paper and any(for_own):
        parser.error("flags for anyone's predictions do not go with a paper's released ones")
    for_paper = (options.released, options.download, options.base_url, options.write_docs)
    if options.predictions and any(for_paper):
        parser.error("flags for a paper's released predictions do not go with --predictions")
    if options.base_url and not options.download:
        parser.error("--base-url says where --download fetches from; give both")
    with_details = options.by or options.operating_point or options.calibrate
    if options.paper in ("leaderboard", "evidence") and with_details:
        parser.error(f"--by, --operating-point and --calibrate do not go with {options.paper}")
    if options.validation and not with_details:
        parser.error(
            "--validation chooses thresholds and a temperature; add --operating-point, "
            "--by or --calibrate"
        )
    if options.resamples < 1:
        parser.error("--resamples must be at least 1")
    if options.seed < 0:
        parser.error("--seed must be a whole number, 0 or more")


def _add_own(own) -> None:
    own.add_argument("--predictions", type=Path, metavar="FILE", help="CSV or predictions.npz")
    own.add_argument(
        "--truth", action="append", metavar="FILE", help="CSV of 0, 1 or blank; or: experts"
    )
    own.add_argument(
        "--validation", type=Path, metavar="FILE", help="the same model on validation images"
    )
    own.add_argument("--compare", type=Path, metavar="FILE", help="a second model's predictions")
    own.add_argument(
        "--labels", type=lambda text: text.split(","), metavar="A,B", help="only these"
    )
    own.add_argument("--id-column", metavar="C", help="which matches rows (the first)")
    own.add_argument("--patient-column", metavar="C", help="in truth or predictions")
    # earlier commands have it; images without a prediction are now left out and counted
    own.add_argument("--allow-missing", action="store_true", help=argparse.SUPPRESS)
    own.add_argument(
        "--tree",
        choices=[*label_tree.HIERARCHIES],
        help="adds leaf and high-level means, violations",
    )
    own.add_argument("--ge", action="store_true", help="adds W-, D- and N-AUC of Ge et al. 2018")


def _add_further(group) -> None:
    group.add_argument("--by", type=subgroups.parse, metavar="A,B", help="sex, age, view")
    group.add_argument(
        "--operating-point",
        type=operating_points.parse,
        metavar="RULE",
        help="youden, sensitivity=0.9 or specificity=0.9",
    )
    group.add_argument(
        "--calibrate", action="store_true", help="reliability, ECE, Brier; temperature"
    )
    group.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="ChestX-ray14's folder, with its label file"
    )
    group.add_argument("--experts", type=Path, metavar="DIR", help="of --truth experts")


def _settle_truth(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """`truth` becomes one file or None, `second_truth` whether experts' labels are wanted too."""
    given = options.truth or []
    named = [Path(each) for each in given if each != "experts"]
    options.second_truth = "experts" in given
    if len(named) > 1 or (named and options.data_dir):
        parser.error("give one label file, by --truth FILE or by --data-dir DIR")
    if options.data_dir and options.paper not in (None, *OF_CHESTXRAY14):
        parser.error("--data-dir is the folder of ChestX-ray14; leave it out")
    if options.second_truth and not (options.experts or options.released or options.data_dir):
        parser.error("--truth experts needs --experts DIR, the folder with the experts' labels")
    if options.experts and not options.second_truth and options.paper != "evidence":
        parser.error("--experts goes with --truth experts")
    options.experts = options.experts or options.released or options.data_dir
    options.truth = named[0] if named else None


def main(arguments: list[str] | None = None) -> int:
    with one_sentence("Stopped."):
        options = parse(arguments)
        if options.data_dir:
            options.truth = authors.label_file_of(options.data_dir)
        if options.paper == "leaderboard":
            leaderboard.write(options, options.results_dir or released.RESULTS)
        elif options.paper == "evidence":
            evidence.write(options, options.results_dir or released.RESULTS)
        else:
            (released.released_command if options.paper else score.own_command)(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
