"""Feed batches to a graph: chunks of about one second of steps, read ahead."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from stages.data.arrays import Rows, SplitArrays

SECONDS_PER_CHUNK = 1.0  # about: progress is reported and Ctrl-C is noticed between two chunks


class Chunk(NamedTuple):
    """Some steps of an epoch."""

    rows: Rows
    batches: np.ndarray  # indices of the examples, (steps, batch_size) int64
    rates: np.ndarray  # (steps, …) float32


def chunks(data: SplitArrays, order: np.ndarray, rates: np.ndarray, batch_size: int) -> Iterator[Chunk]:
    """Yield chunks of about one second of steps; the rows of the next one are read in the meantime.

    Args:
        data: a split in memory or in a file.
        order: indices of the examples, (n,) int64.
        rates: learning rates of each step, (steps, …) float32.
        batch_size: examples in a step; what is left over at the end is a smaller step in a chunk of its own.
    """
    whole = len(order) // batch_size
    most = max(1, data.rows_at_once // batch_size)
    count = 1

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        start = 0
        while start < whole:
            stop = min(start + count, whole)
            yield order[start * batch_size : stop * batch_size].reshape(-1, batch_size), rates[start:stop]
            start = stop
        if rest := len(order) - whole * batch_size:
            yield order[-rest:].reshape(1, rest), rates[whole:]

    def read(part: tuple[np.ndarray, np.ndarray]) -> Chunk:
        return Chunk(data.rows(part[0]), *part)

    with ThreadPoolExecutor(1) as pool:
        following = parts()
        pending = [pool.submit(read, part) for part in itertools.islice(following, 1)]
        while pending:
            chunk = pending.pop().result()
            pending = [pool.submit(read, part) for part in itertools.islice(following, 1)]
            began = time.monotonic()
            yield chunk
            if time.monotonic() - began < SECONDS_PER_CHUNK:
                count = min(2 * count, most)
