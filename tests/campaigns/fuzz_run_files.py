"""Damage the files of runs: no reader may return a wrong number or crash.

    python -m tests.campaigns.fuzz_run_files --trials 3000

Every trial flips a bit, cuts, empties, deletes or swaps a file of finished and of stopped runs,
then reads all of them as the scripts, the tables and predict do. They must return what they
returned before, or raise one sentence that names the file. Some trials run the script again to its
end; its predictions must then be equal, byte for byte.
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

import numpy as np

import safefiles
from reproduce.engine import rebuild, runs
from tests.campaigns import forked, kill_and_resume
from tests.flags import with_changes

CHEN = [*forked.SMALL, "--epochs", "2", "--finetune-epochs", "1"]
ROWS = ["--rows", "BR-leaf", "HLUP-finetune", "HLCP, same budget"]
PHAM = [*forked.SMALL, "--resize", "36", "--epochs", "1", "--rows", "Ignore", "U-Zeros"]
STOPPED = "BR-all"  # the row that was killed while it wrote its state
TEXTS = (".csv", ".gz", ".json", ".md", ".svg")  # nothing inside them proves them
NOTHING, AGAIN = "nothing", "begins again"
KINDS = ("bit", "bit", "bit", "cut", "empty", "delete", "swap", "zeros", "junk")


# What is read; each reader returns a text that differs if its numbers do


def digest(*arrays: np.ndarray) -> str:
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return hashlib.sha256(content).hexdigest()


def read_template(folder: Path) -> str:
    template = runs.template_of(folder)
    return NOTHING if template is None else digest(template)


def read_predictions(folder: Path, name: str = "predictions.npz") -> str:
    if not (folder / name).exists():
        return NOTHING
    expected = (runs.record(folder) or {}).get("digest", "?")
    predictions = runs.load_predictions(folder, expected, name)
    texts = "|".join([*predictions.ids, *predictions.patients, *predictions.labels])
    return digest(predictions.probabilities, np.nan_to_num(predictions.targets)) + texts


def read_history(folder: Path) -> str:
    """Read the history of a stopped run; that of a finished one is sealed with its tables."""
    if (folder / runs.FINISHED).exists() or not (folder / runs.STATE).exists():
        return NOTHING
    return runs.history(folder).to_csv()


def read_state(folder: Path, shapes: list[tuple[int, ...]]) -> str:
    """Read the state of a stopped run; a damaged one makes it begin again."""
    if not (folder / runs.STATE).exists():
        return AGAIN
    record = runs.record(folder) or {}
    run = SimpleNamespace(folder=folder, digest=record.get("digest"), name=folder.name)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        variables, epochs, _ = runs.load_epoch(run, shapes)
        arrays = list(variables)
    return f"{digest(*arrays)} {len(epochs)}" if arrays else AGAIN


READERS: dict[str, Callable[[Path], str]] = {
    "predictions": read_predictions,
    "public predictions": functools.partial(read_predictions, name="predictions-public.npz"),
    "weights": lambda folder: safefiles.sha256(runs.weights_of(folder)),
    "template": read_template,
    "network": lambda folder: rebuild.load(folder).name,
    "history": read_history,
}


class Trained(NamedTuple):
    """Runs to be damaged, and the content of their files."""

    results: Path
    flags: list[str]  # that name the folders
    content: dict[Path, bytes]
    shapes: list[tuple[int, ...]]  # of the stopped run's variables

    def restore(self) -> None:
        """Undo all damage."""
        for path in files_of(self.results):
            if path not in self.content:
                path.unlink()
        for path, content in self.content.items():
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)

    def read(self) -> dict[str, str]:
        """Return what every reader says of every run: its text, or its error's sentence."""
        said = {}
        for folder in sorted(self.results.glob("*/*/*/*")):
            if folder.is_dir():
                run = str(folder.relative_to(self.results))
                for name, read in READERS.items():
                    said[f"{run} {name}"] = sentence_or(read, folder)
        (stopped,) = self.results.glob(f"*/*/{STOPPED}/seed-*")
        said[f"{STOPPED} state"] = sentence_or(read_state, stopped, self.shapes)
        for folder in sorted(self.results.glob("*/*")):
            changed = sentence_or(safefiles.changed_since_sealed, folder)
            said[f"{folder.relative_to(self.results)} tables"] = changed
        return said


def sentence_or(read: Callable, *arguments: object) -> str:
    """Return what a reader returns as text, or the sentence that reaches the user."""
    try:
        return str(read(*arguments))
    except safefiles.UserError as error:
        return f"refused: {error}"


def files_of(results: Path) -> list[Path]:
    return sorted(p for p in results.rglob("*") if p.is_file() and p.name[0] != ".")


