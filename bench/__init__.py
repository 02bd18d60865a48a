"""Measure what docs/performance.md and docs/statistics.md show.

    python -m bench.NAME [--quick] [--write]

This module has what all measurements share: flags, timing, memory, tables and publishing.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

LABELS = 14
PERFORMANCE = Path(__file__).parent.parent / "docs" / "performance.md"
STATISTICS = PERFORMANCE.with_name("statistics.md")


def parser(description: str | None, quick: str = "") -> argparse.ArgumentParser:
    """Return a parser with --write, and with --quick if its help text is given."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--write", action="store_true", help="put the tables into the page in docs")
    if quick:
        made.add_argument("--quick", action="store_true", help=quick)
    return made


def machine() -> str:
    """Return the processor, cores and Python version of this machine in one line."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def interleave(
    methods: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of every call by method, without those of the warm-up rounds.

    The methods take turns, so that a busy machine slows all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(warm_up + rounds):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def megabytes(field: str, process: int | str = "self") -> float:
    """Return a field of /proc/PROCESS/status in MB, or 0 if there is none.

    RssAnon is the memory of the process without mapped files such as the image cache, VmRSS the
    memory with them and VmHWM its peak.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def duration(seconds: float) -> str:
    """Return `171 ms`, or `1.4 s` from one second on."""
    return f"{seconds * 1e3:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """Return a Markdown table; `align` has l or r for each column, by default l."""
    rules = ["---:" if letter == "r" else "---" for letter in align or "l" * len(heading)]
    lines = [f"| {' | '.join(heading)} |", f"|{'|'.join(rules)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def publish(section: str, markdown: str, write: bool, path: Path = PERFORMANCE) -> None:
    """Print a table and, if `write`, put it between its markers in a page."""
    print(markdown)
    if not write:
        return
    start, end = f"<!-- bench:{section} -->", f"<!-- /bench:{section} -->"
    page = path.read_text()
    before, rest = page.split(start)
    after = rest.split(end)[1]
    path.write_text(f"{before}{start}\n{markdown.strip()}\n{end}{after}")
