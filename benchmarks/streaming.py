"""Training from memory and streamed from disk: images/s, loaders of records in random order, and peak memory.

Needs no network. Grain is compared with if it was unpacked into benchmarks/.grain, a folder of its own:
`.venv/bin/pip install --no-deps --target benchmarks/.grain grain==0.2.18 portpicker==1.6.0 cloudpickle==3.1.3`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import FOLDER, Done, Result, Row, Table, Target, contender, interleaved, log, quiet, rates
from benchmarks.growth import run_stage
from benchmarks.scaling import generate_jpeg
from benchmarks.synthetic import enlarged, write_archives
from stages.config import params
from stages.runtime.numerics import dtype_policy, import_tensorflow, resolve_compute_dtype

MODEL = "imagenette_cnn"
FILES = 64  # different images
MEMORY, WARM, COLD = "in memory", "streamed, warm", "streamed, cold"
GRAIN = FOLDER / ".grain"
SIZES = (4, 16, 64)  # times the synthetic dataset


def measure(quick: bool) -> Result:
    """Epochs of imagenette_cnn on images of ImageNet's size, loaders on the same images, and memory."""
    images, rounds = (64, 2) if quick else (1024, 6)
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder), images)
        epochs = training(folder, rounds)
        loading = loaders(folder, 3)
    memory = peaks(SIZES[:1] if quick else SIZES)
    later, whole = epochs
    targets = [Target(f"{name} against in memory, an epoch", "≥ 0.9", later.ratio(name)) for name in (WARM, COLD)]
    if len(memory.values) > 1:
        first, *_, last = memory.medians.values()
        targets.append(Target(f"peak memory at {SIZES[-1]}× divided by that at {SIZES[0]}×", "≤ 1.1", last / first))
    return Result(
        [
            Table("Training, images of 500 × 375 pixels at 64 pixels", "images/s", [later]),
            Table("The same with the first epoch, which decodes every image", "images/s", [whole]),
            Table("Records in random order, decoded", "images/s", [loading]),
            Table("Peak memory of a streamed training, by times the synthetic dataset", "MiB", [memory]),
        ],
        targets,
    )


def write_records(folder: Path, images: int) -> None:
    """Write the dataset of the model with large images, in a process of its own, below `folder`."""
    shutil.copy("params.yaml", folder)
    code = f"from benchmarks.streaming import write_examples; write_examples({images})"
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)


def write_examples(images: int) -> None:
    """Write training and test images to the working directory."""
    import_tensorflow()
    from stages.data import writer

    dataset = params.load().models[MODEL].dataset
    classes = params.load().datasets[dataset].class_names
    files = [generate_jpeg(seed) for seed in range(FILES)]
    examples = (
        (split, f"{split}/{number}", files[number % FILES], number % len(classes))
        for split, count in (("train", images), ("test", FILES))
        for number in range(count)
    )
    writer.write(dataset, classes, ["train", "test"], examples)


def environment() -> dict[str, str]:
    """With this project's modules."""
    return {**os.environ, "PYTHONPATH": str(FOLDER.parent)}


def training(folder: str, rounds: int) -> tuple[Row, Row]:
    """Images/s of the epochs after the first one, and with it, from the start of the reading."""
    with (
        contender(epochs, folder, 1e3, False) as memory,
        contender(epochs, folder, 0.0, False) as warm,
        contender(epochs, folder, 0.0, True) as cold,
    ):
        results = interleaved({MEMORY: memory, WARM: warm, COLD: cold}, rounds)
    found = rates(results, "images")
    later = Row(MODEL, {name: values[1:] for name, values in found.items()})
    log(f"{MODEL}: {later.medians}")
    whole = {
        name: [len(done) * done[0].value["images"] / (done[0].value["seconds"] + sum(one.seconds for one in done[1:]))]
        for name, done in results.items()
    }
    return later, Row(f"{rounds} epochs", whole)


def epochs(done: Done, folder: str, memory: float, cold: bool) -> None:
    """Train an epoch in each round, in the first one after reading; if `cold`, drop the files from the page cache."""
    os.chdir(folder)
    values = params.load()
    import_tensorflow(values.threads)
    import keras

    from stages.data.stream import StreamedSplit, open_split
    from stages.training import loop
    from stages.training.network import build_model

    config = values.resolved_models[MODEL].model_copy(update={"epochs": 1000})
    keras.config.set_dtype_policy(dtype_policy(resolve_compute_dtype(config.compute_dtype)))
    start = time.perf_counter()
    with quiet():
        train, validation = (
            open_split(config.dataset, split, config.image_size, memory) for split in ("train[:-32]", "train[-32:]")
        )
    model = build_model(config, train.inputs.shape[1:], train.inputs.dtype, 10)
    for number, _ in loop.train_epochs(model, config, train, validation, 0):
        seconds = time.perf_counter() - start if number == 1 else 0.0
        if cold and isinstance(train, StreamedSplit):
            drop_from_cache(train)
        done({"images": len(train), "seconds": seconds})


