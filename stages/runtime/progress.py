"""Progress of long work: a bar on a terminal; in a log, one line every 30 seconds."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")

INTERVAL = 30.0  # seconds between two lines


def progress(
    iterable: Iterable[Item],
    total: int | None,
    description: str,
    unit: str,
    size: Callable[[Item], int] = lambda item: 1,
    initial: int = 0,
) -> Iterator[Item]:
    """Yield the items of `iterable` and report the count, the rate and the elapsed time on standard error.

    Args:
        iterable: the work; an item counts when the next one is asked for.
        total: number of units in all, None if it is not known.
        description: start of the line: a model, a dataset, a file.
        unit: what is counted, in the plural: "images"; "B" for bytes.
        size: units of an item.
        initial: units that were done before.
    """
    from tqdm import tqdm

    options: dict[str, Any] = {"unit": unit, "unit_scale": True} if unit == "B" else {"unit": f" {unit}"}
    start = last = time.monotonic()
    done = initial
    with tqdm(total=total, initial=initial, desc=description, disable=None, **options) as bar:  # None: on a terminal
        for item in iterable:
            yield item
            done += size(item)
            bar.update(size(item))
            now = time.monotonic()
            if bar.disable and now - last >= INTERVAL:
                last = now
                line = tqdm.format_meter(
                    done, total or 0, now - start, ncols=0, prefix=description, initial=initial, **options
                )
                print(line, file=sys.stderr)
