"""The reader of records: what was written is read, slices are consistent, corrupt records are named."""

import io
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.config import params
from stages.data import reader, writer
from stages.data.examples import Example
from stages.runtime import limits, paths
from stages.runtime.errors import UserError
from stages.training.train_model import Training
from tests.conftest import write_params


def pixels(count: int, shape: tuple[int, ...], split: str = "train") -> list[Example]:
    rng = np.random.default_rng(len(split))
    return [(split, f"{i:05d}", rng.integers(0, 256, shape, np.uint8), i % 3) for i in range(count)]


def jpeg(height: int, width: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    ramp = np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)
    Image.fromarray(ramp).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_pixels_are_read_as_written(project: Path, shape: tuple[int, ...]) -> None:
    written = {split: pixels(count, shape, split) for split, count in (("train", 30), ("test", 7))}
    mixed = [*written["train"][:10], *written["test"], *written["train"][10:]]
    writer.write("synthetic", ["a", "b", "c"], written, mixed)
    for split, examples in written.items():
        arrays = reader.load("synthetic", split)
        assert arrays.inputs.dtype == np.uint8
        found = {
            key: (image, label) for key, image, label in zip(arrays.keys, arrays.inputs, arrays.labels, strict=True)
        }
        assert len(found) == len(examples)
        for _, key, image, label in examples:
            assert np.array_equal(found[key][0], image)
            assert found[key][1] == label


def test_features_are_read_as_written(project: Path) -> None:
    features = np.random.default_rng(0).normal(size=(5, 2, 2, 8)).astype(np.float16)
    writer.write("features", ["a", "b"], ["train"], [("train", str(i), array, 0) for i, array in enumerate(features)])
    arrays = reader.load("features", "train")
    assert arrays.inputs.dtype == np.float16
    for key, array in zip(arrays.keys, arrays.inputs, strict=True):
        assert np.array_equal(array, features[int(key)])


def test_jpeg_files_are_stored_unchanged_and_read_as_squares(project: Path) -> None:
    import tensorflow_datasets as tfds

    files = {"wide": jpeg(20, 60), "tall": jpeg(60, 20), "grayscale": jpeg(30, 30, "L")}
    writer.write("photos", ["a"], ["train"], [("train", key, data, 0) for key, data in files.items()])
    with pytest.raises(UserError, match="its images differ in size; give the model an image_size"):
        reader.load("photos", "train")
    arrays = reader.load("photos", "train", image_size=10)
    assert arrays.inputs.shape == (3, 10, 10, 3)
    builder = tfds.builder_from_directory(paths.records("photos"))
    raw = builder.as_dataset(split="train", decoders={"input": tfds.decode.SkipDecoding()})
    assert {example["key"].decode(): example["input"] for example in raw.as_numpy_iterator()} == files


def test_slice_of_the_end_complements_the_rest(project: Path) -> None:
    writer.write("synthetic", ["a", "b", "c"], ["train"], pixels(50, (4, 4, 1)))
    rest, held_out = reader.load("synthetic", "train[:-10]"), reader.load("synthetic", "train[-10:]")
    assert [*rest.keys, *held_out.keys] == list(reader.load("synthetic", "train").keys)
    assert set(held_out.labels) == {0, 1, 2}
    assert list(rest.keys) != sorted(rest.keys)  # shuffled by the hash of the key


def test_missing_records_are_a_one_line_error(project: Path) -> None:
    with pytest.raises(UserError, match="data/records/nothing: no records; run `dvc repro`"):
        reader.info("nothing")


