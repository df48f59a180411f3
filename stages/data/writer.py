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
from tensorflow_datasets.core.utils import shard_utils

from stages.data.examples import SPLITS, Checked, Example
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, write_json
from stages.runtime.progress import progress

PNG_BATCH = 256  # images that are encoded at once
PNG_COMPRESSION = 3  # zlib's default takes half as long again and saves nothing on images of this size

Encoded = tuple[str, str, bytes, int]  # an example with the bytes of its input
Counts = dict[str, dict[str, int]]  # images of each class of each split


def write(
    name: str, classes: list[str], splits: Collection[str], examples: Iterable[Example], source: Path | None = None
) -> Counts:
    """Write a dataset to data/records/NAME, completely or not at all.

    Args:
        name: name of the dataset.
        classes: class names in the order of the labels.
        splits: names of the splits.
        examples: examples of all splits, in any order; consumed one at a time. The first one determines the type of
            input.
        source: where they come from, for messages; if given, each class must have training images.

    Returns:
        The number of images of each class of each split.

    Raises:
        UserError: a split is empty, a key occurs twice in it, or a class has no training images.
    """
    with atomic_write(paths.records(name)) as folder:
        folder.mkdir(parents=True)
        shufflers = {split: shuffle.Shuffler(folder, split) for split in splits}
        counts = {split: dict.fromkeys(classes, 0) for split in splits}
        found = iter(progress(examples, None, name, "images"))
        first = next(found, None)
        if first is None:
            raise UserError(f"{name}: there are no images; check the archive")
        for split, key, data, label in codec(first[2])[1](itertools.chain([first], found)):
            shufflers[split].add(key, serialize({"key": key.encode(), "input": data, "label": label}))
            counts[split][classes[label]] += 1
        training = counts[next(iter(splits))]
        if absent := [label for label, count in training.items() if not count and source]:
            raise UserError(f"{source}: class {absent[0]!r} has no training images; remove it from classes or add some")
        if empty := [split for split, shuffler in shufflers.items() if not shuffler.num_examples]:
            raise UserError(f"{name}: split {empty[0]!r} has no images; check {source or 'the archive'}")
        infos = {split: _write_shards(folder, name, split, found) for split, found in shufflers.items()}
        write_info(folder, name, classes, first[2], infos)
    return counts


def write_checked(
    name: str,
    classes: list[str],
    examples: Iterable[Checked],
    source: Path,
    skip_invalid: bool,
    splits: Collection[str] = SPLITS,
) -> None:
    """Write data/records/NAME, data/counts/NAME.json and data/skipped/NAME.json.

    Args:
        name: name of the dataset.
        classes: class names in the order of the labels.
        examples: as in `write`, each with what is wrong with its image or an empty string.
        source: where the images come from, for messages.
        skip_invalid: leave invalid images out instead of raising an error.
        splits: names of the splits.

    Raises:
        UserError: an image is invalid and `skip_invalid` is false; or as `write`.
    """
    skipped: dict[str, dict[str, str]] = {split: {} for split in splits}  # what is wrong, by keys

    def valid() -> Iterator[Example]:
        for example, error in examples:
            split, key, *_ = example
            if not error:
                yield example
            elif skip_invalid:
                skipped[split][key] = error
            else:
                raise UserError(
                    f"{source}: {split}: {key!r} {error}; remove it, or set skip_invalid_images: true in params.yaml"
                )

    counts = write(name, classes, splits, valid(), source)
    write_json(counts, paths.counts(name))
    write_json(skipped, paths.skipped(name))
    print(", ".join(f"{split}: {sum(found.values()):,} images" for split, found in counts.items()))
    if number := sum(map(len, skipped.values())):
        print(f"skipped {number:,} files that are not valid images: {paths.skipped(name)}")


def _write_shards(folder: Path, name: str, split: str, shuffler: shuffle.Shuffler) -> tuple[list[int], int]:
    """Write the shards of a split; return the number of examples of each, and the size of all."""
    number = shard_utils.ShardConfig().get_number_shards(shuffler.size, shuffler.num_examples)
    ends = shard_utils.get_shard_boundaries(shuffler.num_examples, number)
    lengths = np.diff([0, *ends]).tolist()
    records = (record for _, record in shuffler)
    try:
        for index, length in enumerate(lengths):
            write_records(shard_path(folder, name, split, index, number), itertools.islice(records, length))
        next(records, None)  # the shuffler removes its last file
    except shuffle.DuplicatedKeysError as error:
        key = _read_key(error.item1)
        raise UserError(f"{name}: split {split!r} has two images named {key!r}; rename one") from None
    return lengths, shuffler.size


def _read_key(record: bytes) -> str:
    import tensorflow as tf

    return tf.train.Example.FromString(record).features.feature["key"].bytes_list.value[0].decode()


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


def write_shard(path: Path, examples: Iterable[tuple[str, np.ndarray, int]]) -> None:
    """Write key, feature tensor and label of each example of a shard, in their order."""
    write_records(
        path,
        (serialize({"key": key.encode(), "input": array.tobytes(), "label": label}) for key, array, label in examples),
    )


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write serialized examples to a shard, in their order."""
    example_writer = tfds.core.writer.ExampleWriter(tfds.core.file_adapters.FileFormat.TFRECORD)
    example_writer.write(path, (("", record) for record in records))


def write_info(
    folder: Path, name: str, classes: list[str], first: Any, splits: Mapping[str, tuple[list[int], int]]
) -> None:
    """Write what describes the shards in `folder`.

    Args:
        folder: has the shards.
        name: name of the dataset.
        classes: class names in the order of the labels.
        first: an example's input, which determines the type of all.
        splits: for each split the number of examples of each shard, and the sum of the shards' sizes.
    """
    features = {"key": tfds.features.Text(), "input": codec(first)[0], "label": tfds.features.ClassLabel(names=classes)}
    infos = [
        tfds.core.SplitInfo(split, lengths, size, filename_template=_template(folder, name, split))
        for split, (lengths, size) in splits.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds.features.FeaturesDict(features),
        split_infos=infos,
        filename_template=_template(folder, name),
        check_data=False,
        supervised_keys=("input", "label"),
    )


def _template(folder: Path, name: str, split: str | None = None) -> Any:
    return tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=name, filetype_suffix="tfrecord", split=split)


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
