"""Kill runs at random moments, resume them, and compare their predictions with undisturbed runs.

    python -m tests.campaigns.kill_and_resume --kills 100

Rows of chen2019 and ge2018 are trained on a few synthetic images and killed by SIGKILL again and
again until they end, half of them inside a write. Every predictions.npz must then be equal,
byte for byte, and no unfinished file may be left.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import safefiles
from tests.campaigns import forked

SCRIPTS = {
    forked.CHEN: [
        *(*forked.SMALL, "--epochs", "3", "--finetune-epochs", "2"),
        *("--rows", "BR-leaf", "HLUP-finetune", "HLUP (naive)"),
    ],
    "reproduce.ge2018": [
        *(*forked.SMALL, "--epochs", "3"),
        *("--rows", "R18 + R18-F-MSML", "R18 + R18-BL"),
    ],
}


def kill_inside_a_write(number: int, half: bool) -> Callable[[], None]:
    """Return a function after which a process dies at its so many-th write, half done or done."""

    def before() -> None:
        replace, left = Path.replace, [number]

        def dying(partial: Path, target: Path) -> Path:
            if partial.name.startswith(safefiles.PART):
                left[0] -= 1
                if not left[0]:
                    if half:
                        os.truncate(partial, partial.stat().st_size // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
            return replace(partial, target)

        Path.replace = dying

    return before


def killed_until_done(
    module: str, flags: list[str], log: Path, draw: random.Random, most: int
) -> tuple[int, int]:
    """Run a script that is killed up to `most` times; return the kills, and those in a write."""
    kills, in_writes = 0, 0
    while True:
        last = kills >= most
        in_write = not last and draw.random() < 0.5
        if in_write:
            before = kill_inside_a_write(draw.randint(1, 12), draw.random() < 0.5)
            child = forked.start(module, flags, log, before)
        else:
            child = forked.start(module, flags, log)
            if not last:
                time.sleep(draw.uniform(0.2, 9))
                os.kill(child, signal.SIGKILL)  # has no effect if the child has ended
        code = forked.wait(child)
        if code == 0:
            return kills, in_writes
        if code != -signal.SIGKILL:
            sys.exit(f"{module} ended with {code}; see {log}")
        kills, in_writes = kills + 1, in_writes + in_write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, kills, in_writes, compared, wrong = random.Random(options.seed), 0, 0, 0, 0
    forked.warm_up()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        log, cache = folder / "log.txt", ["--cache-dir", str(folder / "cache")]
        expected = {}
        for module, flags in SCRIPTS.items():
            whole = folder / module
            words = [*flags, *cache, "--results-dir", str(whole)]
            forked.run_undisturbed(module, words, log)
            expected[module] = forked.predictions(whole)
        while kills < options.kills:
            module, again = draw.choice(list(SCRIPTS)), folder / "again"
            flags = [*SCRIPTS[module], *cache, "--results-dir", str(again)]
            most = min(options.kills - kills, 12)
            counts = killed_until_done(module, flags, log, draw, most)
            made = forked.predictions(again)
            differing = forked.differing(expected[module], made)
            kills, in_writes = kills + counts[0], in_writes + counts[1]
            compared, wrong = compared + len(made), wrong + len(differing)
            leftovers = [path.name for path in again.rglob(".part-*")]
            print(
                f"{module}: {counts[0]} kills, {counts[1]} inside a write; {len(made)} files of "
                f"predictions, {len(differing)} differ {' '.join(differing)}; "
                f"{len(leftovers)} unfinished files left",
                flush=True,
            )
            shutil.rmtree(again)
    print(f"{kills} kills ({in_writes} inside a write), {compared} files compared, {wrong} differ")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
