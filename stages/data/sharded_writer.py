"""Write records from many inputs at the same time: one task reads each input, then one task writes each shard.

The records are those of `stages.data.writer.write`, to the byte: the hashes of all keys say what is in a shard, whoever
reads which input. Between the two kinds of tasks, the examples lie in a file for each input. Nothing but hashes and
places, 33 bytes for each example, passes through the process that asks for the tasks.

The import of the writer takes a second: import this module after the configuration has been checked.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.utils import shard_utils

from stages.data import writer
from stages.data.checked import Checked, Tally
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, remove
from stages.runtime.numerics import import_tensorflow
from stages.runtime.progress import progress
from stages.runtime.tasks import Function, Result, Task

SORT_BUFFER = 64 << 20  # bytes of examples that are sorted at once, so that a shard finds its own side by side

Read = Callable[[], Iterable[Checked]]
Run = Callable[[list[Task], Callable[[], Function]], Iterator[tuple[Task, Result]]]

PLACE = np.dtype([("split", "u1"), ("high", "u8"), ("low", "u8"), ("offset", "u8"), ("size", "u8")])  # of an example


class Part(NamedTuple):
    """What is known of an input after it was read."""

    places: np.ndarray  # of its examples, in their file
    first: Any  # an input like that of all examples; None if it has none
    tally: Tally


class Slice(NamedTuple):
    """Examples of a shard that are in the same file."""

    file: Path
    places: np.ndarray
    positions: np.ndarray  # in the shard


def write_parts(name: str, tally: Tally, inputs: Sequence[Read], run: Run) -> None:
    """Write data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json, as `write_checked` does.

    Args:
        name: of the dataset.
        tally: an empty one.
        inputs: functions that read the inputs, which pickle can store.
        run: runs tasks, such as `stages.runtime.tasks.run_tasks`.

    Raises:
        UserError: as `writer.write` and `Tally`.
    """
    splits = list(tally.counts)
    with atomic_write(paths.records(name)) as folder:
        unsorted = folder / "parts"
        unsorted.mkdir(parents=True)
        tasks = [Task(read, (), unsorted / f"{number}") for number, read in enumerate(inputs)]
        done = progress(run(tasks, partial(_part_writer, tally)), None, name, "images", lambda one: len(one[1].places))
        written = {task.output: part for task, part in done}
        parts = {task.output: written[task.output] for task in tasks}  # in the order of the inputs
        for part in parts.values():
            tally.add(part.tally)
        tally.check_classes()
        infos, shards = {}, []
        for number, split in enumerate(splits):
            slices, infos[split] = _shards(name, split, number, parts)
            shards += [
                Task(found, (), writer.shard_path(folder, name, split, index, len(slices)))
                for index, found in enumerate(slices)
            ]
        for _ in run(shards, _shard_writer):
            pass
        remove(unsorted)
        first = next(part.first for part in parts.values() if part.first is not None)
        writer.write_info(folder, name, tally.class_names, first, infos)
    tally.write(name)


def _part_writer(tally: Tally) -> Callable[[Read, Path], Part]:
    """Return the function that writes the examples of an input to a file, in no order that matters."""
    import_tensorflow(gpu=False)

    def write(read: Read, path: Path) -> Part:
        found = tally.empty()
        examples = found.valid(read())
        first = next(examples, None)
        if first is None:
            path.touch()
            return Part(np.empty(0, PLACE), None, found)
        _, encode = writer.codec(first[2])
        places, offset = [], 0
        with path.open("wb") as file:
            for chunk in _chunks(encode(itertools.chain([first], examples)), list(found.counts)):
                for split, hashed, record in sorted(chunk):
                    places.append((split, hashed >> 64, hashed & (1 << 64) - 1, offset, len(record)))
                    offset += file.write(record)
        like_first = b"" if isinstance(first[2], bytes) else np.empty_like(first[2])
        return Part(np.array(places, PLACE), like_first, found)

    return write


def _chunks(encoded: Iterable[writer.Encoded], splits: list[str]) -> Iterator[list[tuple[int, int, bytes]]]:
    """Serialize examples; yield lists of about SORT_BUFFER bytes: number of the split, hash of the key, record."""
    hashers = {split: hashing.Hasher(split) for split in splits}
    chunk: list[tuple[int, int, bytes]] = []
    size = 0
    for split, key, data, label in encoded:
        record = writer.serialize({"key": key.encode(), "input": data, "label": label})
        chunk.append((splits.index(split), hashers[split].hash_key(key), record))
        size += len(record)
        if size > SORT_BUFFER:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _shards(
    name: str, split: str, number: int, parts: dict[Path, Part]
) -> tuple[list[list[Slice]], tuple[list[int], int]]:
    """Divide the examples of a split, in the order of their hashes, among shards by TFDS's rule.

    Returns:
        Where the examples of each shard are; and the number of examples of each, and the size of all.
    """
    files = list(parts)
    of_split = [part.places[part.places["split"] == number] for part in parts.values()]
    places = np.concatenate(of_split)
    if not len(places):
        raise UserError(f"{name}: split {split!r} has no images; check the archive")
    file_of = np.repeat(np.arange(len(files)), [len(found) for found in of_split])
    order = np.lexsort((places["low"], places["high"]))
    places, file_of = places[order], file_of[order]
    same = np.flatnonzero((places["high"][1:] == places["high"][:-1]) & (places["low"][1:] == places["low"][:-1]))
    if len(same):
        key = _read_key(files[file_of[same[0]]], places[same[0]])
        raise UserError(f"{name}: split {split!r} has two images named {key!r}; rename one")
    size = int(places["size"].sum())
    count = shard_utils.ShardConfig().get_number_shards(size, len(places))
    ends = shard_utils.get_shard_boundaries(len(places), count)
    shards = []
    for start, end in zip([0, *ends], ends, strict=False):
        slices = []
        for file in np.unique(file_of[start:end]):
            positions = np.flatnonzero(file_of[start:end] == file)
            slices.append(Slice(files[file], places[start:end][positions], positions))
        shards.append(slices)
    return shards, (np.diff([0, *ends]).tolist(), size)


def _read_key(file: Path, place: np.void) -> str:
    import tensorflow as tf

    with file.open("rb") as opened:
        opened.seek(int(place["offset"]))
        example = tf.train.Example.FromString(opened.read(int(place["size"])))
    return example.features.feature["key"].bytes_list.value[0].decode()


def _shard_writer() -> Callable[[list[Slice], Path], None]:
    """Return the function that gathers the examples of a shard, which are in memory at the same time, and writes it."""
    import_tensorflow(gpu=False)

    def write(slices: list[Slice], path: Path) -> None:
        records = [b""] * sum(len(found.positions) for found in slices)
        for found in slices:
            with found.file.open("rb") as file:
                for index in np.argsort(found.places["offset"]):
                    file.seek(int(found.places["offset"][index]))
                    records[found.positions[index]] = file.read(int(found.places["size"][index]))
        writer.write_records(path, records)

    return write
