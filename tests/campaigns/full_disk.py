"""Let the disk of the results folder fill up at many sizes; needs root, to mount a tmpfs.

    sudo python -m tests.campaigns.full_disk --sizes 40

A script that meets the full disk must end with one sentence, exit code 2 and no unfinished file;
after space was made, the same command must end with the predictions of an undisturbed run.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.campaigns import forked, kill_and_resume

FLAGS = kill_and_resume.SCRIPTS[forked.CHEN]


def fill(
    disk: Path, size: int, flags: list[str], log: Path, expected: dict[str, bytes]
) -> tuple[int, list[str]]:
    """Run on a disk of `size` KiB, then with space; return the first exit code, and problems."""
    problems = []
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
    try:
        code = forked.run(forked.CHEN, flags, log)
        text, unfinished = log.read_text(), list(disk.rglob(".part-*"))
        told = code == 0 or "cannot be written" in text or "No space left" in text
        if code not in (0, 2) or "Traceback" in text or unfinished or not told:
            problems.append(f"{size} KiB: exit {code}, {unfinished}, {text[-300:]!r}")
        subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
        again = forked.run(forked.CHEN, flags, log)
        made = forked.predictions(disk)
        if again or made != expected:
            wrong = forked.differing(expected, made)
            problems.append(f"{size} KiB, then space: exit {again}, {wrong} differ")
    finally:
        subprocess.run(["umount", disk], check=True)
    return code, problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, default=40)
    count = parser.parse_args().sizes
    forked.warm_up()
    problems, stopped = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole, disk = folder / "whole", folder / "disk"
        flags = [*FLAGS, "--cache-dir", str(folder / "cache"), "--results-dir"]
        forked.run_undisturbed(forked.CHEN, [*flags, str(whole)], folder / "log.txt")
        expected = forked.predictions(whole)
        needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) / 1024
        disk.mkdir()
        for number in range(count):
            size = int(16 + (number / count) ** 2 * needed * 2)  # KiB; most of them small
            code, wrong = fill(disk, size, [*flags, str(disk)], folder / f"{number}.txt", expected)
            stopped += code == 2
            problems += wrong
    print(f"{count} sizes up to {size} KiB: {stopped} ended at the full disk")
    print("\n".join(problems) or "all as promised, and complete with equal bytes after space")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
