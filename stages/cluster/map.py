"""Maps a function over many items on the nodes of the Ray cluster, in the order of the items."""

import os
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from stages.cluster.connect import connected
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import ray.data

BLOCK = 1 << 20  # bytes of items per task: little for a node's memory, much compared with the cost of a task

Item = Any  # anything that pickle can store
Function = Callable[[Item], Item]
Row = dict[str, Any]  # {item}, pickled


@contextmanager
def map_items(read: Callable[[], Iterable[Item]], function: Function) -> Iterator[Iterator[Item]]:
    """Connect to Ray for the time of the block and map items, which keep their order.

    Ray stops reading while too many items wait for a node, and repeats what a lost node was working on.

    Args:
        read: yields the items. It is called on this machine, in this folder.
        function: called with each item, in tasks on all nodes.

    Raises:
        UserError: as `connected`; or when the iterator reaches an item for which a function raised it.
    """
    # Close the rows before Ray shuts down: the garbage collector would wait for a Ray that no longer exists.
    with connected(), closing(cast("Generator[Row]", iter(_rows(read, function).iter_rows()))) as rows:
        yield _results(rows)


def _rows(read: Callable[[], Iterable[Item]], function: Function) -> "ray.data.Dataset":
    """A row per item, computed when it is asked for."""
    import ray

    ray.data.DataContext.get_current().target_max_block_size = BLOCK
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    rows = ray.data.from_items([{"folder": os.getcwd()}], override_num_blocks=1)
    return rows.flat_map(partial(_read, read), label_selector=here, num_cpus=0).map(partial(_call, function))


def _read(read: Callable[[], Iterable[Item]], row: Row) -> Iterator[Row]:
    os.chdir(row["folder"])
    try:
        for item in read():
            yield {"item": pickle.dumps(item)}
    except UserError as error:  # sent as an item: Ray would wrap it in an error of its own
        yield {"item": pickle.dumps(error)}


def _call(function: Function, row: Row) -> Row:
    item = pickle.loads(row["item"])
    if isinstance(item, UserError):
        return row
    try:
        return {"item": pickle.dumps(function(item))}
    except UserError as error:
        return {"item": pickle.dumps(error)}


def _results(rows: Iterator[Row]) -> Iterator[Item]:
    for row in rows:
        item = pickle.loads(row["item"])
        if isinstance(item, UserError):
            raise item
        yield item
