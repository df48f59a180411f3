"""Read TFRecords: data/records/NAME in the layout of TensorFlow Datasets, examples {key, input, label}.

The import of TensorFlow Datasets takes a second: import this module after the configuration has been checked.
"""

import itertools
import json
import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_datasets as tfds

from stages.data.arrays import SplitArrays as SplitArrays
from stages.data.arrays import aligned_empty
from stages.runtime import limits, paths
from stages.runtime.errors import UserError
from stages.runtime.progress import progress

if TYPE_CHECKING:
    import tensorflow as tf

LOAD_BATCH = 256  # examples that are read at once
OVERHEAD = 16  # bytes of lengths and checksums that a file adds to each example


def info(name: str) -> Any:
    """Return the `tfds.core.DatasetInfo` of data/records/NAME: features, class names, split sizes.

    Raises:
        UserError: the records are missing, or their size is not the one that was written.
    """
    folder = paths.records(name)
    try:
        (folder / "dataset_info.json").read_bytes()  # so that an OSError names the file; TFDS's errors do not
    except FileNotFoundError:
        raise UserError(f"{folder}: no records; run `dvc repro` or `dvc pull`") from None
    try:
        found = tfds.builder_from_directory(folder).info
    except Exception as error:  # JSON, protobuf and TFDS raise errors without a common base class
        raise corrupt(name, f"dataset_info.json or features.json: {str(error).splitlines()[0]}") from None
    for split, expected in found.splits.items():
        size = sum(shard.stat().st_size for shard in map(Path, expected.filepaths) if shard.exists())
        # TensorFlow cannot see a cut between two records.
        if size != expected.num_bytes + OVERHEAD * expected.num_examples:
            raise corrupt(
                name, f"split {split!r} has {size:,} bytes, which is not the size of {expected.num_examples:,} examples"
            )
    return found


def backbone(name: str) -> dict[str, Any] | None:
    """The backbone whose features a dataset holds, as in `saved_model.read_signature`; None: it holds images."""
    path = paths.backbone(name)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def fit(name: str) -> str:
    """How the images of a dataset are fitted to the size of a model; see `resize`."""
    path = paths.fit(name)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else "crop"


