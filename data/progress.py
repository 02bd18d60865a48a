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
