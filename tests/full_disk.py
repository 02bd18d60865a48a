"""Lets the disk of the results folder fill up at many sizes; needs root, for a tmpfs.

    sudo python tests/full_disk.py --sizes 40

Every script that meets the full disk must end with one sentence, exit code 2 and no unfinished
file; with space made, the same command must end with the predictions of an undisturbed run.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import forked
import kill_and_resume

MODULE = "reproduce.chen2019"
FLAGS = kill_and_resume.SCRIPTS[MODULE]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, default=40)
    count = parser.parse_args().sizes
    forked.warm_up()
    problems, stopped = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        cache = ["--cache-dir", str(at / "cache")]
        whole, disk = at / "whole", at / "disk"
        log = at / "log.txt"
        flags = [*FLAGS, *cache]
        if forked.wait(forked.start(MODULE, [*flags, "--results-dir", str(whole)], log)):
            sys.exit(log.read_text()[-3000:])
        expected = kill_and_resume.predictions(whole)
        needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) / 1024
        disk.mkdir()
        for number in range(count):
            size = int(16 + (number / count) ** 2 * needed * 2)  # KiB; most of them small
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True
            )
            try:
                small = at / f"small-{number}.txt"
                code = forked.wait(
                    forked.start(MODULE, [*flags, "--results-dir", str(disk)], small)
                )
                text, parts = small.read_text(), list(disk.rglob(".part-*"))
                sentence = "cannot be written" in text or "No space left" in text
                stopped += code == 2
                if (
                    code not in (0, 2)
                    or "Traceback" in text
                    or parts
                    or (code == 2 and not sentence)
                ):
                    problems.append(f"{size} KiB: exit {code}, {parts}, {text[-300:]!r}")
                subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
                code = forked.wait(
                    forked.start(MODULE, [*flags, "--results-dir", str(disk)], small)
                )
                made = kill_and_resume.predictions(disk)
                if code or made != expected:
                    wrong = [name for name in expected if made.get(name) != expected[name]]
                    problems.append(f"{size} KiB, then space: exit {code}, {wrong} differ")
            finally:
                subprocess.run(["umount", disk], check=True)
    print(f"{count} sizes up to {size} KiB: {stopped} ended at the full disk, as promised or not:")
    print(
        "\n".join(problems) or "all as promised, and complete with equal bytes after space was made"
    )
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
