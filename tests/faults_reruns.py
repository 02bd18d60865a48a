"""The cases of tests/faults.py on commands that are given again: after a stop, beside another
process, with damaged files, and with data that were copied, shuffled or changed."""

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from tests.faults_runs import flip, rewrite
from tests.faults_world import LIMIT, ROOT, SMALL, Outcome, World, case, missing_modules, run

ONE_ROW = ("BR-leaf",)
RUN = "chen2019/plco-phantoms/BR-leaf/seed-0"
FINISHED, AGAIN = "are finished and stay", "prepared again"


def ends(outcome: Outcome, said: str) -> str:
    """Why a command did not end well, or did not say what it should."""
    shown = outcome.out + outcome.err
    return outcome.accepted or ("" if said in shown else f"does not say {said!r}: {shown[-300:]}")


# Stopped runs whose files are damaged


def stopped(world: World) -> Path:
    """A copy of the results of a run that Ctrl-C stopped after its first epoch."""
    first = world.folder / "stopped"
    if not first.exists():
        from reproduce.engine import state

        save = state.save_epoch

        def save_and_stop(*arguments):
            save(*arguments)
            raise KeyboardInterrupt

        with mock.patch.object(state, "save_epoch", save_and_stop):
            outcome = world.train(first, rows=ONE_ROW)
        if outcome.code != 130:
            raise RuntimeError(f"the run was not stopped: {outcome}")
    return Path(shutil.copytree(first, world.new() / "results"))


def without_variable(path: Path) -> None:
    """Write a state again without its third variable."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            if name != "2.npy":
                archive.writestr(name, content)


def of_another_shape(path: Path) -> None:
    """Write a state again with another array in the place of its third variable."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "about.json"}
    with zipfile.ZipFile(path) as archive:
        about = archive.read("about.json")
    np.savez(path, **arrays | {"2": np.zeros((3, 5))})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("about.json", about)


STATES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "with a flipped bit": flip,
    "without a variable": without_variable,
    "with a variable of another shape": of_another_shape,
}
for title, damage in STATES.items():

    @case("B2", f"a stopped run, its state.npz {title}", quick=False)
    def _(world, damage=damage):
        results = stopped(world)
        damage(results / RUN / "state.npz")
        return ends(world.train(results, rows=ONE_ROW), "begins again: its state could not be read")


for title, damage in (
    ("gone", Path.unlink),
    ("cut", lambda path: os.truncate(path, 3000)),
):

    @case("B3", f"a stopped run, its best weights {title}", quick=False)
    def _(world, damage=damage):
        results = stopped(world)
        damage(next((results / RUN).glob("epoch-*.weights.h5")))
        return ends(world.train(results, rows=ONE_ROW), "the best weights so far, is gone")


# Weights and records that other rows need


def without_child(world: World, damage: Callable[[Path], object]) -> Outcome:
    """Train the child again after its parent's files were damaged."""
    results, parent, child = world.results()
    shutil.rmtree(child)
    damage(parent)
    return world.train(results)


for group, title, damage in (
    ("C7", "gone", lambda parent: (parent / "best.weights.h5").unlink()),
    ("A1", "with a flipped bit", lambda parent: flip(parent / "best.weights.h5")),
):

    @case(group, f"a row that starts from weights {title}", quick=False)
    def _(world, damage=damage):
        outcome = without_child(world, damage)
        advised = "Put the file back, or delete" in outcome.out
        return outcome.refused or ("" if advised else f"no advice: {outcome.out[-300:]}")


@case("B4", "a damaged config.json of one row does not stop the others", quick=False)
def _(world):
    results, parent, _ = world.results()
    (parent / "config.json").write_text("[]")
    return world.train(results, rows=("HLCP", *ONE_ROW)).accepted


@case("A4", "without config.json nothing is finished with other settings", quick=False)
def _(world):
    results, parent, _ = world.results()
    (parent / "config.json").unlink()
    outcome = world.train(results, "--learning-rate", "0.003", rows=("HLCP",))
    made = sorted(path.parent.name for path in parent.parent.glob("*/predictions.npz"))
    return outcome.accepted or ("" if len(made) == 2 else f"folders {made}")


# The image cache


@case("A6", "a shard of the image cache filled with zeros", quick=False)
def _(world):
    cache, before, after = world.new(), world.new(), world.new()
    flags = ("--cache-dir", cache)
    problem = world.train(before, *flags, rows=ONE_ROW).accepted
    shard = next((cache / "images").glob("*/*.npy"))
    content = shard.read_bytes()
    shard.write_bytes(content[:128] + bytes(len(content) - 128))
    problem = problem or ends(world.train(after, *flags, rows=ONE_ROW), AGAIN)
    equal = (before / RUN / "predictions.npz").read_bytes() == (
        after / RUN / "predictions.npz"
    ).read_bytes()
    return problem or ("" if equal else "other predictions: it was trained on black images")


@case("B16", "a damaged note beside a shard of the image cache", quick=False)
def _(world):
    cache, flags = world.new(), ()
    flags = ("--cache-dir", cache)
    problem = world.train(world.new(), *flags, rows=ONE_ROW).accepted
    next((cache / "images").glob("*/*.npy.json")).write_bytes(b"\xff{")
    return problem or ends(world.train(world.new(), *flags, rows=ONE_ROW), AGAIN)


