"""Show the progress of a long loop: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Generator, Iterable

from tqdm import tqdm

_EVERY = 10  # seconds


def with_progress(
    items: Iterable,
    name: str,
    total: int,
    *,
    done: int = 0,
    show: bool = True,
    images: Callable = lambda item: 1,
) -> Generator:
    """Yield the items and show how many of the `total` images are done.

    `done` images were finished before; `images` returns the number of images in an item.
    """
    bar = show and sys.stderr.isatty()
    began = last_line = time.monotonic()
    before = done
    with tqdm(
        desc=name, initial=done, total=total, unit="image", disable=not bar, dynamic_ncols=True
    ) as drawn:
        for item in items:
            done += images(item)
            drawn.update(images(item))
            now = time.monotonic()
            if show and not bar and (now - last_line > _EVERY or done == total):
                rate, last_line = (done - before) / max(now - began, 1e-9), now
                print(f"{name}: {done:,}/{total:,} images, {rate:.0f}/s", file=sys.stderr)
            yield item
