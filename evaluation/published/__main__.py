"""List the papers, or check that their published numbers are consistent.

python -m evaluation.published list
python -m evaluation.published audit [PAPER ...] [--json]
"""

import argparse
import sys
from pathlib import Path

from evaluation import EvaluationError, audit, published


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m evaluation.published",
        description="List the papers, or check that their published numbers are consistent.",
    )
    parser.add_argument(
        "--folder", type=Path, default=published.FOLDER, help="folder of the published CSV files"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the name and dataset of each paper, by year")
    command = commands.add_parser("audit", help="print inconsistencies in the published tables")
    command.add_argument("papers", nargs="*", metavar="PAPER", help="default: all papers")
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            for paper in sorted(published.papers(options.folder), key=lambda name: name[-4:]):
                print(paper, published.dataset(paper, options.folder))
            return 0
        result = audit.report(options.papers, options.folder)
    except EvaluationError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    print(audit.as_json(result) if options.json else audit.as_text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
