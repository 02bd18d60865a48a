"""Record how the phantoms look: python tests/golden/make_phantoms.py, after raising VERSION.

It records every way of drawing a finding in frontal, bedside and lateral views, and the label files
of whole datasets, so that a changed number in data/phantom is detected.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from data.datasets import DATASETS
from data.phantom import drawing, labels, layouts
from data.phantom.findings import PAINT

GOLDEN = Path(__file__).with_name("phantoms.npz")
SIZE, BLOCK = 96, 4  # pixels; an image is recorded as the means of its blocks
FILMS = [("PA", patient) for patient in range(6)] + [("AP", 6), ("LATERAL", 0), ("LATERAL", 1)]


def pictures() -> dict[str, np.ndarray]:
    """Return block means of the images and the boxes of the findings, by drawn label."""
    one_label_each = {paint: label for label, paint in PAINT.items()}
    drawn = {}
    for label in ["", *one_label_each.values()]:
        blocks, boxes = [], []
        for number, (view, patient) in enumerate(FILMS):
            findings = ((label, 0.8),) if label else ()
            shot = layouts.Shot("", number, patient, patient % 2 == 1, view, findings)
            picture, planted = drawing.draw(shot, SIZE, 7)
            means = picture.reshape(SIZE // BLOCK, BLOCK, SIZE // BLOCK, BLOCK).mean(axis=(1, 3))
            blocks.append(means.round().astype(np.uint8))
            boxes += [(number, *box) for _, box in planted]
        drawn[label] = np.stack(blocks)
        drawn[f"{label} boxes"] = np.array(boxes, np.float32)
    return drawn


def label_files(images: int = 200) -> dict[str, str]:
    """Return the hash of every label file of each dataset's phantoms."""
    hashes = {}
    for dataset, record in DATASETS.items():
        wanted = labels.prevalences(dataset, 0.03)
        shares = labels.prevalences(dataset).round(12).tolist()
        hashes[f"{dataset}, prevalences"] = hashlib.sha256(repr(shares).encode()).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            shots = record.write_layout(Path(folder), images, wanted, np.random.default_rng(0))
            hashes[f"{dataset}, shots"] = hashlib.sha256(
                json.dumps(shots, default=float).encode()
            ).hexdigest()
            for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
                name = f"{dataset}, {path.relative_to(folder)}"
                hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashes


if __name__ == "__main__":
    hashes = label_files()
    np.savez_compressed(
        GOLDEN, version=drawing.VERSION, files=[*hashes], hashes=[*hashes.values()], **pictures()
    )