def corrupt(shard: bytes, how: str) -> bytes:
    """Corrupt a shard of 30 records of equal length."""
    record = len(shard) // 30
    flipped = bytearray(shard)
    flipped[len(shard) // 2] ^= 1
    return {
        "empty": b"",
        "half": shard[: len(shard) // 2],
        "without its last bytes": shard[:-3],
        "without its last record": shard[:-record],
        "without its first record": shard[record:],
        "with a record twice": shard + shard[:record],
        "with another bit": bytes(flipped),
        "with another bit in its first length": b"\1" + shard[1:],
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "empty",
        "half",
        "without its last bytes",
        "without its last record",
        "without its first record",
        "with a record twice",
        "with another bit",
        "with another bit in its first length",
    ],
)
def test_corrupt_shard_is_named(project: Path, how: str) -> None:
    features = [("train", f"{i:02d}", np.full((4, 4, 8), i, np.float16), i % 3) for i in range(30)]
    writer.write("synthetic", ["a", "b", "c"], ["train"], features)
    (shard,) = Path("data/records/synthetic").glob("*-train.*")
    if how == "missing":
        shard.unlink()
    else:
        shard.write_bytes(corrupt(shard.read_bytes(), how))
    message = r"^data/records/synthetic: corrupt: split 'train.*dvc repro --force --single-item preprocess@synthetic`$"
    for memory in (1, 0):
        with pytest.raises(UserError, match=message) as caught:
            reader.load("synthetic", "train[:20]", None, memory)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("stage", ["preprocess", "preprocess_folder", "extract"])
def test_error_names_the_stage_that_writes_the_records(project: Path, stage: str) -> None:
    def change(values: Any) -> None:
        values["folders"] = {"own": {"path": "../own", "classes": ["a", "b", "c"], "test_fraction": 0.2}}
        if stage != "preprocess_folder":
            del values["folders"]
        if stage == "extract":
            values["features"]["own"] = values["features"]["imagenette_vgg16"]

    write_params(project, change)
    writer.write("own", ["a", "b", "c"], ["train"], pixels(3, (4, 4, 1)))
    Path("data/records/own/features.json").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=f"--single-item {stage}@own`$"):
        reader.info("own")


def test_end_of_an_iteration_is_not_waited_for(project: Path) -> None:
    """A thread of TensorFlow that tunes a pipeline made the end of every third take as long again as all before it."""
    examples: list[Example] = [("train", f"{n}", np.zeros((4, 4, 1), np.uint8), 0) for n in range(2)]
    writer.write("mnist", ["a"], ["train"], examples)

    def seconds_of_the_end(_: int) -> float:
        batches = reader.batches("mnist", "train", 1)
        next(batches)
        time.sleep(0.8)
        next(batches)
        start = time.monotonic()
        assert next(batches, None) is None
        return time.monotonic() - start

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(seconds_of_the_end, range(16))) < 0.6  # it was as long as the sleep, or longer


def test_images_are_decoded_on_all_cores_whatever_threads_the_computation_has(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on more than 16, at which TensorFlow begins, and on those of a container alone."""
    monkeypatch.setattr(limits, "cores", lambda: 40)
    writer.write("photos", ["a"], ["train"], [("train", "0", jpeg(9, 9), 0)])
    for size in (None, 8):
        options = reader.read("photos", "train", size).options()
        assert (options.threading.private_threadpool_size, options.threading.max_intra_op_parallelism) == (40, 1)
        assert options.autotune.initial_parallelism == 40


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("text", [b"", b"{}", b"\xff\x00", b'{"a'])
def test_corrupt_metadata_is_named(project: Path, file: str, text: bytes) -> None:
    writer.write("synthetic", ["a", "b", "c"], ["train"], pixels(30, (4, 4, 1)))
    (Path("data/records/synthetic") / file).write_bytes(text)
    with pytest.raises(UserError, match=r"^data/records/synthetic: corrupt: ") as caught:
        reader.load("synthetic", "train")
    assert str(caught.value).isprintable()


def test_image_that_tensorflow_cannot_decode_is_named(project: Path) -> None:
    """It can be opened and has an end mark, but is corrupt in between."""
    bad = bytearray(jpeg(40, 40))
    bad[bad.index(b"\xff\xc4") + 6] ^= 0xFF  # in a Huffman table
    files = {"good": jpeg(9, 9), "n1/bad.JPEG": bytes(bad)}
    writer.write("photos", ["a"], ["train"], [("train", key, data, 0) for key, data in files.items()])
    message = r"^data/records/photos: 'n1/bad.JPEG' cannot be decoded; .*skip_invalid_images"
    with pytest.raises(UserError, match=message):
        reader.load("photos", "train", image_size=8)
    writer.write("many", ["a"], ["train"], [("train", key, data, 0) for key, data in files.items()])
    with pytest.raises(UserError, match=message.replace("photos", "many")):
        list(reader.batches("many", "train", 1, image_size=8))


def test_error_on_a_node_of_a_cluster_names_the_stage(project: Path) -> None:
    """It has the inputs of the training and nothing else."""
    writer.write("mnist", ["a", "b", "c"], ["train"], pixels(3, (4, 4, 1)))
    inputs = Training.of("mnist_dense", params.load()).inputs
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(node(project, inputs))
        Path("data/records/mnist/features.json").write_text("", encoding="utf-8")
        with pytest.raises(UserError, match=r"--single-item preprocess@mnist`$"):
            reader.info("mnist")


def node(project: Path, inputs: list[Path]) -> Path:
    """A folder with these files and folders of the project."""
    folder = project / "node"
    for path in inputs:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path)
    return folder