def train(folder: Path) -> Trained:
    """Train rows of two papers to their end, and one that is killed while it writes its state."""
    results, log = folder / "results", folder / "log.txt"
    flags = ["--results-dir", str(results), "--cache-dir", str(folder / "cache")]
    forked.run_undisturbed(forked.CHEN, [*CHEN, *ROWS, *flags], log)
    forked.run_undisturbed("reproduce.pham2019", [*PHAM, *flags], log)
    more = with_changes(CHEN, ["--epochs", "3", "--rows", STOPPED, *flags])
    kill = kill_and_resume.kill_inside_a_write(8, half=True)
    if forked.wait(forked.start(forked.CHEN, more, log, kill)) != -signal.SIGKILL:
        sys.exit(f"the stopped run was not stopped: {log.read_text()[-1500:]}")
    (path,) = results.glob("*/*/*/*/state.npz")
    with np.load(path) as archive:
        shapes = [archive[str(number)].shape for number in range(len(archive.files) - 1)]
    return Trained(results, flags, {path: path.read_bytes() for path in files_of(results)}, shapes)


# Trials


def damage(path: Path, paths: list[Path], draw: random.Random) -> str:
    """Change a file in one of several ways; return which."""
    content, kind = path.read_bytes(), draw.choice(KINDS)
    if kind == "delete":
        path.unlink()
        return kind
    if kind == "bit" and content:
        position = draw.randrange(len(content))
        flipped = content[position] ^ (1 << draw.randrange(8))
        content = content[:position] + bytes([flipped]) + content[position + 1 :]
    elif kind == "cut":
        content = content[: draw.randrange(len(content) or 1)]
    elif kind == "empty":
        content = b""
    elif kind == "swap":
        others = [other for other in paths if other.name == path.name and other != path]
        content = draw.choice(others).read_bytes() if others else b"\x00" * 16
    elif kind == "zeros":
        content = b"\x00" * len(content)
    else:
        content = draw.randbytes(draw.randrange(1, 400))
    path.write_bytes(content)
    return kind


def wrong(key: str, now: str, before: dict[str, str]) -> bool:
    """Return true if a reader says something new without refusing the file."""
    if key.endswith("tables"):  # names the files that have changed
        refused = now != "[]"
    else:
        refused = now.startswith("refused") or now in (AGAIN, NOTHING)
    return now != before.get(key) and not refused


def unnoticed(path: Path, kind: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the readers that gave something else without a word about the damage."""
    silent = [key for key, now in after.items() if wrong(key, now, before)]
    if path.parent.parent.name == STOPPED and path.name == "history.csv":
        return silent + ([] if after == before else ["its copy in the state"])
    seals_gone = path.name == safefiles.SEALS and kind == "delete"
    if after == before and path.suffix in TEXTS and not seals_gone:
        silent.append("nobody noticed")
    return silent


def read_damaged(trained: Trained, trials: int, draw: random.Random) -> Iterator[str]:
    """Damage a file and read everything; yield what is not as promised."""
    counts: collections.Counter[str] = collections.Counter()
    before, paths = trained.read(), [*trained.content]
    assert before[f"{STOPPED} state"] != AGAIN
    for _ in range(trials):
        path = draw.choice(paths)
        kind = damage(path, paths, draw)
        if path.exists() and path.read_bytes() == trained.content[path]:
            continue
        counts[kind] += 1
        where = f"{kind} in {path.relative_to(trained.results)}"
        try:
            after = trained.read()
        except Exception as error:  # the crashes that this campaign looks for
            counts["crashed"] += 1
            yield f"{where}: {type(error).__name__}: {error}"
        else:
            if silent := unnoticed(path, kind, before, after):
                counts["silent"] += 1
                yield f"{where}: {', '.join(silent)}"
        trained.restore()
    print("read damaged files:", dict(counts), flush=True)


def run_again(trained: Trained, count: int, draw: random.Random, folder: Path) -> Iterator[str]:
    """Damage a file, run the script again to its end, and compare its predictions."""
    paths = [path for path in trained.content if "chen2019" in path.parts]
    expected = [path for path in paths if path.name.startswith("predictions")]
    codes: collections.Counter[int] = collections.Counter()
    for trial in range(count):
        path = draw.choice([path for path in paths if path.name != "log.txt"])
        kind = damage(path, paths, draw)
        log = folder / f"again-{trial}.txt"
        code = forked.run(forked.CHEN, [*CHEN, *ROWS, *trained.flags], log)
        text = log.read_text()
        other = [
            str(each.relative_to(trained.results))
            for each in expected
            if not any(
                made.read_bytes() == trained.content[each]
                for made in each.parent.parent.glob(f"*/{each.name}")
            )
        ]
        codes[code] += 1
        if "Traceback" in text or code not in (0, 1, 2) or (code == 0 and other):
            where = f"again after {kind} in {path.relative_to(trained.results)}"
            yield f"{where}: exit {code}, {other}; {text[-300:]}"
        trained.restore()
    print(f"ran the script again after {count} of them, by exit code: {dict(codes)}", flush=True)


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
