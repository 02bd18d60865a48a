"""Damages the files that runs write and sees that nothing reads a wrong number, or crashes.

    python tests/fuzz_run_files.py --trials 3000

Every trial flips a bit, cuts, empties, deletes or swaps a file of finished and of stopped runs, then
reads all of them as the scripts, the tables, predict and the report do. What they give must be what
they gave before; otherwise one sentence names the file. Some trials run the script again to its
end, whose predictions must be equal, byte for byte.
"""

import argparse
import collections
import hashlib
import random
import shutil
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
    from reproduce.engine import rebuild, state

    said = {}

    def note(key: str, read: Callable[[], object]) -> None:
        try:
            said[key] = str(read())
        except sentences() as error:
            said[key] = f"refused: {error}"

    for config in sorted(results.glob("*/*/*/*")):
        if not config.is_dir():
            continue
        folder, name = config, config.relative_to(results).as_posix()
        note(f"{name} settings", lambda: (state.record(folder) or {}).get("digest"))
        note(f"{name} weights", lambda: files.sha256(state.weights_of(folder)))
        note(f"{name} template", lambda: digest(state.template_of(folder)))
        note(f"{name} predictions", lambda: of_predictions(folder))
        note(f"{name} rebuilt", lambda: rebuild.load(folder).name)
        note(f"{name} state", lambda: of_state(folder))
    for folder in sorted(results.glob("*/*")):
        note(f"{folder.relative_to(results)} tables", lambda: files.changed_since_sealed(folder))
    return said


def of_predictions(folder: Path) -> str:
    from reproduce.engine import state

    record = state.record(folder) or {}
    found = state.load_predictions(folder, record.get("digest", "?"))
    arrays = (found.probabilities, np.nan_to_num(found.targets, nan=-1))
    texts = "|".join([*map(str, found.ids), *map(str, found.patients), *map(str, found.labels)])
    return hashlib.sha256(b"".join(each.tobytes() for each in arrays) + texts.encode()).hexdigest()


def of_state(folder: Path) -> str:
    """A stopped run's state: nothing, or all of it as it was."""
    from reproduce.engine import state

    record = state.record(folder) or {}
    with np.load(folder / state.STATE) as archive:  # shapes as the network would tell them
        count = len(archive.files) - 1
    shapes = SHAPES.get(folder.parent.name, [()] * count)
    run = SimpleNamespace(folder=folder, digest=record.get("digest"), name=folder.name)
    arrays, history, best = state.load_epoch(run, shapes)
    return (
        "begins again"
        if not arrays
        else digest(np.concatenate([a.ravel() for a in arrays])) + str(len(history))
    )


SHAPES: dict[str, list[tuple[int, ...]]] = {}


def digest(array: np.ndarray | None) -> str:
    return (
        "none"
        if array is None
        else hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    )


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
        assert any("state" in key and "refused" not in said for key, said in before.items())

        def restore() -> None:
            for path in [p for p in results.rglob("*") if p.is_file() and p.name[0] != "."]:
                if path not in whole:
                    path.unlink()
            for path, content in whole.items():
                if not path.exists() or path.read_bytes() != content:
                    path.write_bytes(content)

        for trial in range(options.trials):
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
                silent = [
                    key
                    for key, said in after.items()
                    if said != before.get(key)
                    and not said.startswith(("refused", "begins again", "["))
                    and said != "None"
                ]
                noticed = after != before
                if silent or (not noticed and path.name not in ("log.txt",)):
                    problems.append(f"{where}: {silent or 'nobody noticed'}")
                    counts["silent"] += 1
            restore()
        print(
            f"read {sum(counts[k] for k in counts if k not in ('crashed', 'silent'))} damaged files:",
            dict(counts),
            flush=True,
        )
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
            problems.append(
                f"again after {kind} in {path.relative_to(results)}: exit {code}, {wrong}; {text[-300:]}"
            )
        restore()
    print(f"ran the script again after {count} of them, by exit code: {dict(done)}", flush=True)


if __name__ == "__main__":
    main()
