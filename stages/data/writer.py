"""Write TFRecords: data/records/NAME in the layout of TensorFlow Datasets.

An example is {key, input, label}; the input is an encoded image (JPEG or PNG) or a feature tensor. A hash of the key
determines the order within a split. So the order of writing does not matter, a slice of a split is a random sample, and
the features of an image have the same position as the image.

Examples are sorted on disk: one task reads each input and writes its examples to a file, then one task gathers those of
each shard. So memory stays bounded, and several machines can share the tasks. Nothing but hashes and places, 37 bytes
an example, passes through the process that asks for them.

The import of TensorFlow Datasets takes a second: import this module after the configuration has been checked.
"""

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.utils import shard_utils

from stages.data.examples import SPLITS, Checked, Example
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, remove
from stages.runtime.progress import progress

SORT_BUFFER = 64 << 20  # bytes of examples that are sorted at once, so that a shard finds its own side by side
PNG_BATCH = 256  # images that are encoded at once
PNG_COMPRESSION = 3  # zlib's default takes half as long again and saves nothing on images of this size

Encoded = tuple[str, str, bytes, int]  # an example with the bytes of its input
Read = Callable[[], Iterable[Checked]]
Counts = dict[str, dict[str, int]]  # images of each class of each split
Skipped = dict[str, dict[str, str]]  # for each split: key and what is wrong

PLACE = np.dtype([("split", "u1"), ("label", "u4"), ("high", "u8"), ("low", "u8"), ("offset", "u8"), ("size", "u8")])


class Part(NamedTuple):
    """What is known of an input after it was read."""

    places: np.ndarray  # of its examples in their file, by PLACE
    first: Any  # an input like that of all examples; None if it has none
    skipped: Skipped


class Slice(NamedTuple):
    """Examples of a shard that are in the same file."""

    file: Path
    places: np.ndarray
    positions: np.ndarray  # in the shard


def write(name: str, classes: list[str], splits: Collection[str], examples: Iterable[Example]) -> None:
    """Write a dataset to data/records/NAME, completely or not at all.

    Args:
        name: name of the dataset.
        classes: class names in the order of the labels.
        splits: names of the splits.
        examples: examples of all splits, in any order; consumed one at a time. The first one determines the type of
            input.

    Raises:
        UserError: a split is empty, or a key occurs twice in it.
    """
    _write(name, classes, list(splits), [lambda: ((example, "") for example in examples)], None)


def write_checked(
    name: str,
    classes: list[str],
    inputs: Sequence[Read],
    source: Path,
    skip_invalid: bool,
    splits: Sequence[str] = SPLITS,
) -> None:
    """Write data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json.

    Args:
        name: name of the dataset.
        classes: class names in the order of the labels.
        inputs: functions that read examples, each with what is wrong with its image or an empty string.
        source: where the images come from, for messages.
        skip_invalid: leave invalid images out instead of raising an error.
        splits: names of the splits.

    Raises:
        UserError: an image is invalid and `skip_invalid` is false, or a class has no training images; or as `write`.
    """
    if not skip_invalid:
        inputs = [partial(_reject_invalid, read, source) for read in inputs]
    counts, skipped = _write(name, classes, splits, inputs, source)
    write_json(counts, paths.counts(name))
    write_json(skipped, paths.skipped(name))
    print(", ".join(f"{split}: {sum(found.values()):,} images" for split, found in counts.items()))
    if number := sum(map(len, skipped.values())):
        print(f"skipped {number:,} files that are not valid images: {paths.skipped(name)}")


def write_json(table: Any, target: Path) -> None:
    """Write a table as JSON that people can read."""
    with atomic_write(target) as path:
        path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _reject_invalid(read: Read, source: Path) -> Iterator[Checked]:
    for (split, key, image, label), error in read():
        if error:
            raise UserError(
                f"{source}: {split}: {key!r} {error}; remove it, or set skip_invalid_images: true in params.yaml"
            )
        yield (split, key, image, label), ""


