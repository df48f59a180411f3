"""Maps functions over many items on the nodes of the Ray cluster, in the order of the items."""

import os
import pickle
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stages.cluster.connect import connected, get_files, put_files
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import ray.data

BLOCK = 1 << 20  # bytes of items per task: little for a node's memory, much compared with the cost of a task

Item = Any  # anything that pickle can store
Function = Callable[[Item], Item]
Row = dict[str, Any]  # {item}, pickled


@contextmanager
def map_items(
    read: Callable[[], Iterable[Item]],
    function: Function,
    actor_factory: Callable[..., Function] | None = None,
    files: Iterable[Path] = (),
    cpus: int = 1,
) -> Iterator[Iterator[Item]]:
    """Connect to Ray for the time of the block and map items, which keep their order.

    Ray stops reading while too many items wait for a node, and repeats what a lost node was working on.

    Args:
        read: yields the items. It is called on this machine, in this folder.
        function: called with each item, in tasks on all nodes.
        actor_factory: called with the paths of `files` in each of a pool of actors, one per GPU of the cluster or,
            without GPUs, as many as its processors allow. The function that it returns is called with each result of
            `function`.
        files: needed by `actor_factory`.
        cpus: processor cores that an actor uses.

    Raises:
        UserError: as `connected`; or when the iterator reaches an item for which a function or the factory raised it.
    """
    # Close the rows before Ray shuts down: the garbage collector would wait for a Ray that no longer exists.
    with (
        connected(),
        closing(cast("Generator[Row]", iter(_rows(read, function, actor_factory, files, cpus).iter_rows()))) as rows,
    ):
        yield _results(rows)


def _rows(
    read: Callable[[], Iterable[Item]],
    function: Function,
    actor_factory: Callable[..., Function] | None,
    files: Iterable[Path],
    cpus: int,
) -> "ray.data.Dataset":
    """A row per item, computed when it is asked for."""
    import ray

    # With actors, each item is a block of its own.
    ray.data.DataContext.get_current().target_max_block_size = 1 if actor_factory else BLOCK
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    rows = ray.data.from_items([{"folder": os.getcwd()}], override_num_blocks=1)
    rows = rows.flat_map(partial(_read, read), label_selector=here, num_cpus=0)
    if actor_factory is None:
        return rows.map(partial(_call, function))
    gpus = int(ray.cluster_resources().get("GPU", 0))
    sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cpus = min(cpus, *filter(None, sizes), cpus)
    resources: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": cpus}
    # With the same resources for both steps Ray fuses them and copies nothing between them.
    rows = rows.map(partial(_call, function), **({} if gpus else resources))
    return rows.map(
        _Actor,
        fn_constructor_args=(actor_factory, put_files(files)),
        compute=ray.data.ActorPoolStrategy(
            size=gpus or sum(size // cpus for size in sizes),
            max_concurrent_calls_per_actor=2,  # `function` works on the next item at the same time
        ),
        **resources,
    )


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


class _Actor:
    """A process of the pool."""

    def __init__(self, actor_factory: Callable[..., Function], files: dict[str, Any]) -> None:
        before = os.getcwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                get_files(files)
                self.function = actor_factory(*map(Path, files))
            except UserError as error:
                self.function = partial(_fail, error)
            finally:
                os.chdir(before)

    def __call__(self, row: Row) -> Row:
        return _call(self.function, row)


def _fail(error: UserError, item: Item) -> Item:
    raise error


def _results(rows: Iterator[Row]) -> Iterator[Item]:
    for row in rows:
        item = pickle.loads(row["item"])
        if isinstance(item, UserError):
            raise item
        yield item
