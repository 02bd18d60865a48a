"""What in the printed tables does not fit: python -m evaluation.published audit [--json]"""

import argparse
import sys
from pathlib import Path

from evaluation import EvaluationError, audit, published


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m evaluation.published", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("audit", help="what in the printed tables does not fit")
    command.add_argument("papers", nargs="*", metavar="PAPER", help="default: all of them")
    command.add_argument(
        "--folder", type=Path, default=published.FOLDER, help="of the published CSV files"
    )
    command.add_argument("--json", action="store_true", help="for a program, not for people")
    options = parser.parse_args(arguments)
    try:
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
