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
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import forked
import kill_and_resume
import numpy as np

SMALL = ["--phantoms", "150", "--size", "32", "--batch-size", "16", "--resamples", "20"]
CHEN = [*SMALL, "--epochs", "2", "--finetune-epochs", "1"]
ROWS = ["--rows", "BR-leaf", "HLUP-finetune", "HLCP, same budget"]
PHAM = [*SMALL, "--resize", "36", "--epochs", "1", "--rows", "Ignore", "U-Zeros"]


def sentences() -> tuple[type[Exception], ...]:
    """The errors that reach the user as one sentence."""
    from data import DataError
    from evaluation import EvaluationError
    from models import ModelError
    from reproduce import RunError

    return DataError, EvaluationError, ModelError, RunError


def read_everything(results: Path) -> dict[str, str]:
    """What every reader says of every run: a digest of what it gives, or its sentence."""
    from data import files

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
        read = functools.partial(files.changed_since_sealed, folder)
        note(f"{folder.relative_to(results)} tables", read)
    return said


def weights(folder: Path) -> str:
    from data import files
    from reproduce.engine import state

    return files.sha256(state.weights_of(folder))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--whole", type=int, default=25, help="trials that run the script again")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    forked.warm_up()
    draw, counts, problems = random.Random(options.seed), collections.Counter(), []
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        results, cache, log = at / "results", ["--cache-dir", str(at / "cache")], at / "log.txt"
        to = ["--results-dir", str(results), *cache]
        for module, flags in (("chen2019", [*CHEN, *ROWS]), ("pham2019", PHAM)):
            if forked.wait(forked.start(f"reproduce.{module}", [*flags, *to], log)):
                sys.exit(log.read_text()[-3000:])
        stopped = forked.start(
            "reproduce.chen2019",
            [*CHEN, "--epochs", "3", "--rows", "BR-all", *to],
            log,
            kill_and_resume.kill_inside_a_write(8, half=True),
        )
        if forked.wait(stopped) != -signal.SIGKILL:
            sys.exit(f"the stopped run was not stopped: {log.read_text()[-1500:]}")
        for path in results.glob("*/*/*/*/state.npz"):
            with np.load(path) as archive:
                count = len(archive.files) - 1
                SHAPES[path.parent.parent.name] = [archive[str(n)].shape for n in range(count)]
        paths = sorted(p for p in results.rglob("*") if p.is_file() and p.name[0] != ".")
        whole = {path: path.read_bytes() for path in paths}
        before = read_everything(results)
        assert any(key.endswith("state") and said != "begins again" for key, said in before.items())

        def restore() -> None:
            for path in [p for p in results.rglob("*") if p.is_file() and p.name[0] != "."]:
                if path not in whole:
                    path.unlink()
            for path, content in whole.items():
                if not path.exists() or path.read_bytes() != content:
                    path.write_bytes(content)

        for _ in range(options.trials):
            path = draw.choice(paths)
            kind = damage(path, paths, draw)
            if path.exists() and path.read_bytes() == whole[path]:
                continue
            counts[kind] += 1
            where = f"{kind} in {path.relative_to(results)}"
            try:
                after = read_everything(results)
            except Exception as error:  # what this script is for
                problems.append(f"{where}: {type(error).__name__}: {error}")
                counts["crashed"] += 1
            else:
                silent = [key for key, now in after.items() if wrong(key, now, before)]
                if path.parent.parent.name == "BR-all" and path.name == "history.csv":
                    silent += [] if after == before else ["its copy in the state"]
                elif (
                    after == before
                    and path.suffix in TEXTS
                    and not (
                        path.name == "checksums.json" and kind == "delete"  # holds no number itself
                    )
                ):
                    silent.append("nobody noticed")
                if silent:
                    problems.append(f"{where}: {', '.join(silent)}")
                    counts["silent"] += 1
            restore()
        print("read damaged files:", dict(counts), flush=True)
        run_again(options.whole, draw, paths, whole, results, at, to, restore, problems)
    print("\n".join(problems[:60]))
    print(f"{len(problems)} not as promised")
    sys.exit(bool(problems))


def run_again(count, draw, paths, whole, results, at, to, restore, problems) -> None:
    """Damage a file, run the script again to its end, compare what it then holds."""
    expected = {
        path: content for path, content in whole.items() if path.name.startswith("predictions")
    }
    done = collections.Counter()
    of_chen = [path for path in paths if "chen2019" in path.parts]
    for trial in range(count):
        path = draw.choice([p for p in of_chen if p.name != "log.txt"])
        kind = damage(path, of_chen, draw)
        log = at / f"again-{trial}.txt"
        code = forked.wait(forked.start("reproduce.chen2019", [*CHEN, *ROWS, *to], log))
        text = log.read_text()
        wrong = [
            str(p.relative_to(results))
            for p in expected
            if "chen2019" in p.parts
            and not any(q.read_bytes() == expected[p] for q in p.parent.parent.glob("*/" + p.name))
        ]
        done[code] += 1
        if "Traceback" in text or code not in (0, 1, 2) or (code == 0 and wrong):
            where = f"again after {kind} in {path.relative_to(results)}"
            problems.append(f"{where}: exit {code}, {wrong}; {text[-300:]}")
        restore()
    print(f"ran the script again after {count} of them, by exit code: {dict(done)}", flush=True)


if __name__ == "__main__":
    main()
