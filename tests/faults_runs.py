"""The cases of tests/faults.py on runs and their files, which have to be trained first."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults_world import ROOT, Outcome, World, case, run


def break_child(change: Callable[[Path, Path], None]) -> Callable[[World], Outcome]:
    def tried(world: World) -> Outcome:
        _, parent, child = world.results()
        change(parent, child)
        return world.predict(child)

    return tried


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)


def rewrite(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


W, N, J = "best.weights.h5", "predictions.npz", "config.json"
BREAK: dict[tuple[str, str], Callable[[Path, Path], object]] = {
    ("A1", "weights gone"): lambda parent, child: (child / W).unlink(),
    ("A1", "weights of the parent"): lambda parent, child: shutil.copy(parent / W, child / W),
    ("A1", "weights with a flipped bit"): lambda parent, child: flip(child / W),
    ("C7", "weights cut"): lambda parent, child: os.truncate(child / W, 5000),
    ("A5", "predictions of the parent"): lambda parent, child: shutil.copy(parent / N, child / N),
    ("B5", "predictions with a flipped bit"): lambda parent, child: flip(child / N),
    ("B5", "empty predictions"): lambda parent, child: (child / N).write_bytes(b""),
    ("B5", "an .npy as predictions"): lambda p, child: (child / N).write_bytes(b"\x93NUMPY"),
    ("B4", "config.json cut"): lambda parent, child: os.truncate(child / J, 100),
    ("B4", "config.json {}"): lambda parent, child: (child / J).write_text("{}"),
    ("B4", "config.json []"): lambda parent, child: (child / J).write_text("[]"),
    ("B4", "config.json binary"): lambda parent, child: (child / J).write_bytes(b"\xff\x00"),
    ("A4", "config.json gone"): lambda parent, child: (child / J).unlink(),
    ("B4", "no recipe"): lambda parent, child: rewrite(child / J, recipe={}),
    ("B4", "settings that are a list"): lambda parent, child: rewrite(child / J, settings=[1]),
    ("B4", "a script antigravity"): lambda parent, child: rewrite(
        child / J, recipe=json.loads((child / J).read_text())["recipe"] | {"script": "antigravity"}
    ),
    ("B4", "an unknown field"): lambda parent, child: rewrite(
        child / J, recipe=json.loads((child / J).read_text())["recipe"] | {"config": {"x": 1}}
    ),
}  # fmt: skip
for (group, title), change in BREAK.items():
    case(group, f"predict: {title}", quick=False)(break_child(change))


@case("B9", "predict: any file name, with heatmaps", quick=False)
def _(world):
    _, parent, _ = world.results()
    folder = world.new()
    for name in (b"caf\xe9.png", b"$x^{$.png", "胸.png".encode(), b"x" * 250 + b".png"):
        shutil.copy(world.image, os.fsencode(folder) + b"/" + name)
    return world.predict(parent, folder, flags=("--heatmaps",)).accepted


@case("C6", "predict: an image path of 300 characters", quick=False)
def _(world):
    outcome = world.predict(world.results()[1], "y" * 300, world.image)
    return outcome.refused or ("" if "--out" not in outcome.err else "blames --out")


@case("C6", "predict: an impossible --out", quick=False)
def _(world):
    place = world.new() / "file"
    place.touch()
    return run("reproduce.predict", "--run", world.results()[1], world.image, "--out", place / "x")


@case("B12", "--weights with HDF5 magic and junk", quick=False)
def _(world):
    junk = world.new() / "junk.weights.h5"
    junk.write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 5000)
    return world.train(world.new(), "--weights", junk)


@case("C5", "a first try that failed leaves seed-0 to the next", quick=False)
def _(world):
    results = world.new()
    problem = world.train(results, "--weights", "/nope.h5", rows=("HLCP",)).refused
    second = world.train(results, rows=("HLCP",)).accepted
    names = sorted(path.parent.name for path in results.rglob("predictions.npz"))
    return problem or second or ("" if names == ["seed-0"] else f"folders {names}")


@case("B19", "a NaN loss in one row", quick=False)
def _(world):
    results = world.new()
    outcome = world.train(
        results, "--finetune-learning-rate", "1e38", rows=("HLUP-finetune", "BR-leaf")
    )
    tables = list(results.rglob("table.csv"))
    if outcome.refused:
        return outcome.refused
    return "" if tables and "failed" in tables[0].read_text() else "no table with `failed`"


@case("A5", "predictions of the parent are not tabled", quick=False)
def _(world):
    results, parent, child = world.results()
    before = (child / N).read_bytes()
    shutil.copy(parent / N, child / N)
    problem = world.train(results).accepted
    return problem or ("" if (child / N).read_bytes() == before else "other predictions")


@case("A18", "the same results are finished", quick=False)
def _(world):
    outcome = world.train(world.results()[0])
    return outcome.accepted or ("" if "are finished and stay" in outcome.out else "trained again")


@case("B8", "--batch-size 100000", quick=False)
def _(world):
    return world.train(world.new(), "--batch-size", 100_000)


@case("B7", "KERAS_BACKEND=foo", quick=False)
def _(world):
    places = ["--cache-dir", world.folder / "cache", "--results-dir", world.new()]
    small = ["--phantoms", 60, "--size", 32, "--resize", 36, "--rows", "BR-leaf"]
    return run("reproduce.chen2019", *small, *places, KERAS_BACKEND="foo")


@case("B18", "SIGTERM ends with 143", quick=False)
def _(world):
    words = [sys.executable, "-m", "reproduce.chen2019", "--results-dir", str(world.new())]
    began = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(12)
    began.send_signal(signal.SIGTERM)
    _, err = began.communicate(timeout=60)
    return Outcome(2 if began.returncode == 143 else began.returncode, "", err.decode())


@case("B1", "a disk that is full while a run writes", quick=False)
def _(world):
    """On a file system of 400 KB, where the machine lets one be made; the run goes on after."""
    disk = world.new()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk]).returncode:
        return "no file system could be mounted, for which root's rights are needed"
    try:
        refused = world.train(disk, rows=("BR-leaf",)).refused
        orphans = [*disk.rglob(".part*")]
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        completed = world.train(disk, rows=("BR-leaf",)).accepted
    finally:
        subprocess.run(["umount", "-l", disk])
    return refused or (f"orphans {orphans}" if orphans else "") or completed
