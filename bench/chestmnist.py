"""Read and prepare ChestMNIST files of full size: images per second and peak memory.

    python -m bench.chestmnist [--quick] [--write]

The files have the released rows and labels; 64 drawn images are repeated in them, slightly changed.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np

import bench
from data import public_lists
from data.phantom import drawing
from data.phantom.layouts import Shot

SIZES = (64, 224)
DISTINCT = 64
SHARES = (4, 1)  # a quarter of the file, then all of it

ALONE = """
import json, sys, time
from bench import megabytes
from data import chestmnist
from data.prepare import prepare
path, cache, size, share = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
start = time.perf_counter()
frame = chestmnist.read(path)
read = time.perf_counter()
paths = frame["image_path"][: len(frame) // share]
prepare(frame.attrs["folder"], paths, cache, size, progress=False)
end = time.perf_counter()
named = "patients_unknown" not in frame.attrs
print(json.dumps([len(paths), read - start, end - read, megabytes("VmHWM"), named]))
"""


def write(path: Path, size: int, most: int | None) -> None:
    """Write a file with the rows of the public lists, or with at most so many per split."""
    shots = [Shot("", number, number, False, "PA", ()) for number in range(DISTINCT)]
    films = np.stack([cv2.resize(drawing.draw(shot, 256, 0)[0], (size, size)) for shot in shots])
    listed = public_lists.images()
    if most:
        listed = listed.groupby("chexnet").head(most)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for split in ("train", "val", "test"):
            rows = listed[listed["chexnet"] == split]
            content = public_lists.label_matrix(rows["findings"])
            with archive.open(f"{split}_labels.npy", "w") as file:
                np.lib.format.write_array(file, content)
            with archive.open(f"{split}_images.npy", "w", force_zip64=True) as file:
                shape = (len(rows), size, size)
                np.lib.format.write_array_header_1_0(
                    file, {"descr": "|u1", "fortran_order": False, "shape": shape}
                )
                for start in range(0, len(rows), DISTINCT):
                    count = min(DISTINCT, len(rows) - start)
                    file.write(np.roll(films[:count], start // DISTINCT % size, axis=2).tobytes())


def measure(folder: Path, size: int, most: int | None) -> list[list[str]]:
    """Return the table's rows for one size of images."""
    path = folder / f"chestmnist_{size}.npz"
    write(path, size, most)
    lines = []
    for share in SHARES:
        cache = folder / f"cache-{size}-{share}"
        arguments = [str(path), str(cache), str(size), str(share)]
        done = subprocess.run(
            [sys.executable, "-c", ALONE, *arguments], check=True, capture_output=True, text=True
        )
        images, reading, preparing, memory, named = json.loads(done.stdout)
        lines.append(
            [
                f"{size} px",
                f"{path.stat().st_size / 1e9:.2f} GB",
                f"{images:,}",
                f"{bench.duration(reading)}{'' if named else ', unnamed'}",
                bench.duration(preparing),
                f"{images / preparing:,.0f}",
                f"{memory:,.0f} MB",
            ]
        )
    return lines


def main() -> None:
    options = bench.parser(__doc__, quick="a few hundred images").parse_args()
    heading = ["images", "file", "prepared", "read, name", "prepare", "images/s", "peak memory"]
    with tempfile.TemporaryDirectory() as folder:
        most = 300 if options.quick else None
        lines = [line for size in SIZES for line in measure(Path(folder), size, most)]
    bench.publish(
        "chestmnist",
        f"{bench.machine()}.\n\n" + bench.table(heading, lines, "lrrrrrr"),
        options.write,
    )


if __name__ == "__main__":
    main()
