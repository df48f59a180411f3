"""Progress of long work: a bar on a terminal; in a log, one line every 30 seconds."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")

INTERVAL = 30.0  # seconds between two lines
BYTES = "B"  # the unit that is shown as megabytes


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
    if sys.stderr.isatty():
        yield from _bar(iterable, total, description, unit, size, initial)
        return
    start = last = time.monotonic()
    done = initial
    for item in iterable:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - last >= INTERVAL:
            last = now
            print(_line(description, done, total, unit, (done - initial) / (now - start), now - start), file=sys.stderr)


def _bar(
    iterable: Iterable[Item], total: int | None, description: str, unit: str, size: Callable[[Item], int], initial: int
) -> Iterator[Item]:
    from tqdm import tqdm

    options: dict[str, Any] = {"unit": unit, "unit_scale": True} if unit == BYTES else {"unit": f" {unit}"}
    with tqdm(total=total, initial=initial, desc=description, **options) as bar:
        for item in iterable:
            yield item
            bar.update(size(item))


def _line(description: str, done: int, total: int | None, unit: str, rate: float, seconds: float) -> str:
    """For example: `imagenette: 3,200 of 13,394 images, 11.2 images/s, 0:04:46 elapsed`."""
    scale, unit, digits = (1e6, "MB", 1) if unit == BYTES else (1, unit, 0)
    of_total = "" if total is None else f" of {total / scale:,.{digits}f}"
    minutes, second = divmod(int(seconds), 60)
    elapsed = f"{minutes // 60}:{minutes % 60:02}:{second:02}"
    return (
        f"{description}: {done / scale:,.{digits}f}{of_total} {unit}, {rate / scale:,.1f} {unit}/s, {elapsed} elapsed"
    )
