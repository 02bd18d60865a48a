"""Print the progress of runs that other processes train, on this or other hosts."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from reproduce.engine import runs as run_files
from reproduce.engine.rows import Combined, Run
from reproduce.engine.time_left import TimeLeft


class Screen:
    """Print the new lines of all runs' logs, and count the runs that have ended."""

    def __init__(self, runs: Sequence[Run[Any]], left: TimeLeft):
        self.logs = {run.folder: Log(run) for run in runs}
        self.left, self.ends = left, 0
        self.looked = self.epoch = time.monotonic()

    def show_new_lines(self, runs: Sequence[Run[Any]], at_once: bool = False) -> None:
        """Print new log lines, at most once per second: a shared file system is slow."""
        now = time.monotonic()
        if not at_once and now - self.looked < 1:
            return
        self.looked = now
        for run in runs:
            for host, text in self.logs[run.folder].new_lines():
                if text.startswith("epoch "):
                    left = self.left.after(now - self.epoch)
                    text, self.epoch = f"{text.rpartition(', ')[0]}, {left} in all", now
                print(f"{run.name} on {host}: {text}", flush=True)

    def show_end(self, run: Run[Any], with_predictions: bool) -> None:
        """Count a run that has ended."""
        self.show_new_lines([run], at_once=True)
        self.left.skip(self.logs[run.folder].epochs_left)
        self.ends += 1
        end = "done" if with_predictions else "not finished"
        print(f"{run.name}: {end}; {self.ends} of {len(self.logs)} runs", flush=True)


class Log:
    """Read the lines that a run adds to its log.txt from now on."""

    def __init__(self, run: Run[Any]):
        self.run, self.path = run, run.folder / "log.txt"
        self.read = self.path.stat().st_size if self.path.exists() else 0
        self.epochs_left = 0 if isinstance(run.row, Combined) else run.row.fit.epochs

    def new_lines(self) -> list[tuple[str, str]]:
        """Return (host, text) of every whole line written since the last call."""
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            file.seek(self.read)
            text = file.read().rpartition(b"\n")[0]
            if text:
                self.read += len(text) + 1
                record = run_files.readable_record(self.run.folder) or {}
                host = (record.get("sessions") or [{}])[-1].get("host", "another host")
                lines = [line[21:] for line in text.decode(errors="replace").splitlines()]
                self.epochs_left -= sum(line.startswith("epoch ") for line in lines)
                return [(host, line) for line in lines]
        return []
