"""Kills runs at random moments, half of them inside a write, and compares with undisturbed ones.

    python tests/kill_and_resume.py --kills 100

Rows of chen2019 and ge2018 are trained on a few phantoms and killed by SIGKILL again and again
until they end; every predictions.npz must then be equal, byte for byte.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import forked

SMALL = ["--phantoms", "150", "--size", "32", "--batch-size", "16", "--resamples", "20"]
SCRIPTS = {
    "reproduce.chen2019": [*SMALL, "--epochs", "3", "--finetune-epochs", "2", "--rows", "BR-leaf",
                           "HLUP-finetune", "HLUP (naive)"],
    "reproduce.ge2018": [*SMALL, "--epochs", "3", "--rows", "R18 + R18-F-MSML", "R18 + R18-BL"],
}  # fmt: skip


def kill_inside_a_write(number: int, half: bool):
    """What a child does first: it dies at its so many-th write, at half of the file or all."""

    def before() -> None:
        import safefiles

        replace, left = Path.replace, [number]

        def dying(partial: Path, target: Path):
            if partial.name.startswith(safefiles.PART):
                left[0] -= 1
                if not left[0]:
                    if half:
                        os.truncate(partial, partial.stat().st_size // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
            return replace(partial, target)

        Path.replace = dying

    return before


def predictions(folder: Path) -> dict[str, bytes]:
    paths = folder.rglob("predictions*.npz")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def killed_until_done(module: str, flags: list[str], log: Path, draw: random.Random, most: int):
    """Run a script that is killed up to `most` times; the kills, and those inside a write."""
    kills, inside = 0, 0
    while True:
        last = kills >= most
        writes = not last and draw.random() < 0.5
        before = kill_inside_a_write(draw.randint(1, 12), draw.random() < 0.5) if writes else None
        child = forked.start(module, flags, log, before or (lambda: None))
        if not last and not writes:
            time.sleep(draw.uniform(0.2, 9))
            os.kill(child, signal.SIGKILL)  # of one that has ended, nothing is left to kill
        code = forked.wait(child)
        if code == 0:
            return kills, inside
        if code != -signal.SIGKILL:
            sys.exit(f"{module} ended with {code}; see {log}")
        kills, inside = kills + 1, inside + writes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, kills, inside, compared, differing = random.Random(options.seed), 0, 0, 0, 0
    forked.warm_up()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        log, cache = folder / "log.txt", ["--cache-dir", str(folder / "cache")]
        expected = {}
        for module, flags in SCRIPTS.items():
            whole = folder / module
            child = forked.start(module, [*flags, *cache, "--results-dir", str(whole)], log)
            if code := forked.wait(child):
                sys.exit(f"{module}: exit code {code}\n{log.read_text()[-3000:]}")
            expected[module] = predictions(whole)
        while kills < options.kills:
            module = draw.choice(list(SCRIPTS))
            again = folder / "again"
            flags = [*SCRIPTS[module], *cache, "--results-dir", str(again)]
            most = min(options.kills - kills, 12)
            done, in_writes = killed_until_done(module, flags, log, draw, most)
            made = predictions(again)
            wrong = [name for name in expected[module] if made.get(name) != expected[module][name]]
            kills, inside = kills + done, inside + in_writes
            compared, differing = compared + len(made), differing + len(wrong)
            leftovers = [path.name for path in again.rglob(".part-*")]
            print(
                f"{module}: {done} kills, {in_writes} inside a write; {len(made)} files of "
                f"predictions, {len(wrong)} differ{': ' + ', '.join(wrong) if wrong else ''}; "
                f"{len(leftovers)} unfinished files left",
                flush=True,
            )
            shutil.rmtree(again)
    print(f"{kills} kills ({inside} inside a write), {compared} files compared, {differing} differ")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
