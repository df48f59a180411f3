"""The figures of docs/scaling.md: rates of one core and of one machine, the overhead of Ray, and how it scales.

Needs requirements-cluster.txt. The images are synthetic and have the size of ImageNet's, in pixels and bytes.
"""

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.common import FOLDER, Done, Result, Row, Table, Target, contender, interleaved, log, rates
from benchmarks.synthetic import enlarged, write_archives, write_weights
from stages.config import params
from stages.data import jpeg
from stages.data.formats import image_folder
from stages.runtime import paths
from stages.runtime.numerics import import_tensorflow

if TYPE_CHECKING:
    from stages.data.examples import Example
    from stages.data.features import Batch

HEIGHT, WIDTH, QUALITY = 375, 500, 93  # about 110 kB, which is 138 GB / 1,281,167 images
FEATURE_SHAPE = (7, 7, 512)  # VGG16's output for an image, as float16
CLASSES = ["n0", "n1"]
WORK = (  # of one core, in this order
    "read the archive",
    "check",
    "check and decode",
    "write records",
    "read records",
    "decode and crop",
    "write features",
    "MD5, as DVC computes it",
)
FACTOR = 16  # times the synthetic dataset, for the overhead of Ray
FAST = 1000.0  # images/s of a worker that stands for a GPU: an assumption


def measure(quick: bool) -> Result:
    """Everything; the overhead of Ray takes most of the time."""
    rounds = 1 if quick else 3
    name = next(iter(params.load().features))
    core = [Row(work, {"one core": []}) for work in WORK]
    with contender(work_of_one_core, 64 if quick else 1024) as run_round:
        interleaved({"warm-up": run_round}, len(core))
        for _ in range(rounds):
            for row in core:
                done = run_round()
                row.values["one core"].append(done.value["images"] / done.seconds)
    with contender(backbone, name) as run_round:
        run_round()
        machine = Row(name, rates(interleaved({"all cores": run_round}, rounds), "images"))
    slow = machine.medians["all cores"]
    log(f"{name}: {slow:.1f} images/s")
    simulated = []
    for rate, batches in ((slow, 12), (FAST, 100)):
        for workers in (1, 2, 4):
            simulated.append(simulation(workers, rate, 4 if quick else batches))
            log(f"{simulated[-1].name}: {simulated[-1].medians['reached']:.1f} images/s")
    factor = 1 if quick else FACTOR
    stages = engines(name, factor)
    totals = {engine: sum(row.medians[engine] for row in stages) for engine in ("local", "ray")}
    target = Target(
        f"preprocess and extract with Ray on one machine against local, {factor} times the synthetic dataset",
        "≤ 1.25",
        totals["ray"] / totals["local"],
    )
    return Result(
        [
            Table("One core, synthetic images of ImageNet's size", "images/s", core),
            Table("The backbone", "images/s", [machine]),
            Table("Extract with Ray, with workers that sleep instead of computing", "images/s", simulated),
            Table("A stage with each engine, from start to end", "s", stages),
        ],
        [target],
        [f"A synthetic image has {WIDTH} × {HEIGHT} pixels and {len(generate_jpeg(0)):,} bytes."],
    )


def generate_jpeg(seed: int) -> bytes:
    """A JPEG file: smooth shapes and noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )
    noise = rng.normal(0, 14, (HEIGHT, WIDTH, 1))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def work_of_one_core(done: Done, images: int) -> None:
    """Do all work on an image but the backbone's, one kind of `WORK` in each round."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import_tensorflow()
    from stages.data import reader, writer

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        files = [generate_jpeg(seed) for seed in range(64)]
        examples: list[Example] = [("train", f"{number}", files[number % 64], number % 2) for number in range(images)]
        with tarfile.open("images.tgz", "w:gz", compresslevel=1) as archive:
            for number, (_, key, data, label) in enumerate(examples):
                member = tarfile.TarInfo(f"all/{'train' if number else 'val'}/n{label}/{key}.JPEG")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        batches = [
            {
                "key": np.array([key.encode() for _, key, _, _ in batch]),
                "input": np.array([data for _, _, data, _ in batch], object),
            }
            for batch in (examples[start : start + 32] for start in range(0, images, 32))
        ]
        features: list[Example] = [
            ("train", key, np.random.default_rng(label).random(FEATURE_SHAPE).astype("f2"), label)
            for _, key, _, label in examples
        ]
        work: dict[str, Callable[[], object]] = {
            "read the archive": lambda: sum(1 for _ in image_folder.examples(Path(), CLASSES)),
            "check": lambda: [jpeg.find_error(data) for _, _, data, _ in examples],
            "check and decode": lambda: [jpeg.find_error(data, decode=True) for _, _, data, _ in examples],
            "write records": lambda: writer.write("images", CLASSES, ["train"], examples),
            "read records": lambda: sum(1 for _ in reader.batches("images", "train", 32, decode=False)),
            "decode and crop": lambda: [reader.decode_batch("images", 224, batch) for batch in batches],
            "write features": lambda: writer.write("features", CLASSES, ["train"], features),
            "MD5, as DVC computes it": lambda: [hashlib.md5(data) for _, _, data, _ in examples],
        }
        while True:
            for name in WORK:
                work[name]()
                done({"images": images})


