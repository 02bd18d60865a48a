"""Write phantoms (synthetic chest radiographs) in the layouts of ChestX-ray14, CheXpert and PLCO.

Use them while you wait for access to the datasets, and in tests: every paper runs on them.

    python -m data.phantom chexpert --out DIR --images 600 --size 128 --seed 1
    python -m data.phantom sheet --out FILE.png      one picture with an example of each finding
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

import safefiles
from data import DataError
from data.datasets import DATASETS
from data.phantom.drawing import draw, write
from data.phantom.knobs import Knobs
from data.phantom.layouts import Shot

SHEET = (  # (view, labels) of each picture on the contact sheet
    ("PA", ()),
    ("AP", ("Support Devices",)),
    ("LATERAL", ()),
    *(("PA", (label,)) for label in (
        "Cardiomegaly", "Enlarged Cardiomediastinum", "Pleural Effusion", "Pneumothorax",
        "Consolidation", "Pneumonia", "Infiltration", "Edema", "Atelectasis", "Major Atelectasis",
        "Emphysema", "Fibrosis", "Scarring", "Pleural_Thickening", "Nodule", "Mass",
        "Pleural Based Mass", "Granuloma", "Hilar", "Hernia", "Fracture",
    )),
)  # fmt: skip


def sheet(out: Path, seed: int, tile: int = 168, columns: int = 6) -> None:
    """Write one picture of phantoms, each with one finding and its name below."""
    if seed < 0:
        raise DataError(f"--seed {seed} is negative; use 0 or more.")
    caption, tiles = 20, []
    for number, (view, findings) in enumerate(SHEET):
        drawn = tuple((label, 1.1) for label in findings)  # label, strength
        shot = Shot("", number, number, number % 2 == 1, view, drawn)
        image = cv2.resize(
            draw(shot, 2 * tile, seed)[0], (tile, tile), interpolation=cv2.INTER_AREA
        )
        text = ", ".join(findings).replace("_", " ")
        text = text or f"normal, {view.replace('LATERAL', 'lateral')}"
        strip = np.full((caption, tile), 255, np.uint8)
        scale = min(0.4, 0.4 * (tile - 4) / cv2.getTextSize(text, 0, 0.4, 1)[0][0])
        cv2.putText(strip, text, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, scale, 0, 1, cv2.LINE_AA)
        tiles.append(cv2.copyMakeBorder(np.vstack([image, strip]), 2, 2, 2, 2, 0, value=255))
    rows = [np.hstack(tiles[at : at + columns]) for at in range(0, len(tiles), columns)]
    content = cv2.imencode(".png", np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    safefiles.write(out, content.tobytes())


KNOBS = {  # field of Knobs -> its help
    "label_noise": "share of positives whose label is missed; as many are invented; default: 0.05",
    "odds": "training images without a finding per image with it; the test set has 4",
    "together": "with --odds: from 0 (findings are independent) to 1 (findings come together)",
    "alike": "how much findings look like those they are hard to tell from, 0 to 1",
    "misaligned": "largest shift as a share of the side, and largest turn as a share of 90 degrees",
    "findings": "with --odds: the only labels drawn",
}


def _add_knobs(group) -> None:
    for name, about in KNOBS.items():
        flag, default = f"--{name.replace('_', '-')}", getattr(Knobs(), name)
        if name == "findings":
            group.add_argument(flag, nargs="+", default=default, metavar="LABEL", help=about)
        else:
            group.add_argument(flag, type=float, default=default, metavar="", help=about)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data.phantom", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, dataset in DATASETS.items():
        command = commands.add_parser(name, help=f"phantoms in {dataset.title}'s layout")
        command.add_argument("--out", type=Path, required=True, help="an empty or new folder")
        command.add_argument("--images", type=int, default=600)
        command.add_argument("--size", type=int, default=128, help="pixels")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument(
            "--prevalence-floor",
            type=float,
            default=0.0,
            help="raise the prevalence of rarer labels to this, for small sets",
        )
        _add_knobs(command.add_argument_group("knobs of designed experiments (reproduce/study)"))
    command = commands.add_parser("sheet", help="a contact sheet of the findings, as one PNG")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--seed", type=int, default=2)
    options = parser.parse_args(arguments)
    # Python 3.11 parses --size=-- as an empty list
    if lacking := [name for name, value in vars(options).items() if value == []]:
        parser.error(f"--{lacking[0].replace('_', '-')} needs a value")
    try:
        if options.command == "sheet":
            sheet(options.out, options.seed)
            print(options.out)
        else:
            folder = write(
                options.command,
                options.out,
                options.images,
                options.size,
                options.seed,
                options.prevalence_floor,
                knobs=Knobs(**{name: getattr(options, name) for name in KNOBS}),
            )
            print(f"Give this folder to the reader: {folder}")
    except safefiles.UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; run the same command to start over.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
