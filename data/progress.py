"""How far a long loop has come: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

_EVERY = 10  # seconds


def shown(
    items: Iterable,
    name: str,
    total: int,
    done: int = 0,
    show: bool = True,
    images: Callable = lambda item: 1,
) -> Iterator:
    """The items, each counted as so many images, of which `done` were there before."""
    bar = show and sys.stderr.isatty()
    began = said = time.monotonic()
    before = done
    with tqdm(
        desc=name, initial=done, total=total, unit="image", disable=not bar, dynamic_ncols=True
    ) as drawn:
        for item in items:
            done += images(item)
            drawn.update(images(item))
            now = time.monotonic()
            if show and not bar and (now - said > _EVERY or done == total):
                rate, said = (done - before) / max(now - began, 1e-9), now
                print(f"{name}: {done:,}/{total:,} images, {rate:.0f}/s", file=sys.stderr)
            yield item


class TimeLeft:
    """How long the epochs that lie ahead will take, from those that are done."""

    def __init__(self, epochs: int):
        self.ahead, self.done, self.spent = epochs, 0, 0.0

    def skip(self, epochs: int) -> None:
        """These were done before, or are not needed."""
        self.ahead -= epochs

    def after(self, seconds: float) -> str:
        """Count an epoch that took so long; the time left for the whole table."""
        self.ahead, self.done, self.spent = self.ahead - 1, self.done + 1, self.spent + seconds
        left = self.ahead * self.spent / self.done
        if left < 90:
            return f"{left:.0f} s left"
        return f"{left / 60:.0f} min left" if left < 5400 else f"{left / 3600:.1f} h left"
