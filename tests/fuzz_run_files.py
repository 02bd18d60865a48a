"""Damages the files that runs write and sees that nothing reads a wrong number, or crashes.

    python tests/fuzz_run_files.py --trials 3000

Every trial flips a bit, cuts, empties, deletes or swaps a file of finished and of stopped runs,
then reads all of them as the scripts, the tables and predict do. They must give what they gave
before, or one sentence that names the file. Some trials run the script again to its end, whose
predictions must be equal, byte for byte.
"""

import argparse
import collections
import contextlib
import functools
import hashlib
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import forked
import kill_and_resume
import numpy as np

SMALL = ["--phantoms", "150", "--size", "32", "--batch-size", "16", "--resamples", "20"]
CHEN = [*SMALL, "--epochs", "2", "--finetune-epochs", "1"]
ROWS = ["--rows", "BR-leaf", "HLUP-finetune", "HLCP, same budget"]
PHAM = [*SMALL, "--resize", "36", "--epochs", "1", "--rows", "Ignore", "U-Zeros"]


def sentences() -> tuple[type[Exception], ...]:
    """The errors that reach the user as one sentence."""
    from safefiles import UserError

    return (UserError,)


def read_everything(results: Path) -> dict[str, str]:
    """What every reader says of every run: a digest of what it gives, or its sentence."""
    import safefiles

    said = {}

    def note(key: str, read: Callable[[], object]) -> None:
        try:
            said[key] = str(read())
        except sentences() as error:
            said[key] = f"refused: {error}"

    for folder in sorted(results.glob("*/*/*/*")):
        if folder.is_dir():
            for what, read in READERS.items():
                note(
                    f"{folder.relative_to(results).as_posix()} {what}",
                    functools.partial(read, folder),
                )
    for folder in sorted(results.glob("*/*")):
        read = functools.partial(safefiles.changed_since_sealed, folder)
        note(f"{folder.relative_to(results)} tables", read)
    return said


def weights(folder: Path) -> str:
    import safefiles
    from reproduce.engine import state

    return safefiles.sha256(state.weights_of(folder))


def template(folder: Path) -> str:
    from reproduce.engine import state

    return digest(state.template_of(folder))


def rebuilt(folder: Path) -> str:
    from reproduce.engine import rebuild

    return rebuild.load(folder).name


def predicted(folder: Path, name: str = "predictions.npz") -> str:
    from reproduce.engine import state

    if not (folder / name).exists():
        return "None"
    found = state.load_predictions(folder, (state.record(folder) or {}).get("digest", "?"), name)
    numbers = np.concatenate([found.probabilities.ravel(), np.nan_to_num(found.targets).ravel()])
    texts = "|".join(map(str, [*found.ids, *found.patients, *found.labels]))
    return hashlib.sha256((digest(numbers) + texts).encode()).hexdigest()


def predicted_public(folder: Path) -> str:
    return predicted(folder, "predictions-public.npz")


def lines(folder: Path) -> str:
    from reproduce.engine import state

    if (folder / state.FINISHED).exists():  # sealed, with the tables
        return "None"
    return state.history(folder).to_csv() if (folder / state.STATE).exists() else "None"


def stopped_state(folder: Path) -> str:
    """A stopped run's state: none, or all of it as it was; damaged, the run begins again."""
    from reproduce.engine import state

    if folder.parent.name not in SHAPES or not (folder / state.STATE).exists():
        return "begins again"
    record = state.record(folder) or {}
    run = SimpleNamespace(folder=folder, digest=record.get("digest"), name=folder.name)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        read, epochs, _ = state.load_epoch(run, SHAPES[folder.parent.name])
        arrays = list(read)
    if not arrays:
        return "begins again"
    return digest(np.concatenate([array.ravel() for array in arrays])) + str(len(epochs))


READERS = {
    "test set": predicted,
    "public set": predicted_public,
    "weights": weights,
    "template": template,
    "rebuilt": rebuilt,
    "state": stopped_state,
    "history": lines,
}
TEXTS = (".csv", ".gz", ".json", ".md", ".svg")  # nothing inside them proves them
SHAPES: dict[str, list[tuple[int, ...]]] = {}


def digest(array: np.ndarray | None) -> str:
    return (
        "none"
        if array is None
        else hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    )


def wrong(key: str, now: str, before: dict[str, str]) -> bool:
    """Whether a reader gives something else than before, and not a sentence about it."""
    refused = now.startswith("refused") or now in ("begins again", "None", "none")
    if key.endswith("tables"):  # names the files that have changed
        refused = now != "[]"
    return now != before.get(key) and not refused


def damage(path: Path, paths: list[Path], draw: random.Random) -> str:
    """Change a file in one of seven ways; which."""
    content = path.read_bytes()
    kind = draw.choice(["bit", "bit", "bit", "cut", "empty", "delete", "swap", "zeros", "junk"])
    if kind == "bit" and content:
        place = draw.randrange(len(content))
        flipped = content[place] ^ (1 << draw.randrange(8))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
    elif kind == "cut":
        path.write_bytes(content[: draw.randrange(len(content) or 1)])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "delete":
        path.unlink()
    elif kind == "swap":
        others = [other for other in paths if other.name == path.name and other != path]
        path.write_bytes(draw.choice(others).read_bytes() if others else b"\x00" * 16)
    elif kind == "zeros":
        path.write_bytes(b"\x00" * len(content))
    else:
        path.write_bytes(draw.randbytes(draw.randrange(1, 400)))
    return kind