for title, make in (
    ("a file", Path.touch),
    ("a foreign folder", lambda path: (path / "holiday").mkdir(parents=True)),
):

    @case("C9", f"{title} where the cache writes", quick=False)
    def _(world, title=title, make=make):
        cache = world.new()
        if title == "a file":
            make(cache / "images")
            outcome = world.train(world.new(), "--cache-dir", cache, rows=ONE_ROW)
            return outcome.refused or ("Free some space" if "free some" in outcome.err else "")
        world.train(world.new(), "--cache-dir", cache, rows=ONE_ROW)
        index = next((cache / "images").glob("*/index.json"))
        index.unlink()
        make(index)
        outcome = world.train(world.new(), "--cache-dir", cache, rows=ONE_ROW)
        return outcome.refused or ("Free some space" if "free some" in outcome.err else "")


# Data that were shuffled, copied or changed


def on_data(world: World, results: Path, folder: Path) -> Outcome:
    """Train one row on a dataset's folder, with the demo's settings."""
    return world.train(results, rows=ONE_ROW, data=folder)


def after_change(world: World, change: Callable[[Path], Path]) -> Outcome:
    """Train on data, change them, and give the same command for the folder that `change` gives."""
    results, folder = world.new(), world.dataset("plco")
    if problem := on_data(world, results, folder).accepted:
        return Outcome(-1, "", problem)
    return on_data(world, results, change(folder))


def shuffled(folder: Path) -> Path:
    numbers = np.random.default_rng(0)
    for path in folder.rglob("*_set*.csv"):
        header, *lines = path.read_text().splitlines()
        path.write_text("\n".join([header, *numbers.permutation(lines)]) + "\n")
    return folder


def copied(folder: Path) -> Path:
    copy = folder.with_name("copied")
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)  # with other times
    return copy


def another_image(folder: Path) -> Path:
    first, second, *_ = sorted(folder.rglob("*.png"))
    shutil.copyfile(second, first)
    return folder


@case("A17", "shuffled rows of the lists are the same data", quick=False)
def _(world):
    return ends(after_change(world, shuffled), FINISHED)


@case("A18", "copied data with other file times are the same data", quick=False)
def _(world):
    return ends(after_change(world, copied), FINISHED)


@case("C12", "what changed in the data is named", quick=False)
def _(world):
    return ends(after_change(world, another_image), "the data's images changed")


# Pham's template


def template_of_a_run(world: World, damage: Callable[[Path], object]) -> Outcome:
    """Predict with a run of pham2019 whose template.npz was damaged."""
    first = world.folder / "pham2019"
    if not first.exists():
        given = ["--phantoms", 60, "--size", 32, "--resize", 36, "--epochs", 1, "--batch-size", 8]
        given += ["--resamples", 20, "--rows", "U-Ones", "--cache-dir", world.folder / "cache"]
        outcome = run("reproduce.pham2019", *given, "--results-dir", first)
        if outcome.code:
            raise RuntimeError(f"the run to be damaged could not be trained: {outcome.err}")
    results = Path(shutil.copytree(first, world.new() / "results"))
    folder = next(results.rglob("U-Ones/seed-0"))
    damage(folder / "template.npz")
    return world.predict(folder)


for group, title, damage in (
    ("A2", "gone", Path.unlink),
    ("B16", "empty", lambda path: path.write_bytes(b"")),
    ("A2", "of other pixels", lambda path: np.savez(path, template=np.eye(32, dtype=np.uint8))),
):

    @case(group, f"predict: template.npz is {title}", quick=False)
    def _(world, damage=damage):
        outcome = template_of_a_run(world, damage)
        return outcome.refused or ("" if "template.npz" in outcome.err else "does not name it")


# Several processes


def together(world: World, *settings: list[str]) -> tuple[str, Path]:
    """Start processes on one results folder at once: the problem of the first, and the folder."""
    results = world.new()
    places = ["--cache-dir", world.folder / "cache", "--results-dir", results]
    words = [*SMALL, "--phantoms", 60, "--rows", *ONE_ROW, *places]
    command = [sys.executable, "-m", "reproduce.chen2019", *map(str, words)]
    started = [
        subprocess.Popen([*command, *more], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=-1)
        for more in settings
    ]
    problems = []
    for process in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LIMIT)
        process.kill()
        err = process.communicate()[1].decode()
        problems.append(Outcome(process.returncode, "", err).accepted)
    return "; ".join(filter(None, problems)), results


for title, settings, count in (
    ("one setting", ([], []), 1),
    ("two settings", ([], ["--learning-rate", "0.003"]), 2),
):

    @case("B6", f"two processes on one results folder, {title}", quick=False)
    def _(world, settings=settings, count=count):
        problem, results = together(world, *settings)
        folders = sorted(path.parent.name for path in results.rglob("predictions.npz"))
        parts = [path.name for path in results.rglob(".part-*")]
        return problem or ("" if len(folders) == count and not parts else f"{folders} {parts}")


# Backends


def on_backend(world: World, **environment: str) -> Outcome:
    places = ["--cache-dir", world.folder / "cache", "--results-dir", world.new()]
    words = [*SMALL, "--phantoms", 60, "--rows", *ONE_ROW, *places]
    return run("reproduce.chen2019", *words, **environment)


@case("B7", "KERAS_BACKEND=jax, not installed", quick=False)
def _(world):
    outcome = on_backend(world, KERAS_BACKEND="jax", PYTHONPATH=missing_modules(world, "jax"))
    return outcome.refused or ("" if "pip install" in outcome.err else "does not say how to add it")


@case("B7", "KERAS_BACKEND=jax, installed", quick=False)
def _(world):
    return on_backend(world, KERAS_BACKEND="jax").accepted


# Records of runs that another version or hand wrote


@case("B4", "predict: a record that lacks its digest", quick=False)
def _(world):
    _, parent, _ = world.results()
    rewrite(parent / "config.json", digest=None)
    return world.predict(parent)