def _write(
    name: str, classes: list[str], splits: Sequence[str], inputs: Sequence[Read], source: Path | None
) -> tuple[Counts, Skipped]:
    """Write data/records/NAME. If there is a `source`, each class must have training images."""
    skipped: Skipped = {split: {} for split in splits}
    with atomic_write(paths.records(name)) as folder:
        unsorted = folder / "parts"
        unsorted.mkdir(parents=True)
        files = [unsorted / f"{number}" for number in range(len(inputs))]
        parts = {file: _write_part(name, splits, read, file) for file, read in zip(files, inputs, strict=True)}
        places = {split: [part.places for part in parts.values()] for split in splits}
        for number, split in enumerate(splits):
            places[split] = [found[found["split"] == number] for found in places[split]]
            for part in parts.values():
                skipped[split] |= part.skipped.get(split, {})
        counts = {split: _count(np.concatenate(found), classes) for split, found in places.items()}
        if absent := [label for label, count in counts[splits[0]].items() if not count and source]:
            raise UserError(f"{source}: class {absent[0]!r} has no training images; remove it from classes or add some")
        infos = {}
        for split in splits:
            slices, infos[split] = _shards(name, split, list(parts), places[split])
            for index, found in enumerate(slices):
                _write_shard(found, shard_path(folder, name, split, index, len(slices)))
        remove(unsorted)
        write_info(folder, name, classes, next(p.first for p in parts.values() if p.first is not None), infos)
    return counts, skipped


def _count(places: np.ndarray, classes: list[str]) -> dict[str, int]:
    return dict(zip(classes, np.bincount(places["label"], minlength=len(classes)).tolist(), strict=True))


def _write_part(name: str, splits: Sequence[str], read: Read, path: Path) -> Part:
    """Write the examples of an input to a file, in no order that matters."""
    skipped: Skipped = {split: {} for split in splits}

    def valid() -> Iterator[Example]:
        for (split, key, image, label), error in progress(read(), None, name, "images"):
            if error:
                skipped[split][key] = error
            else:
                yield split, key, image, label

    examples = valid()
    first = next(examples, None)
    if first is None:
        path.touch()
        return Part(np.empty(0, PLACE), None, skipped)
    _, encode = codec(first[2])
    places, offset = [], 0
    with path.open("wb") as file:
        for chunk in _chunks(encode(itertools.chain([first], examples)), splits):
            for split, hashed, label, record in sorted(chunk):
                places.append((split, label, hashed >> 64, hashed & (1 << 64) - 1, offset, len(record)))
                offset += file.write(record)
    like_first = b"" if isinstance(first[2], bytes) else np.empty_like(first[2])
    return Part(np.array(places, PLACE), like_first, skipped)


def _chunks(encoded: Iterable[Encoded], splits: Sequence[str]) -> Iterator[list[tuple[int, int, int, bytes]]]:
    """Serialize examples; yield lists of about SORT_BUFFER bytes: split's number, hash of the key, label, record."""
    hashers = {split: (number, hashing.Hasher(split)) for number, split in enumerate(splits)}
    chunk: list[tuple[int, int, int, bytes]] = []
    size = 0
    for split, key, data, label in encoded:
        record = serialize({"key": key.encode(), "input": data, "label": label})
        number, hasher = hashers[split]
        chunk.append((number, hasher.hash_key(key), label, record))
        size += len(record)
        if size > SORT_BUFFER:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _shards(
    name: str, split: str, files: list[Path], parts: list[np.ndarray]
) -> tuple[list[list[Slice]], tuple[list[int], int]]:
    """Divide the examples of a split, in the order of their hashes, among shards by TFDS's rule.

    Returns:
        Where the examples of each shard are; and the number of examples of each, and the size of all.
    """
    places, file_of = np.concatenate(parts), np.repeat(np.arange(len(files)), [len(part) for part in parts])
    if not len(places):
        raise UserError(f"{name}: split {split!r} has no images; check the archive")
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


def _write_shard(slices: list[Slice], path: Path) -> None:
    """Gather the examples of a shard, which are in memory at the same time, and write it."""
    records = [b""] * sum(len(found.positions) for found in slices)
    for found in slices:
        with found.file.open("rb") as file:
            for index in np.argsort(found.places["offset"]):
                file.seek(int(found.places["offset"][index]))
                records[found.positions[index]] = file.read(int(found.places["size"][index]))
    write_records(path, records)


