"""Cases on trained runs and their files: damaged, interrupted, shared, and given again."""

import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from reproduce.engine import runs
from tests.campaigns.faults import world as worlds
from tests.campaigns.faults.world import (
    CHILD,
    LIMIT,
    SMALL,
    Outcome,
    World,
    flip,
    leftovers,
    run,
    run_of,
    together,
)
from tests.conftest import REPOSITORY

cases = functools.partial(worlds.cases, quick=False)
WEIGHTS, PREDICTIONS, CONFIG = "best.weights.h5", "predictions.npz", "config.json"
STATE, BEST = "state.npz", "epoch-*.weights.h5"
FINISHED, PREPARED_AGAIN = "are finished and stay", "prepared again"
AGAIN = "starts anew: its state could not be read"
GONE = "the best weights so far, is missing or damaged"


def cut(path: Path) -> None:
    """Cut a file to half of its size."""
    os.truncate(path, path.stat().st_size // 2)


def hold(content: bytes) -> Callable[[Path], object]:
    """Return a function that gives a file this content."""
    return functools.partial(Path.write_bytes, data=content)


def take_from_parent(path: Path) -> None:
    """Replace a file of a run by that of the run from which it started."""
    shutil.copy(run_of(path.parents[4], "HLCP") / path.name, path)


def rewrite(path: Path, **changes: object) -> None:
    """Change fields of a run's config.json, which its hash then does not match."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def seal(**changes: object) -> Callable[[Path], None]:
    """Return a function that changes fields of config.json and its hash, as a script would."""

    def change(path: Path) -> None:
        runs.write_record(path.parent, (runs.record(path.parent) or {}) | changes)

    return change


# What predict refuses: a run whose files were damaged


@cases(
    {
        "A1 predict: weights gone": (WEIGHTS, Path.unlink),
        "A1 predict: weights of the parent": (WEIGHTS, take_from_parent),
        "A1 predict: weights with a flipped bit": (WEIGHTS, flip),
        "C7 predict: weights cut": (WEIGHTS, functools.partial(os.truncate, length=5000)),
        "A5 predict: predictions of the parent": (PREDICTIONS, take_from_parent),
        "B5 predict: predictions with a flipped bit": (PREDICTIONS, flip),
        "B5 predict: empty predictions": (PREDICTIONS, hold(b"")),
        "B5 predict: an .npy as predictions": (PREDICTIONS, hold(b"\x93NUMPY")),
        "B4 predict: config.json {}": (CONFIG, hold(b"{}")),
        "B4 predict: config.json []": (CONFIG, hold(b"[]")),
        "B4 predict: config.json binary": (CONFIG, hold(b"\xff\x00")),
        "B4 predict: config.json cut": (CONFIG, functools.partial(os.truncate, length=100)),
        "A4 predict: config.json gone": (CONFIG, Path.unlink),
        "B4 predict: no recipe": (CONFIG, seal(paper=None)),
        "B4 predict: settings that are a list": (CONFIG, seal(settings=[1])),
        "B4 predict: a script antigravity": (CONFIG, seal(paper="antigravity")),
        "B4 predict: an unknown field": (CONFIG, seal(config={"x": 1})),
        "B4 predict: a record that lacks its digest": (CONFIG, lambda it: rewrite(it, digest=None)),
    }
)
def _(world, name, damage):
    child = world.results()[2]
    damage(child / name)
    return world.predict(child)


@cases(
    {
        "A2 predict: template.npz is gone": Path.unlink,
        "B16 predict: template.npz is empty": hold(b""),
        "A2 predict: template.npz is of other pixels": lambda path: np.savez(
            path, template=np.eye(32, dtype=np.uint8)
        ),
    }
)
def _(world, damage):
    def make(folder: Path) -> None:
        words = ["--phantoms", 60, "--size", 32, "--resize", 36, "--epochs", 1, "--batch-size", 8]
        words += ["--resamples", 20, "--rows", "U-Ones", "--cache-dir", world.folder / "cache"]
        if problem := run("reproduce.pham2019", *words, "--results-dir", folder).accepted():
            raise RuntimeError(f"the run to be damaged could not be trained: {problem}")

    folder = run_of(world.copy("pham2019", make), "U-Ones")
    damage(folder / "template.npz")
    return world.predict(folder).refused("template.npz")


@cases("B9 predict: any file name, with heatmaps")
def _(world):
    folder = world.new()
    for name in (b"caf\xe9.png", b"$x^{$.png", "胸.png".encode(), b"x" * 250 + b".png"):
        shutil.copy(world.image, os.fsencode(folder) + b"/" + name)
    return world.predict(world.results()[1], folder, flags=("--heatmaps",)).accepted()


@cases("C6 predict: an image path of 300 characters")
def _(world):
    outcome = world.predict(world.results()[1], "y" * 300, world.image)
    return outcome.refused(unsaid=("--out",))


@cases("C6 predict: an impossible --out")
def _(world):
    file = world.new() / "file"
    file.touch()
    return run("reproduce.predict", "--run", world.results()[1], world.image, "--out", file / "x")


# Stopped runs whose files are damaged


def stopped(world: World) -> tuple[Path, Path]:
    """Return a copy of results that Ctrl-C stopped after the first epoch, and the run."""

    def make(folder: Path) -> None:
        save = runs.save_epoch

        def save_and_stop(*arguments):
            save(*arguments)
            raise KeyboardInterrupt

        with mock.patch.object(runs, "save_epoch", save_and_stop):
            outcome = world.train(folder)
        if outcome.code != 130:
            raise RuntimeError(f"the run was not stopped: {outcome}")

    results = world.copy("stopped", make)
    return results, run_of(results, "BR-leaf")


def write_members(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Change the members of a zip file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def without_variable(path: Path) -> None:
    """Remove the third variable of a saved state."""
    write_members(path, lambda members: members.pop("2.npy"))


def with_another_shape(path: Path) -> None:
    """Give the third variable of a saved state another shape."""
    array = io.BytesIO()
    np.save(array, np.zeros((3, 5)))
    write_members(path, lambda members: members.update({"2.npy": array.getvalue()}))


@cases(
    {
        "B2 a stopped run, its state.npz cut": (STATE, cut, AGAIN),
        "B2 a stopped run, its state.npz empty": (STATE, hold(b""), AGAIN),
        "B2 a stopped run, its state.npz with a flipped bit": (STATE, flip, AGAIN),
        "B2 a stopped run, its state.npz without a variable": (STATE, without_variable, AGAIN),
        "B2 a stopped run, its state.npz with a variable of another shape": (
            *(STATE, with_another_shape, AGAIN),
        ),
        "B3 a stopped run, its best weights gone": (BEST, Path.unlink, GONE),
        "B3 a stopped run, its best weights cut": (BEST, cut, GONE),
    }
)
def _(world, pattern, damage, said):
    results, folder = stopped(world)
    damage(next(folder.glob(pattern)))
    return world.train(results).accepted(said)


# Files that other rows need


@cases(
    {
        "C7 a row that starts from weights gone": Path.unlink,
        "A1 a row that starts from weights with a flipped bit": flip,
    }
)
def _(world, damage):
    results, parent, child = world.results()
    shutil.rmtree(child)
    damage(parent / WEIGHTS)
    return world.train(results, rows=CHILD).refused("Put the file back, or delete")


@cases("B4 a damaged config.json of one row does not stop the others")
def _(world):
    results, parent, _ = world.results()
    (parent / CONFIG).write_text("[]")
    return world.train(results, rows=("HLCP", "BR-leaf")).accepted()


@cases("A4 without config.json nothing is finished with other settings")
def _(world):
    results, parent, _ = world.results()
    (parent / CONFIG).unlink()
    outcome = world.train(results, "--learning-rate", "0.003", rows=("HLCP",))
    return outcome.accepted() or expect_runs(parent.parent, 2)


def expect_runs(folder: Path, count: int) -> str:
    """Return a problem if there are not so many runs with predictions."""
    folders = sorted(path.parent.name for path in folder.rglob(PREDICTIONS))
    return "" if len(folders) == count else f"runs with predictions: {folders}"


@cases("A5 predictions of the parent are not tabled")
def _(world):
    results, parent, child = world.results()
    before = (child / PREDICTIONS).read_bytes()
    shutil.copy(parent / PREDICTIONS, child / PREDICTIONS)
    problem = world.train(results, rows=CHILD).accepted()
    equal = (child / PREDICTIONS).read_bytes() == before
    return problem or ("" if equal else "other predictions")


@cases("A18 the same results are finished")
def _(world):
    return world.train(world.results()[0], rows=CHILD).accepted(FINISHED)


@cases("C5 a first try that failed leaves seed-0 to the next")
def _(world):
    results = world.new()
    problem = world.train(results, "--weights", "/nope.h5", rows=("HLCP",)).refused()
    second = world.train(results, rows=("HLCP",)).accepted()
    return problem or second or expect_runs(results, 1)


@cases("B12 --weights with HDF5 magic and junk")
def _(world):
    junk = world.new() / "junk.weights.h5"
    junk.write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 5000)
    return world.train(world.new(), "--weights", junk, rows=CHILD)


@cases("B19 a NaN loss in one row")
def _(world):
    results = world.new()
    flags = ("--finetune-learning-rate", "1e38")
    problem = world.train(results, *flags, rows=(*CHILD, "BR-leaf")).refused()
    tables = list(results.rglob("table.csv"))
    failed = tables and "failed" in tables[0].read_text()
    return problem or ("" if failed else "no table with `failed`")


@cases("B8 --batch-size 100000")
def _(world):
    return world.train(world.new(), "--batch-size", 100_000, rows=CHILD)


# The image cache


@cases("A6 a shard of the image cache filled with zeros")
def _(world):
    cache, before, after = world.new(), world.new(), world.new()
    problem = world.train(before, "--cache-dir", cache).accepted()
    shard = next((cache / "images").glob("*/*.npy"))
    content = shard.read_bytes()
    shard.write_bytes(content[:128] + bytes(len(content) - 128))
    problem = problem or world.train(after, "--cache-dir", cache).accepted(PREPARED_AGAIN)
    made = [(run_of(each, "BR-leaf") / PREDICTIONS).read_bytes() for each in (before, after)]
    return problem or ("" if made[0] == made[1] else "trained on black images")


@cases("B16 a damaged note beside a shard of the image cache")
def _(world):
    cache = world.new()
    problem = world.train(world.new(), "--cache-dir", cache).accepted()
    next((cache / "images").glob("*/*.npy.json")).write_bytes(b"\xff{")
    return problem or world.train(world.new(), "--cache-dir", cache).accepted(PREPARED_AGAIN)


@cases("C9 a file where the cache writes")
def _(world):
    cache = world.new()
    (cache / "images").touch()
    outcome = world.train(world.new(), "--cache-dir", cache)
    return outcome.refused(unsaid=("free some",))


@cases("C9 a foreign folder where the cache writes")
def _(world):
    cache = world.new()
    world.train(world.new(), "--cache-dir", cache)
    index = next((cache / "images").glob("*/index.json"))
    index.unlink()
    (index / "holiday").mkdir(parents=True)
    outcome = world.train(world.new(), "--cache-dir", cache)
    return outcome.refused(unsaid=("free some",))


# Data that were shuffled, copied or changed


def shuffled(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    for path in folder.rglob("*_set*.csv"):
        header, *lines = path.read_text().splitlines()
        path.write_text("\n".join([header, *generator.permutation(lines)]) + "\n")
    return folder


def copied(folder: Path) -> Path:
    """Copy a dataset; the copies have other file times."""
    copy = folder.with_name("copied")
    return Path(shutil.copytree(folder, copy, copy_function=shutil.copyfile))


def with_another_image(folder: Path) -> Path:
    first, second, *_ = sorted(folder.rglob("*.png"))
    shutil.copyfile(second, first)
    return folder


@cases(
    {
        "A17 shuffled rows of the lists are the same data": (shuffled, FINISHED),
        "A18 copied data with other file times are the same data": (copied, FINISHED),
        "C12 what changed in the data is named": (with_another_image, "the data images changed"),
    }
)
def _(world, change, said):
    results, folder = world.new(), world.dataset("plco")
    problem = world.train(results, data=folder).accepted()
    return problem or world.train(results, data=change(folder)).accepted(said)


# Processes, backends and disks


@cases(
    {
        "B6 two processes on one results folder, one setting": ([], 1),
        "B6 two processes on one results folder, two settings": (["--learning-rate", "0.003"], 2),
    }
)
def _(world, flags, count):
    results = world.new()
    folders = ["--cache-dir", world.folder / "cache", "--results-dir", results]
    words = [*SMALL, "--phantoms", 60, "--rows", "BR-leaf", *folders]
    command = [sys.executable, "-m", "reproduce.chen2019", *map(str, words)]
    started = [
        subprocess.Popen(
            [*command, *more], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for more in ([], flags)
    ]
    problems = [ended(process).accepted() for process in started]
    return together([*problems, expect_runs(results, count), leftovers(results)])


def ended(process: subprocess.Popen) -> Outcome:
    """Wait for a process; kill it after the limit."""
    try:
        _, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
    return Outcome(process.returncode, "", err.decode())


@cases("B18 SIGTERM ends with 143")
def _(world):
    words = [sys.executable, "-m", "reproduce.chen2019", "--results-dir", str(world.new())]
    process = subprocess.Popen(
        words, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    time.sleep(12)
    process.send_signal(signal.SIGTERM)
    outcome = ended(process)
    return outcome._replace(code=2).refused() if outcome.code == 143 else f"exit {outcome.code}"


@cases("B7 KERAS_BACKEND=foo")
def _(world):
    return world.train(world.new(), KERAS_BACKEND="foo")


@cases("B7 KERAS_BACKEND=jax, not installed")
def _(world):
    path = world.without("jax")
    return world.train(world.new(), KERAS_BACKEND="jax", PYTHONPATH=path).refused("pip install")


@cases("B7 KERAS_BACKEND=jax, installed")
def _(world):
    return world.train(world.new(), KERAS_BACKEND="jax").accepted()


@cases("B1 a disk that is full while a run writes")
def _(world):
    """Fill a file system of 400 KB, then enlarge it and resume; mounting it needs root."""
    disk = world.new()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk]).returncode:
        return "no file system could be mounted, for which root's rights are needed"
    try:
        refused = world.train(disk).refused()
        unfinished = leftovers(disk)
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        completed = world.train(disk).accepted()
    finally:
        subprocess.run(["umount", "-l", disk])
    return refused or unfinished or completed