def read(name: str, split: str, image_size: int | None = None, decode: bool = True) -> "tf.data.Dataset":
    """Stream {key, input, label} of a split such as `train` or `train[:-500]`, in the order of the records.

    Args:
        name: of the dataset.
        split: in the syntax of TFDS.
        image_size: height and width to which images are resized, as the dataset's `fit` says.
        decode: whether inputs are pixels; otherwise they are the stored files.

    Returns:
        input as uint8 (height, width, channels) for images, in the stored dtype and shape for features.
    """
    import tensorflow as tf

    examples = tfds.builder_from_directory(paths.records(name)).as_dataset(
        split=split,
        decoders=None if decode else {"input": tfds.decode.SkipDecoding()},
        # Records in the order of the shards
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    if image_size is not None:
        how = fit(name)
        examples = examples.map(
            lambda example: {**example, "input": resize(example["input"], image_size, how)},
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    # An image on each core at a time: operations would otherwise share the few threads of the computation
    options = tf.data.Options()
    options.threading.private_threadpool_size = limits.cores()
    options.threading.max_intra_op_parallelism = 1
    # The thread of autotuning can miss the end of an iteration, which then waits for its next round, about as long as
    # the iteration took. Without it, a `map` keeps its initial parallelism.
    options.autotune.enabled = False
    options.autotune.initial_parallelism = limits.cores()
    return examples.with_options(options)


def batches(
    name: str, split: str, size: int, image_size: int | None = None, decode: bool = True
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the examples of `read` in batches of `size`; the last one may be smaller.

    Raises:
        UserError: a record is corrupt, or an image cannot be decoded.
    """
    import tensorflow as tf

    iterator = read(name, split, image_size, decode).batch(size).prefetch(2).as_numpy_iterator()
    for number in itertools.count():
        try:
            batch = next(iterator, None)
        except tf.errors.OpError as error:
            raise _read_error(name, split, error, number * size if decode else None) from None
        if batch is None:
            return
        yield batch


def examples(name: str, split: str, decode: bool = True) -> Iterator[tuple[str, int, Any]]:
    """Yield key, label and input of each example of `read`. Errors as in `batches`."""
    for batch in batches(name, split, LOAD_BATCH, decode=decode):
        for key, label, value in zip(batch["key"], batch["label"], batch["input"], strict=True):
            yield key.decode(), int(label), value


def decode_image(name: str, key: str, data: bytes, channels: int = 0) -> "tf.Tensor":
    """Decode one stored image to uint8 (height, width, channels); 0 channels: as many as it has.

    Raises:
        UserError: it cannot be decoded.
    """
    import tensorflow as tf

    try:
        return tf.io.decode_image(data, channels=channels, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        raise UserError(
            f"{paths.records(name)}: {key!r} cannot be decoded; remove it from the images, or try "
            "skip_invalid_images: true in params.yaml"
        ) from None


def resize(image: "tf.Tensor", size: int | tuple[int, int], fit: str = "crop") -> "tf.Tensor":
    """Resize an image (height, width, channels) of any size; uint8 to uint8.

    Args:
        image: of any height and width.
        size: height and width of the result; one number for a square.
        fit: what becomes of an image of another shape: `crop` keeps its middle, `pad` adds black borders, `stretch`
            keeps all of it, distorted.
    """
    import tensorflow as tf

    rows, columns = (size, size) if isinstance(size, int) else size
    if fit == "stretch":
        return _to_uint8(tf.image.resize(image, (rows, columns), antialias=True))
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    if fit == "pad":  # `tf.image.resize_with_pad` fails on a strip that becomes less than a pixel thick
        inner_rows = tf.maximum(1, tf.minimum(rows, height * columns // width))
        inner_columns = tf.maximum(1, tf.minimum(columns, width * rows // height))
        above, before = (rows - inner_rows) // 2, (columns - inner_columns) // 2
        image = tf.image.resize(image, (inner_rows, inner_columns), antialias=True)
        return _to_uint8(tf.image.pad_to_bounding_box(image, above, before, rows, columns))
    used_height = tf.maximum(1, tf.minimum(height, width * rows // columns))
    used_width = tf.maximum(1, tf.minimum(width, height * columns // rows))
    above, before = (height - used_height) // 2, (width - used_width) // 2
    image = tf.image.crop_to_bounding_box(image, above, before, used_height, used_width)
    return _to_uint8(tf.image.resize(image, (rows, columns), antialias=True))


def _to_uint8(image: "tf.Tensor") -> "tf.Tensor":
    import tensorflow as tf

    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def _read_error(name: str, split: str, error: Any, decoded: int | None) -> UserError:
    """What to tell a person about an error of TensorFlow in a split after so many examples; None: none are decoded."""
    import tensorflow as tf

    if decoded is not None and isinstance(error, tf.errors.InvalidArgumentError):
        for example in read(name, split, decode=False).skip(decoded):
            try:
                decode_image(name, example["key"].numpy().decode(), example["input"])
            except UserError as found:  # it names the invalid image
                return found
    message = re.sub("{{.*?}} | .Op:.*", "", error.message)
    return corrupt(name, f"split {split!r}: {' '.join(message.split())}")


def input_spec(name: str, split: str, image_size: int | None) -> tuple[tuple[int, ...], Any]:
    """Shape and NumPy dtype of one input of a split.

    Raises:
        UserError: the images differ in size and no image_size is given.
    """
    spec = read(name, split, image_size).element_spec["input"]
    if not spec.shape.is_fully_defined():
        raise UserError(f"{name}: its images differ in size; give the model an image_size in params.yaml")
    return tuple(spec.shape), spec.dtype.as_numpy_dtype


def load(name: str, split: str, image_size: int | None = None, memory: float = math.inf) -> SplitArrays:
    """Decode a whole split, into memory or into a temporary file.

    The file has no name, so nothing is left of it, however the process ends.

    Args:
        name: of the dataset.
        split: in the syntax of TFDS.
        image_size: as in `read`.
        memory: GiB that the inputs may take; more are in a file, for the same results.

    Raises:
        UserError: the images differ in size and no image_size is given, or the records are corrupt.
        OSError: the disk has no room for the file.
    """
    size = info(name).splits[split].num_examples
    shape, dtype = input_spec(name, split, image_size)
    gibibytes = size * math.prod(shape) * np.dtype(dtype).itemsize / 2**30
    in_memory = gibibytes <= memory
    if not in_memory:
        print(f"{name}: {split} takes {gibibytes:.3g} GiB, more than `memory` in params.yaml: on disk", flush=True)
        paths.DECODED.mkdir(parents=True, exist_ok=True)
    keys, labels = np.empty(size, object), np.empty(size, np.int32)
    inputs = aligned_empty((size if in_memory else 0, *shape), dtype)
    start = 0
    with nullcontext() if in_memory else tempfile.TemporaryFile(dir=paths.DECODED) as file:
        for batch in progress(batches(name, split, LOAD_BATCH, image_size), size, name, "images", _batch_size):
            stop = start + _batch_size(batch)
            keys[start:stop] = [key.decode() for key in batch["key"]]
            labels[start:stop] = batch["label"]
            if file:
                file.write(np.ascontiguousarray(batch["input"]).data)
            else:
                inputs[start:stop] = batch["input"]
            start = stop
        if file:
            file.flush()
            inputs = np.memmap(file, dtype, "r", shape=(size, *shape))
    return SplitArrays(keys, inputs, labels)


def _batch_size(batch: dict[str, np.ndarray]) -> int:
    return len(batch["label"])


def corrupt(name: str, what: str) -> UserError:
    """The error for records that are not what was written; it names the stage that writes them again."""
    from stages.config import params

    values = params.load()
    stage = f"extract@{name}" if name in values.features else values.preprocess_stage(name)
    return UserError(
        f"{paths.records(name)}: corrupt: {what}; write it again with `dvc repro --force --single-item {stage}`"
    )
