"""The heavy work of a stage on the nodes of a Ray cluster. No other module knows Ray, and no output depends on it.

The cluster is the one at RAY_ADDRESS, or one of this machine's cores for the time of the work. Inputs are read, and
outputs written, where the stage runs: the other nodes need the packages of requirements.txt and
requirements-cluster.txt, but neither this repository nor its data.
"""

import importlib
import logging
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from stages.console import UserError, silent
from stages.files import replacing

if TYPE_CHECKING:
    import ray.data

INSTALL = "pip install -r requirements-cluster.txt"
BLOCK = 1 << 20  # bytes of small items that are one task: little for a node's memory, much for what Ray adds to a task
STORE = 1 << 30  # bytes of memory for items on the way, of a Ray of our own
CPUS = 8  # at most, of an actor: more threads than these add little to a batch

Item = Any  # anything that pickle takes
Row = dict[str, Any]  # {item}, pickled


@contextmanager
def connected() -> Iterator[str]:
    """Ray for the time of the block; its address.

    Raises:
        UserError: it is not installed, or no cluster of this version answers at RAY_ADDRESS.
    """
    # What Ray's C++ part calls an error is nothing that a user could act upon; what ends the work is an exception.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a Ray of our own: its work is not less urgent than ours
    try:
        import ray.data
    except ImportError:
        raise UserError(f"params.yaml: engine: ray is not installed; {INSTALL}, or set it to local") from None
    address = os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": STORE}
    try:
        with silent():  # it says that it was told to be silent
            ray.init(
                **({} if address else own),
                runtime_env={"py_modules": [str(Path(__file__).parent)], "excludes": ["__pycache__"]},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"RAY_ADDRESS: {address}: {str(error).strip().splitlines()[0]}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="ray.data")  # that few items keep few processes busy
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_options.preserve_order = True  # else what is skipped is listed in any order
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


@contextmanager
def mapped(
    read: Callable[[], Iterable[Item]],
    function: Callable[[Item], Item],
    make: Callable[..., Callable[[Item], Item]] | None = None,
    files: Iterable[Path] = (),
) -> Iterator[Iterator[Item]]:
    """Connect for the time of the block, and give items in their order, changed on the nodes of the cluster.

    Ray holds the reader back while what it has read has not been worked on, and repeats what a lost worker or node was
    working on.

    Args:
        read: yields the items. It is called on this machine, in this folder.
        function: of an item, for tasks on all nodes.
        make: called with the paths of `files` in each process of a pool, one for each GPU of the cluster, or for its
            processors if it has no GPU. What it returns is called with what `function` made of an item.
        files: that `make` needs.

    Raises:
        UserError: as `connected`; as soon as an item is reached for which a function raised one, or `make` did.
    """
    # Closed before Ray is: left to the garbage collection, its executor waits for a Ray that has gone.
    with connected(), closing(cast("Generator[Row]", iter(_rows(read, function, make, files).iter_rows()))) as rows:
        yield _results(rows)


def _rows(
    read: Callable[[], Iterable[Item]],
    function: Callable[[Item], Item],
    make: Callable[..., Callable[[Item], Item]] | None,
    files: Iterable[Path],
) -> "ray.data.Dataset":
    """A row for each item that `mapped` gives. Nothing is read before they are."""
    import ray

    ray.data.DataContext.get_current().target_max_block_size = 1 if make else BLOCK  # an item for a process of the pool
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    rows = ray.data.from_items([{"folder": os.getcwd()}], override_num_blocks=1)
    rows = rows.flat_map(partial(_read, read), label_selector=here, num_cpus=0)
    if make is None:
        rows = rows.map(partial(_called, function))
    else:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        cpus = min(CPUS, *filter(None, sizes), CPUS)
        # Where it has the pool's own resources, Ray makes one step of both and copies nothing between them.
        each: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": cpus}
        rows = rows.map(partial(_called, function), **({} if gpus else each))
        rows = rows.map(
            _Actor,
            fn_constructor_args=(make, {str(path): ray.put(path.read_bytes()) for path in files}, cpus),
            compute=ray.data.ActorPoolStrategy(
                size=gpus or sum(size // cpus for size in sizes),
                max_concurrent_calls_per_actor=2,  # `function` of the next item while `make`'s works on this one
            ),
            **each,
        )
    return rows


def away(
    module: str, name: str, inputs: Iterable[Path], outputs: Iterable[Path], all_devices: bool = False
) -> Iterator[Item]:
    """Run `steps(name)` of a module of this project on a node of the cluster, in a folder of its own.

    Ray starts it again where a node is lost. What it has yielded by then is not yielded twice.

    Args:
        module: its name.
        name: what `steps` is called with.
        inputs: files and folders that are copied there.
        outputs: files that are brought back, whole or not at all.
        all_devices: ask for all GPUs of a node rather than for one.

    Yields:
        What `steps` yields. The outputs are there when there is no more.

    Raises:
        UserError: that `steps` raised.
    """
    import ray

    with connected():
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus, cpus = (int(max(node.get(kind, 0) for node in nodes)) for kind in ("GPU", "CPU"))
        # As many threads as here: how sums are split among them changes the last bits of what is learnt.
        threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS", len(os.sched_getaffinity(0))))
        remote = ray.remote(
            max_calls=1,  # a process of its own, as here: Keras counts the layers that it has made
            runtime_env={"env_vars": {"TF_NUM_INTRAOP_THREADS": str(threads)}},
            **({"num_gpus": gpus if all_devices else 1} if gpus else {"num_cpus": min(threads, cpus)}),
        )(_away)
        files = [path for given in inputs for path in (given, *given.rglob("*")) if path.is_file()]
        data = {str(path): ray.put(path.read_bytes()) for path in files}
        for reference in remote.remote(module, name, data, [str(path) for path in outputs]):
            item = ray.get(reference)
            if isinstance(item, UserError):
                raise item
            if isinstance(item, _Outputs):
                for path in outputs:
                    with replacing(path) as part:
                        part.write_bytes(item.files[str(path)])
                return
            yield item


class _Outputs(NamedTuple):
    """The last item of what is away: files by their paths."""

    files: dict[str, bytes]


def _away(module: str, name: str, inputs: dict[str, Any], outputs: list[str]) -> Iterator[Item]:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _bring(inputs)
        try:
            yield from importlib.import_module(module).steps(name)
            yield _Outputs({path: Path(path).read_bytes() for path in outputs})
        except UserError as error:
            yield error


def _bring(files: dict[str, Any]) -> None:
    """Write what Ray holds to where it was, seen from this folder: a fault is then said of the path people know."""
    import ray

    for path, data in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(ray.get(data))


def _read(read: Callable[[], Iterable[Item]], row: Row) -> Iterator[Row]:
    os.chdir(row["folder"])
    try:
        for item in read():
            yield {"item": pickle.dumps(item)}
    except UserError as error:  # an item, too: what is raised, Ray wraps in its own
        yield {"item": pickle.dumps(error)}


def _called(function: Callable[[Item], Item], row: Row) -> Row:
    item = pickle.loads(row["item"])
    if isinstance(item, UserError):
        return row
    try:
        return {"item": pickle.dumps(function(item))}
    except UserError as error:
        return {"item": pickle.dumps(error)}


class _Actor:
    """A process of the pool."""

    def __init__(self, make: Callable[..., Callable[[Item], Item]], files: dict[str, Any], cpus: int) -> None:
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(cpus)
        before = os.getcwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                _bring(files)
                self.function = make(*map(Path, files))
            except UserError as error:
                self.function = partial(_failing, error)
            finally:
                os.chdir(before)

    def __call__(self, row: Row) -> Row:
        return _called(self.function, row)


def _failing(error: UserError, item: Item) -> Item:
    raise error


def _results(rows: Iterator[Row]) -> Iterator[Item]:
    for row in rows:
        item = pickle.loads(row["item"])
        if isinstance(item, UserError):
            raise item
        yield item
