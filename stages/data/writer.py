"""Write TFRecords: data/records/NAME in the layout of TensorFlow Datasets.

An example is {key, input, label}; the input is an encoded image (JPEG or PNG) or a feature tensor. A hash of the key
determines the order within a split. So the order of writing does not matter, a slice of a split is a random sample, and
the features of an image have the same position as the image.

The import of TensorFlow Datasets takes a second: import this module after the configuration has been checked.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from stages.data.examples import Example
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write
from stages.runtime.progress import progress

# TFDS shuffles this much in memory and more than that in files; its own default, 1 GB, would hold most datasets whole.
SHUFFLE_BUFFER = 64 << 20  # bytes
SHUFFLE_FILES = 800  # of all splits together, below a process's usual limit of 1,024 open files
PNG_BATCH = 256  # images that are encoded at once
PNG_COMPRESSION = 3  # zlib's default takes half as long again and saves nothing on images of this size

Encoded = tuple[str, str, bytes, int]  # an example with the bytes of its input


class _Serializer(tfds.core.example_serializer.ExampleSerializer):
    """Serializes examples as `serialize` does."""

    def serialize_example(self, example: Mapping[str, bytes | int]) -> bytes:
        return serialize(example)


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


def write(
    name: str, classes: list[str], splits: Collection[str], examples: Iterable[Example], total: int | None = None
) -> None:
    """Write a dataset to data/records/NAME, completely or not at all.

    Args:
        name: of the dataset.
        classes: class names in the order of the labels.
        splits: their names.
        examples: of all splits, in any order; consumed one at a time. The first one determines the type of input.
        total: number of examples if it is known, for the progress report.

    Raises:
        UserError: a split is empty, or a key occurs twice in it.
    """
    tfds.disable_progress_bar()
    shuffle.MAX_MEM_BUFFER_SIZE, shuffle.BUCKETS_NUMBER = SHUFFLE_BUFFER, SHUFFLE_FILES // len(splits)
    with atomic_write(paths.records(name)) as folder:
        folder.mkdir()
        stream = iter(examples)
        first = next(stream, None)
        if first is None:
            raise UserError(f"{name}: no images; check the archive")
        feature, encode = codec(first[2])
        writers = {
            split: tfds.core.writer.Writer(
                serializer=_Serializer(_features(classes, feature).get_serialized_info()),
                filename_template=_template(folder, name, split),
                hash_salt=split,
                disable_shuffling=False,
                example_writer=tfds.core.writer.ExampleWriter(tfds.core.file_adapters.FileFormat.TFRECORD),
            )
            for split in splits
        }
        encoded = encode(itertools.chain([first], stream))
        _write_examples(name, writers, progress(encoded, total, name, "images"))
        _write_info(folder, name, classes, feature, {split: writer.finalize() for split, writer in writers.items()})


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


def _write_examples(name: str, writers: Mapping[str, Any], encoded: Iterator[Encoded]) -> None:
    keys: dict[str, set[str]] = {split: set() for split in writers}
    for split, key, data, label in encoded:
        if key in keys[split]:
            raise UserError(f"{name}: split {split!r} has two images named {key!r}; rename one")
        keys[split].add(key)
        writers[split].write(key, {"key": key.encode(), "input": data, "label": label})
    if empty := [split for split in keys if not keys[split]]:
        raise UserError(f"{name}: split {empty[0]!r} has no images; check the archive")


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