class Trained(NamedTuple):
    """Runs to be damaged, and what their files hold."""

    results: Path
    flags: list[str]  # of the folders
    whole: dict[Path, bytes]

    @property
    def paths(self) -> list[Path]:
        return [*self.whole]

    def restore(self) -> None:
        for path in files_of(self.results):
            if path not in self.whole:
                path.unlink()
        for path, content in self.whole.items():
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)


def files_of(results: Path) -> list[Path]:
    return sorted(p for p in results.rglob("*") if p.is_file() and p.name[0] != ".")


def train(folder: Path) -> Trained:
    """Finished runs of two papers, and one that was killed while it wrote its state."""
    results, log = folder / "results", folder / "log.txt"
    flags = ["--results-dir", str(results), "--cache-dir", str(folder / "cache")]
    for module, more in (("chen2019", [*CHEN, *ROWS]), ("pham2019", PHAM)):
        if forked.wait(forked.start(f"reproduce.{module}", [*more, *flags], log)):
            sys.exit(log.read_text()[-3000:])
    more = [*CHEN, "--epochs", "3", "--rows", "BR-all", *flags]
    kill = kill_and_resume.kill_inside_a_write(8, half=True)
    if forked.wait(forked.start("reproduce.chen2019", more, log, kill)) != -signal.SIGKILL:
        sys.exit(f"the stopped run was not stopped: {log.read_text()[-1500:]}")
    for path in results.glob("*/*/*/*/state.npz"):
        with np.load(path) as archive:
            count = len(archive.files) - 1
            SHAPES[path.parent.parent.name] = [archive[str(n)].shape for n in range(count)]
    return Trained(results, flags, {path: path.read_bytes() for path in files_of(results)})


def read_damaged(trained: Trained, trials: int, draw: random.Random) -> Iterator[str]:
    """Damage a file and read everything; what is not as promised."""
    counts: collections.Counter[str] = collections.Counter()
    before = read_everything(trained.results)
    assert any(key.endswith("state") and said != "begins again" for key, said in before.items())
    for _ in range(trials):
        path = draw.choice(trained.paths)
        kind = damage(path, trained.paths, draw)
        if path.exists() and path.read_bytes() == trained.whole[path]:
            continue
        counts[kind] += 1
        where = f"{kind} in {path.relative_to(trained.results)}"
        try:
            after = read_everything(trained.results)
        except Exception as error:  # what this script is for
            counts["crashed"] += 1
            yield f"{where}: {type(error).__name__}: {error}"
        else:
            if silent := passed_over(path, kind, before, after):
                counts["silent"] += 1
                yield f"{where}: {', '.join(silent)}"
        trained.restore()
    print("read damaged files:", dict(counts), flush=True)


def passed_over(path: Path, kind: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What gives something else than before without a word about the damage."""
    silent = [key for key, now in after.items() if wrong(key, now, before)]
    if path.parent.parent.name == "BR-all" and path.name == "history.csv":
        return silent + ([] if after == before else ["its copy in the state"])
    no_number = path.name == "checksums.json" and kind == "delete"
    if after == before and path.suffix in TEXTS and not no_number:
        silent.append("nobody noticed")
    return silent


def run_again(trained: Trained, count: int, draw: random.Random, folder: Path) -> Iterator[str]:
    """Damage a file, run the script again to its end, compare what it then holds."""
    of_chen = [path for path in trained.paths if "chen2019" in path.parts]
    expected = {p: trained.whole[p] for p in of_chen if p.name.startswith("predictions")}
    done: collections.Counter[int] = collections.Counter()
    for trial in range(count):
        path = draw.choice([p for p in of_chen if p.name != "log.txt"])
        kind = damage(path, of_chen, draw)
        log = folder / f"again-{trial}.txt"
        code = forked.wait(forked.start("reproduce.chen2019", [*CHEN, *ROWS, *trained.flags], log))
        text = log.read_text()
        other = [
            str(p.relative_to(trained.results))
            for p, content in expected.items()
            if not any(q.read_bytes() == content for q in p.parent.parent.glob("*/" + p.name))
        ]
        done[code] += 1
        if "Traceback" in text or code not in (0, 1, 2) or (code == 0 and other):
            where = f"again after {kind} in {path.relative_to(trained.results)}"
            yield f"{where}: exit {code}, {other}; {text[-300:]}"
        trained.restore()
    print(f"ran the script again after {count} of them, by exit code: {dict(done)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--whole", type=int, default=25, help="trials that run the script again")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    forked.warm_up()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        trained = train(Path(scratch))
        problems = [
            *read_damaged(trained, options.trials, draw),
            *run_again(trained, options.whole, draw, Path(scratch)),
        ]
    print("\n".join(problems[:60]))
    print(f"{len(problems)} not as promised")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
