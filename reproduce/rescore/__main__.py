"""Scores predictions that exist already: the authors' released ones, or anyone's.

    python -m reproduce.rescore pham2019 --released DIR [--download]
    python -m reproduce.rescore asadi2025 --released DIR [--download]
    python -m reproduce.rescore --predictions FILE --truth FILE [--compare FILE] [--results-dir DIR]
    python -m reproduce.rescore --predictions results/…/predictions.npz

Intervals are of 1,000 resamples of the patients. A CSV has ids in its first column and one column
a label; a predictions.npz of a run holds its own truth.
"""

import argparse
import sys
from pathlib import Path

from data import DataError, label_tree
from evaluation import EvaluationError
from reproduce.rescore import score


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m reproduce.rescore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paper", nargs="?", choices=[*score.PAPERS], help="whose released predictions"
    )
    parser.add_argument("--results-dir", type=Path, metavar="DIR", help="for tables and figures")
    parser.add_argument("--resamples", type=int, default=1000, help="of the patients (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (%(default)s)")
    theirs = parser.add_argument_group("released by a paper's authors")
    theirs.add_argument("--released", type=Path, metavar="DIR", help="where their files lie")
    theirs.add_argument("--download", action="store_true", help="fetch what is missing there")
    theirs.add_argument("--base-url", metavar="URL", help="fetch from this mirror instead")
    theirs.add_argument("--write-docs", action="store_true", help="also into docs/papers")
    own = parser.add_argument_group("anyone's predictions")
    own.add_argument("--predictions", type=Path, metavar="FILE", help="CSV or predictions.npz")
    own.add_argument("--truth", type=Path, metavar="FILE", help="CSV of 0, 1 or blank")
    own.add_argument("--compare", type=Path, metavar="FILE", help="a second model's predictions")
    own.add_argument(
        "--labels", type=lambda text: text.split(","), metavar="A,B", help="only these"
    )
    own.add_argument("--id-column", metavar="C", help="which matches rows (the first)")
    own.add_argument("--patient-column", metavar="C", help="in truth or predictions")
    own.add_argument("--allow-missing", action="store_true", help="score only predicted images")
    own.add_argument(
        "--tree",
        choices=[*label_tree.HIERARCHIES],
        help="adds leaf and high-level means, violations",
    )
    own.add_argument("--ge", action="store_true", help="adds W-, D- and N-AUC of Ge et al. 2018")
    options = parser.parse_args(arguments)
    if bool(options.paper) == bool(options.predictions):
        parser.error("name a paper (pham2019, asadi2025), or --predictions FILE")
    if options.paper and not options.released:
        parser.error(f"say with --released DIR where the files of {options.paper} lie, or belong")
    ignored = (options.truth, options.compare, options.tree, options.labels, options.ge)
    if options.paper and any(ignored):
        parser.error("flags for anyone's predictions do not go with a paper's released ones")
    if options.resamples < 1:
        parser.error("--resamples must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        (score.released_command if options.paper else score.own_command)(options)
    except (DataError, EvaluationError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