def serialize(example: Mapping[str, bytes | int]) -> bytes:
    """Serialize an example to the same bytes in every process: protobuf's default order of map keys varies."""
    import tensorflow as tf

    # The same as TFDS's own serializer in a tenth of the time, because only two types of values occur.
    features = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        if isinstance(value, int)
        else tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in example.items()
    }
    message = tf.train.Example(features=tf.train.Features(feature=features))
    return message.SerializeToString(deterministic=True)


def shard_path(folder: Path, name: str, split: str, index: int, number: int) -> Path:
    """The file of a shard of a split that has `number` shards."""
    return Path(_template(folder, name, split).sharded_filepath(shard_index=index, num_shards=number))


def write_shard(path: Path, examples: Iterable[tuple[str, np.ndarray, int]]) -> int:
    """Write key, feature tensor and label of each example of a shard, in their order.

    Returns:
        The size of the examples in bytes, without the lengths and checksums that the file adds to each.
    """
    size = 0

    def records() -> Iterator[bytes]:
        nonlocal size
        for key, array, label in examples:
            data = serialize({"key": key.encode(), "input": array.tobytes(), "label": label})
            size += len(data)
            yield data

    write_records(path, records())
    return size


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write serialized examples to a shard, in their order."""
    example_writer = tfds.core.writer.ExampleWriter(tfds.core.file_adapters.FileFormat.TFRECORD)
    example_writer.write(path, (("", record) for record in records))


def write_info(
    folder: Path, name: str, classes: list[str], first: Any, splits: Mapping[str, tuple[list[int], int]]
) -> None:
    """Write what describes the shards in `folder`, which `write_shard` wrote.

    Args:
        folder: of the shards.
        name: of the dataset.
        classes: class names in the order of the labels.
        first: an example's input, which determines the type of all.
        splits: for each split the number of examples of each shard, and the sum of the shards' sizes.
    """
    _write_info(folder, name, classes, codec(first)[0], splits)


def _features(classes: list[str], feature: Any) -> Any:
    return tfds.features.FeaturesDict(
        {"key": tfds.features.Text(), "input": feature, "label": tfds.features.ClassLabel(names=classes)}
    )


def _template(folder: Path, name: str, split: str | None = None) -> Any:
    return tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=name, filetype_suffix="tfrecord", split=split)


def _write_info(
    folder: Path, name: str, classes: list[str], feature: Any, splits: Mapping[str, tuple[list[int], int]]
) -> None:
    infos = [
        tfds.core.SplitInfo(split, lengths, size, filename_template=_template(folder, name, split))
        for split, (lengths, size) in splits.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=_features(classes, feature),
        split_infos=infos,
        filename_template=_template(folder, name),
        check_data=False,
        supervised_keys=("input", "label"),
    )


def codec(first: Any) -> tuple[Any, Callable[[Iterator[Example]], Iterator[Encoded]]]:
    """Return the TFDS feature for inputs like `first`, and the function that encodes the inputs of examples."""
    if isinstance(first, bytes):  # JPEG files stay as they are
        return tfds.features.Image(shape=(None, None, 3)), iter
    if first.dtype == np.uint8:
        return tfds.features.Image(shape=first.shape), _encode_png
    feature = tfds.features.Tensor(shape=first.shape, dtype=first.dtype, encoding="bytes")
    return feature, lambda examples: ((split, key, array.tobytes(), label) for split, key, array, label in examples)


def _encode_png(examples: Iterator[Example]) -> Iterator[Encoded]:
    """Encode pixels in batches in a separate thread, while this one reads the next images and writes."""
    import tensorflow as tf

    def encode(batch: list[Example]) -> Iterator[Encoded]:
        splits, keys, images, labels = zip(*batch, strict=True)
        files = tf.io.encode_png(np.stack(images), compression=PNG_COMPRESSION).numpy()
        return zip(splits, keys, files, labels, strict=True)

    with ThreadPoolExecutor(1) as pool:
        pending = None
        while batch := list(itertools.islice(examples, PNG_BATCH)):
            following = pool.submit(encode, batch)
            yield from pending.result() if pending else ()
            pending = following
        yield from pending.result() if pending else ()
