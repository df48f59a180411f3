"""The only writer and the only reader of TFRecords: data/records/NAME in the layout of TensorFlow Datasets.

An example is {key, input, label}. The input is an encoded image (JPEG or PNG) or a tensor of features. Within a split
the order comes from a hash of the key, so it is the same whatever the order of writing, a slice of a split is a random
sample, and the features of an image stand at the same place as the image.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle
from tqdm import tqdm

from stages.console import UserError
from stages.files import replacing

if TYPE_CHECKING:
    import tensorflow as tf

tfds.disable_progress_bar()  # of its shuffling: the bar of what goes in is enough
# What TFDS shuffles in memory before it goes on in files; its own gigabyte would hold most datasets whole.
shuffle.MAX_MEM_BUFFER_SIZE = 64 << 20
shuffle.BUCKETS_NUMBER = 400  # open files of a split: both stay below the 1,024 that a process may often have

CHUNK = 256  # images that are encoded at once
PNG_LEVEL = 3  # of compression: zlib's own choice takes half as long again and saves nothing on images of this size

RECORDS = Path("data/records")
READ_CONFIG = {"interleave_cycle_length": 1, "try_autocache": False}  # records in the order of the shards

# split; key; image as uint8 (height, width, channels), JPEG bytes, or feature tensor; label
Example = tuple[str, str, Any, int]


@dataclass(frozen=True)
class Arrays:
    """A split in memory: keys (n,), inputs (n, …) as uint8 pixels or float16 features, labels (n,) as int32."""

    keys: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray


class _Serializer(tfds.core.example_serializer.ExampleSerializer):
    """Protobuf orders the keys of a map differently in each process unless it is told not to."""

    def serialize_example(self, example: Mapping[str, bytes | int]) -> bytes:
        import tensorflow as tf

        # What TFDS makes of them, in a tenth of the time: it has more kinds of values to tell apart.
        features = {
            name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
            if isinstance(value, int)
            else tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
            for name, value in example.items()
        }
        message = tf.train.Example(features=tf.train.Features(feature=features))
        return message.SerializeToString(deterministic=True)


def write(name: str, classes: list[str], splits: Iterable[str], examples: Iterable[Example]) -> None:
    """Write a dataset to data/records/NAME, whole or not at all.

    Args:
        name: of the dataset.
        classes: class names in the order of the labels.
        splits: their names.
        examples: of all splits, in any order; consumed one at a time. The first one tells the feature.

    Raises:
        UserError: a split is empty, or a key occurs twice in it.
    """
    with replacing(RECORDS / name) as folder:
        folder.mkdir()
        template = tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=name, filetype_suffix="tfrecord")
        templates = {split: template.replace(split=split) for split in splits}
        keys: dict[str, set[str]] = {split: set() for split in templates}
        stream = iter(examples)
        first = next(stream, None)
        if first is None:
            raise UserError(f"{name}: no images; check the archive")
        features = tfds.features.FeaturesDict(
            {
                "key": tfds.features.Text(),
                "input": _feature(first[2]),
                "label": tfds.features.ClassLabel(names=classes),
            }
        )
        writers = {
            split: tfds.core.writer.Writer(
                serializer=_Serializer(features.get_serialized_info()),
                filename_template=templates[split],
                hash_salt=split,
                disable_shuffling=False,
                example_writer=tfds.core.writer.ExampleWriter(tfds.core.file_adapters.FileFormat.TFRECORD),
            )
            for split in templates
        }
        encoded = _encoded(itertools.chain([first], stream))
        for split, key, data, label in tqdm(encoded, desc=name, unit=" images", disable=None):
            if key in keys[split]:
                raise UserError(f"{name}: split {split!r} holds two images named {key!r}; rename one")
            keys[split].add(key)
            writers[split].write(key, {"key": key.encode(), "input": data, "label": label})
        if empty := [split for split in keys if not keys[split]]:
            raise UserError(f"{name}: split {empty[0]!r} has no images; check the archive")
        infos = []
        for split, writer in writers.items():
            lengths, size = writer.finalize()
            infos.append(
                tfds.core.SplitInfo(
                    name=split, shard_lengths=lengths, num_bytes=size, filename_template=templates[split]
                )
            )
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=infos,
            filename_template=template,
            check_data=False,
            supervised_keys=("input", "label"),
        )


def info(name: str) -> Any:
    """The `tfds.core.DatasetInfo` of data/records/NAME: features, class names, split sizes.

    Raises:
        UserError: the records are not there, or not as long as they were written.
    """
    folder = RECORDS / name
    try:
        (folder / "dataset_info.json").read_bytes()  # what is forbidden is named here, and not below
    except FileNotFoundError:
        raise UserError(f"{folder}: no records; run `dvc repro` or `dvc pull`") from None
    try:
        found = tfds.builder_from_directory(folder).info
    except Exception as error:  # of JSON, of protobuf, of TFDS: they have no base class in common
        raise _damaged(name, f"dataset_info.json or features.json: {str(error).splitlines()[0]}") from None
    for split, expected in found.splits.items():
        size = sum(shard.stat().st_size for shard in map(Path, expected.filepaths) if shard.exists())
        # Twice a length and a checksum around each record. What is cut off between two of them, TensorFlow cannot see.
        if size != expected.num_bytes + 16 * expected.num_examples:
            raise _damaged(name, f"split {split!r} has {size:,} bytes, not those of {expected.num_examples:,} examples")
    return found


def _damaged(name: str, what: str) -> UserError:
    return UserError(
        f"{RECORDS / name}: damaged: {what}; write it again with `dvc repro --force --single-item preprocess@{name}`, "
        "or extract@ if it holds features"
    )


def read(name: str, split: str, image_size: int | None = None) -> "tf.data.Dataset":
    """Stream {key, input, label} of a split such as `train` or `train[:-500]`, in the order of the records.

    Args:
        name: of the dataset.
        split: in the syntax of TFDS.
        image_size: cut images to a centred square and resize them to this height and width.

    Returns:
        input as uint8 (height, width, channels) for images, in the stored dtype and shape for features.
    """
    import tensorflow as tf

    builder = tfds.builder_from_directory(RECORDS / name)
    examples = builder.as_dataset(split=split, read_config=tfds.ReadConfig(**READ_CONFIG))
    if image_size is None:
        return examples
    return examples.map(
        lambda example: {**example, "input": _square(example["input"], image_size)},
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def batches(
    name: str, split: str, size: int, image_size: int | None = None, decode: bool = True
) -> Iterator[dict[str, np.ndarray]]:
    """The examples of `read` in batches of `size`, one after the other.

    Args:
        name: of the dataset.
        split: in the syntax of TFDS.
        size: of a batch; the last one may be smaller.
        image_size: as in `read`.
        decode: whether the images are pixels; otherwise the files that are stored, for `decoded`.

    Raises:
        UserError: a record is damaged, or an image that cannot be decoded.
    """
    import tensorflow as tf

    examples = read(name, split, image_size) if decode else _stored(name, split)
    iterator = examples.batch(size).prefetch(2).as_numpy_iterator()
    while True:
        try:
            batch = next(iterator, None)
        except tf.errors.OpError as error:
            key = _undecodable(name, split) if isinstance(error, tf.errors.InvalidArgumentError) else None
            if key is not None:
                raise _bad_image(name, key) from None
            raise _damaged(name, f"split {split!r}: {re.sub('{{.*?}} | .Op:.*', '', error.message)}") from None
        if batch is None:
            return
        yield batch


def decoded(name: str, image_size: int, batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch of images in colour as `batches` gives it with `decode`, from one that it gave without.

    What else is in it stays.

    Raises:
        UserError: an image cannot be decoded.
    """
    import tensorflow as tf

    images = []
    with tf.device("cpu"):  # as in tf.data
        for key, data in zip(batch["key"], batch["input"], strict=True):
            try:
                image = tf.io.decode_image(data, channels=3, expand_animations=False)
            except tf.errors.InvalidArgumentError:
                raise _bad_image(name, key.decode()) from None
            images.append(_square(image, image_size).numpy())
    return {**batch, "input": np.stack(images)}


