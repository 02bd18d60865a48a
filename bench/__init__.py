"""The measurements behind docs/performance.md: `python -m bench.NAME [--quick] [--write]`."""

import os
import platform
from pathlib import Path

LABELS = 14
PERFORMANCE = Path(__file__).parent.parent / "docs" / "performance.md"


def machine() -> str:
    """Processor, cores and Python version of the machine, in one line."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def publish(section: str, markdown: str, write: bool) -> None:
    """Print a table and, with --write, put it between its markers in docs/performance.md."""
    print(markdown)
    if not write:
        return
    start, end = f"<!-- bench:{section} -->", f"<!-- /bench:{section} -->"
    page = PERFORMANCE.read_text()
    before, rest = page.split(start)
    after = rest.split(end)[1]
    PERFORMANCE.write_text(f"{before}{start}\n{markdown.strip()}\n{end}{after}")