def backbone(done: Done, name: str) -> None:
    """Run the backbone of a feature set on two batches in each round."""
    from stages.data.features import BATCH_SIZE, Extractor

    values = params.load()
    features = values.features[name]
    weights = values.weights[features.backbone]
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder), features.backbone, weights)
        extractor = Extractor(
            features, values.threads, Path(folder) / paths.raw(features.backbone) / next(iter(weights.files))
        )
    size = features.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, size, size, 3), np.uint8)
    keys, labels = np.array([b""] * BATCH_SIZE), np.zeros(BATCH_SIZE, int)
    batch = {"split": "train", "key": keys, "input": pixels, "label": labels}
    while True:
        for _ in range(2):
            extractor(batch)
        done({"images": 2 * BATCH_SIZE})


def simulation(workers: int, rate: float, batches: int) -> Row:
    """The rate that `simulate` reaches, and the sum of the rates of its workers."""
    with contender(simulate, workers, rate, batches) as run_round:
        reached = run_round().value
    return Row(f"{workers} × {rate:,.0f} images/s", {"sum of workers": [workers * rate], "reached": [reached]})


def simulate(done: Done, workers: int, rate: float, batches: int) -> None:
    """Turn records with files of ImageNet's size into records of features, with workers that only sleep.

    One process reads and one writes, as in `extract`. Each worker is a node of a cluster whose nodes are processes of
    this machine.

    Args:
        done: called with the images per second, from the first result to the last record.
        workers: their number.
        rate: images/s of each worker.
        batches: number of batches per worker.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "PYTHONPATH": str(FOLDER.parent)}
    from ray.cluster_utils import Cluster

    from stages.cluster.map import map_items

    import_tensorflow()
    from stages.data import reader, writer
    from stages.data.features import BATCH_SIZE

    images = workers * batches * BATCH_SIZE
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        file = generate_jpeg(0)
        writer.write(
            "images", CLASSES, ["train"], (("train", f"{number}", file, number % 2) for number in range(images))
        )
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 500_000_000})
        try:
            for _ in range(workers):
                nodes.add_node(num_cpus=1, object_store_memory=200_000_000)
            nodes.wait_for_nodes()
            os.environ["RAY_ADDRESS"] = nodes.address
            read = partial(reader.batches, "images", "train", BATCH_SIZE, decode=False)
            with map_items(read, _identity, partial(Sleeper, BATCH_SIZE / rate)) as results:
                next(results)
                start = time.perf_counter()
                writer.write("features", CLASSES, ["train"], (example for found in results for example in found))
                seconds = time.perf_counter() - start
        finally:
            nodes.shutdown()
    done((images - BATCH_SIZE) / seconds)


def _identity(batch: "Batch") -> "Batch":
    return batch


class Sleeper:
    """Stands in for a backbone."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, batch: "Batch") -> "list[Example]":
        time.sleep(self.seconds)
        return [
            ("train", key.decode(), np.ones(FEATURE_SHAPE, np.float16), int(label))
            for key, label in zip(batch["key"], batch["label"], strict=True)
        ]


def engines(name: str, factor: int) -> list[Row]:
    """Seconds of preprocess and extract with each engine, on `factor` times the synthetic dataset."""
    values = params.load()
    features = values.features[name]
    text = Path("params.yaml").read_text()
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent), "RAY_ADDRESS": ""}
    rows = [Row("preprocess", {"local": [], "ray": []}), Row("extract", {"local": [], "ray": []})]
    with tempfile.TemporaryDirectory() as folder:
        write_archives(Path(folder), features.dataset, enlarged(values.datasets[features.dataset], factor))
        write_weights(Path(folder), features.backbone, values.weights[features.backbone])
        for row, entry in zip(rows, (features.dataset, name), strict=True):
            for engine in row.values:
                (Path(folder) / "params.yaml").write_text(
                    re.sub("^engine: [a-z]+", f"engine: {engine}", text, flags=re.M)
                )
                command = [sys.executable, "-m", f"stages.{row.name}", entry]
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
                row.values[engine].append(time.perf_counter() - start)
                log(f"{row.name}, {engine}: {row.values[engine][-1]:.1f} s")
    return rows