def _stored(name: str, split: str) -> "tf.data.Dataset":
    """{key, input, label} as in `read`, the input as the bytes of its file."""
    return tfds.builder_from_directory(RECORDS / name).as_dataset(
        split=split,
        decoders={"input": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(**READ_CONFIG),
    )


def _undecodable(name: str, split: str) -> str | None:
    """The key of the first image of a split that TensorFlow cannot decode, if there is one."""
    import tensorflow as tf

    for example in _stored(name, split):
        try:
            tf.io.decode_image(example["input"])
        except tf.errors.InvalidArgumentError:
            return example["key"].numpy().decode()
    return None


def _bad_image(name: str, key: str) -> UserError:
    return UserError(
        f"{RECORDS / name}: {key!r} cannot be decoded; remove it from the archive, or try skip_bad_images: true in "
        "params.yaml"
    )


def load(name: str, split: str, image_size: int | None = None) -> Arrays:
    """A whole split in memory, decoded once. Arguments as in `read`.

    Raises:
        UserError: the images differ in size and no image_size is given; the records are damaged.
    """
    size = info(name).splits[split].num_examples
    spec = read(name, split, image_size).element_spec["input"]
    if not spec.shape.is_fully_defined():
        raise UserError(f"{name}: its images differ in size; give the model an image_size in params.yaml")
    arrays = Arrays(
        keys=np.empty(size, object),
        inputs=np.empty((size, *spec.shape), spec.dtype.as_numpy_dtype),
        labels=np.empty(size, np.int32),
    )
    start = 0
    for batch in batches(name, split, 256, image_size):
        stop = start + len(batch["label"])
        arrays.keys[start:stop] = [key.decode() for key in batch["key"]]
        arrays.inputs[start:stop] = batch["input"]
        arrays.labels[start:stop] = batch["label"]
        start = stop
    return arrays


def _encoded(examples: Iterator[Example]) -> Iterator[tuple[str, str, bytes, int]]:
    """Pixels as PNG, feature tensors as their bytes, JPEG bytes as they are.

    Pixels are encoded many at a time, in a thread of its own: Python reads on and writes meanwhile.
    """
    import tensorflow as tf

    def png(chunk: list[Example]) -> Iterator[tuple[str, str, bytes, int]]:
        splits, keys, images, labels = zip(*chunk, strict=True)
        files = tf.io.encode_png(np.stack(images), compression=PNG_LEVEL).numpy()
        return zip(splits, keys, files, labels, strict=True)

    first = next(examples)
    examples = itertools.chain([first], examples)
    if isinstance(first[2], bytes):
        yield from examples
    elif first[2].dtype != np.uint8:
        yield from ((split, key, image.tobytes(), label) for split, key, image, label in examples)
    else:
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(png, list(itertools.islice(examples, CHUNK)))
            while chunk := list(itertools.islice(examples, CHUNK)):
                following = pool.submit(png, chunk)
                yield from pending.result()
                pending = following
            yield from pending.result()


def _feature(image: Any) -> Any:
    """The TFDS feature that holds images, or feature tensors, like this one."""
    if isinstance(image, bytes):
        return tfds.features.Image(shape=(None, None, 3))
    if image.dtype == np.uint8:
        return tfds.features.Image(shape=image.shape)
    return tfds.features.Tensor(shape=image.shape, dtype=image.dtype, encoding="bytes")


def _square(image: "tf.Tensor", size: int) -> "tf.Tensor":
    """Cut the centred square out of an image (height, width, channels) and resize it; uint8 to uint8."""
    import tensorflow as tf

    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(height, width)
    image = tf.image.crop_to_bounding_box(image, (height - side) // 2, (width - side) // 2, side, side)
    image = tf.image.resize(image, (size, size), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