def drop_from_cache(split: Any) -> None:
    """Remove the records and the temporary file of a split from the page cache."""
    records = Path("data/records").rglob("*.tfrecord*")
    files = [os.open(path, os.O_RDONLY) for path in records]
    for file in [*files, *([split._file.fileno()] if split._file else [])]:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    for file in files:
        os.close(file)


def loaders(folder: str, rounds: int) -> Row:
    """Images/s of what reads and decodes records in random order, and of the reader in the order of the file."""
    names = {"in order": "in_order", "tf.data, random order": "by_index"}
    if GRAIN.exists():
        names["Grain, random order"] = "by_grain"
    else:
        log("Grain is not measured: it is not in benchmarks/.grain")
    with ExitStack() as stack:
        started = {name: stack.enter_context(contender(load, folder, how)) for name, how in names.items()}
        interleaved(started, 1)  # imports TensorFlow
        values = rates(interleaved(started, rounds), "images")
    log(f"loaders: {values}")
    return Row("500 × 375 → 64 pixels", values)


def load(done: Done, folder: str, how: str) -> None:
    """Read the training split in each round."""
    os.chdir(folder)
    values = params.load()
    import_tensorflow(values.threads)
    config = values.models[MODEL]
    while True:
        done({"images": sum(globals()[how](config.dataset, config.image_size))})


def in_order(dataset: str, image_size: int) -> Iterator[int]:
    """The reader that fills the memory."""
    from stages.data import reader

    for batch in reader.batches(dataset, "train", reader.LOAD_BATCH, image_size):
        yield len(batch["label"])


def by_index(dataset: str, image_size: int) -> Iterator[int]:
    """The streamed split, of which nothing has been decoded."""
    from stages.data.stream import StreamedSplit

    split = StreamedSplit(dataset, "train", image_size)
    order = np.random.default_rng(0).permutation(len(split))
    for start in range(0, len(order), 256):
        yield len(split.rows(order[None, start : start + 256]).labels)


def by_grain(dataset: str, image_size: int) -> Iterator[int]:
    """The same operations of TensorFlow, one image at a time in the threads of Grain."""
    sys.path.append(str(GRAIN))
    import grain
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from stages.data import index, reader
    from stages.data.stream import _index
    from stages.runtime import paths

    shards, numbers, offsets = _index(dataset, "train")
    features = tfds.builder_from_directory(paths.records(dataset)).info.features
    files = [os.open(shard, os.O_RDONLY) for shard in shards]

    def decode_record(record: Any) -> Any:
        found = features.deserialize_example(record)
        return reader.resize(found["input"], image_size), found["label"]

    decode = tf.function(decode_record, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)

    def read(number: int) -> Any:
        file, offset = files[numbers[number]], int(offsets[number])
        length = int.from_bytes(os.pread(file, index.LENGTH, offset), "little")
        inputs, label = decode(os.pread(file, length, offset + index.LENGTH + index.CHECKSUM))
        return inputs.numpy(), label.numpy()

    data = grain.MapDataset.range(len(offsets)).shuffle(seed=0).map(read)
    options = grain.ReadOptions(num_threads=16, prefetch_buffer_size=256)
    for _, labels in data.to_iter_dataset(options).batch(256):
        yield len(labels)


def write_sample(name: str, factor: int) -> None:
    """Write the archives of `factor` times the synthetic dataset to the working directory."""
    write_archives(Path(), name, enlarged(params.load().datasets[name], factor))


def peaks(sizes: tuple[int, ...]) -> Row:
    """Peak memory of a training of one epoch, streamed, on multiples of the synthetic dataset."""
    values = params.load()
    name = values.models[MODEL].dataset
    row = Row(MODEL, {})
    for factor in sizes:
        with tempfile.TemporaryDirectory() as folder:
            text = Path("params.yaml").read_text(encoding="utf-8")
            lines = ["memory: 0" if line.startswith("memory:") else line for line in text.splitlines()]
            changed = "\n".join(lines).replace("  epochs: null\n", "  epochs: 1\n", 1)
            (Path(folder) / "params.yaml").write_text(changed + "\n", encoding="utf-8")
            # In a process of its own: a child's peak is at least the memory of its parent when it starts
            code = f"from benchmarks.streaming import write_sample; write_sample({name!r}, {factor})"
            subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment(), check=True)
            run_stage(Path(folder), "preprocess", name)
            found = run_stage(Path(folder), "train", MODEL)
        row.values[f"{factor}×"] = [found.memory]
        log(f"{MODEL}, {factor} times the synthetic dataset: {found.seconds:.1f} s, {found.memory:,.0f} MiB")
    return row
