"""The progress of runs that other processes train, on this or other hosts, from their logs."""

import contextlib
import time
from collections.abc import Sequence

from data.progress import TimeLeft
from reproduce.engine import state
from reproduce.engine.rows import Combined, Run


class Screen:
    """The progress of all runs, line by line, from the logs that they write."""

    def __init__(self, runs: Sequence[Run], left: TimeLeft):
        self.logs = {run.folder: Log(run) for run in runs}
        self.left, self.ends = left, 0
        self.looked = self.epoch = time.monotonic()

    def show_new_lines(self, runs: Sequence[Run], at_once: bool = False) -> None:
        """Print what runs have logged; once a second, because a shared file system is slow."""
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

    def show_end(self, run: Run, with_predictions: bool) -> None:
        """Count a run that has ended."""
        self.show_new_lines([run], at_once=True)
        self.left.skip(self.logs[run.folder].epochs_left)
        self.ends += 1
        end = "done" if with_predictions else "not finished"
        print(f"{run.name}: {end}; {self.ends} of {len(self.logs)} runs", flush=True)


class Log:
    """The lines that a run adds to its log.txt from now on."""

    def __init__(self, run: Run):
        self.run, self.path = run, run.folder / "log.txt"
        self.read = self.path.stat().st_size if self.path.exists() else 0
        self.epochs_left = 0 if isinstance(run.row, Combined) else run.row.fit.epochs

    def new_lines(self) -> list[tuple[str, str]]:
        """(host, text) of every whole line that was written since."""
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            file.seek(self.read)
            text = file.read().rpartition(b"\n")[0]
            if text:
                self.read += len(text) + 1
                record = state.readable_record(self.run.folder) or {}
                host = (record.get("sessions") or [{}])[-1].get("host", "another host")
                lines = [line[21:] for line in text.decode(errors="replace").splitlines()]
                self.epochs_left -= sum(line.startswith("epoch ") for line in lines)
                return [(host, line) for line in lines]
        return []
