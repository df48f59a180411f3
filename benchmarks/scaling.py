"""The figures of docs/cluster.md: rates of one core and of one machine, the overhead of Ray, and how it scales.

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
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.common import FOLDER, Done, Result, Row, Table, Target, contender, interleaved, log, rates
from benchmarks.synthetic import enlarged, write_archives, write_weights
from stages.config import params
from stages.data import jpeg
from stages.data.formats import image_folder
from stages.runtime import paths
from stages.runtime.numerics import import_tensorflow
from stages.runtime.tasks import Task

if TYPE_CHECKING:
    from stages.data.examples import Example

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
SHARD = 1250  # images: ImageNet-1k has 1,024 shards
WORKERS = (1, 2, 4, 8, 16)
SHARDS = 8  # of each worker


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
    log(f"{name}: {machine.medians['all cores']:.1f} images/s")
    simulated, head = [], []
    for workers in (1, 2) if quick else WORKERS:
        found = simulation(workers, 2 if quick else SHARDS)
        title = f"{workers} × {FAST:,.0f} images/s"
        simulated.append(Row(title, {"sum of workers": [workers * FAST], "reached": [found["images/s"]]}))
        head.append(Row(title, {"driver": [found["driver"]], "driver, GCS and raylet": [found["head"]]}))
        log(f"{title}: {found['images/s']:.0f} images/s, {found['driver']:.1f} and {found['head']:.1f} ms per shard")
    factor = 1 if quick else FACTOR
    stages = engines(name, factor)
    totals = {engine: sum(row.medians[engine] for row in stages) for engine in ("local", "ray")}
    target = Target(
        f"extract with Ray on one machine against local, {factor} times the synthetic dataset",
        "≤ 1.25",
        totals["ray"] / totals["local"],
    )
    return Result(
        [
            Table("One core, synthetic images of ImageNet's size", "images/s", core),
            Table("The backbone", "images/s", [machine]),
            Table("Extract with Ray, with workers that sleep instead of computing", "images/s", simulated),
            Table("Processor time of the head for a shard, in the same runs", "ms", head),
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
        features = [
            (key, np.random.default_rng(label).random(FEATURE_SHAPE).astype("f2"), label)
            for _, key, _, label in examples
        ]
        work: dict[str, Callable[[], object]] = {
            "read the archive": lambda: sum(1 for _ in image_folder.examples(Path(), CLASSES)),
            "check": lambda: [jpeg.find_error(data) for _, _, data, _ in examples],
            "check and decode": lambda: [jpeg.find_error(data, decode=True) for _, _, data, _ in examples],
            "write records": lambda: writer.write("images", CLASSES, ["train"], examples),
            "read records": lambda: sum(1 for _ in reader.batches("images", "train", 32, decode=False)),
            "decode and crop": lambda: sum(1 for _ in reader.batches("images", "train", 32, 224)),
            "write features": lambda: writer.write_shard(Path("features"), features),
            "MD5, as DVC computes it": lambda: [hashlib.md5(data) for _, _, data, _ in examples],
        }
        while True:
            for name in WORK:
                work[name]()
                done({"images": images})


def backbone(done: Done, name: str) -> None:
    """Run the backbone of a feature set on two batches in each round."""
    from stages.data.extraction import BATCH_SIZE, Extractor

    values = params.load()
    features = values.features[name]
    weights = values.weights[features.backbone]
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder), features.backbone, weights)
        file = Path(folder) / paths.raw(features.backbone) / next(iter(weights.files))
        extractor = Extractor(features, values.threads, "native", file)
    size = features.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, size, size, 3), np.uint8)
    while True:
        for _ in range(2):
            extractor(pixels)
        done({"images": 2 * BATCH_SIZE})


def simulation(workers: int, shards: int) -> dict[str, float]:
    """What `simulate` measures."""
    with contender(simulate, workers, shards) as run_round:
        return run_round().value


def simulate(done: Done, workers: int, shards: int) -> None:
    """Turn shards of images into shards of features as `extract` does, with workers that sleep instead of computing.

    The workers are processes of a node beside the one that this process is on. A shard has as many images as one of
    ImageNet; its files have a hundredth of the size, because two cores cannot move 16,000 images per second.

    Args:
        done: called with the images per second while the workers work, and the processor time, in ms for each shard, of
            this process and of those that Ray starts beside it.
        workers: their number.
        shards: for each worker.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "PYTHONPATH": str(FOLDER.parent)}
    from ray.cluster_utils import Cluster

    from stages.cluster.tasks import run_on_nodes

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        source = Path("images")
        source.write_bytes(bytes(SHARD * 1100))
        Path("features").mkdir()
        number = workers * shards
        tasks = [Task(source, (source,), Path("features") / f"{index}") for index in range(number)]
        nodes = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": 200_000_000, "include_dashboard": False},
        )
        try:
            nodes.add_node(num_cpus=workers, object_store_memory=200_000_000)
            nodes.wait_for_nodes()
            os.environ["RAY_ADDRESS"] = nodes.address
            head = [psutil.Process(), *(psutil.Process(process) for process in _processes(nodes.head_node))]
            finished = []
            for _ in run_on_nodes(tasks, partial(_sleeper, workers)):
                finished.append((time.perf_counter(), *map(_processor_time, head)))
        finally:
            nodes.shutdown()
    seconds, driver, *beside = (float(number) for number in np.array(finished[-1]) - np.array(finished[0]))
    done(
        {
            "images/s": number * SHARD / (seconds + SHARD / FAST),  # the first shard was begun that much earlier
            "driver": 1000 * driver / (number - 1),
            "head": 1000 * (driver + sum(beside)) / (number - 1),
        }
    )


def _processes(node: Any) -> list[int]:
    """The processes of Ray that a head has and other nodes do not need, and that which runs every node."""
    return [node.all_processes[name][0].process.pid for name in ("gcs_server", "raylet")]


def _processor_time(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def _sleeper(workers: int) -> Callable[[Path, Path], None]:
    """Stands in for `features.shard_extractor`. Waits for the other workers, so that all begin at the same time."""
    Path(f"started.{os.getpid()}").touch()
    while len(list(Path().glob("started.*"))) < workers:
        time.sleep(0.1)

    def extract(source: Path, path: Path) -> None:
        images = source.read_bytes()
        time.sleep(SHARD / FAST)
        path.write_bytes(images[: len(images) // 2])

    return extract


def engines(name: str, factor: int) -> list[Row]:
    """Seconds of extract with each engine, on `factor` times the synthetic dataset."""
    values = params.load()
    features = values.features[name]
    text = Path("params.yaml").read_text(encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent), "RAY_ADDRESS": ""}
    row = Row("extract", {"local": [], "ray": []})
    with tempfile.TemporaryDirectory() as folder:
        write_archives(Path(folder), features.dataset, enlarged(values.datasets[features.dataset], factor))
        write_weights(Path(folder), features.backbone, values.weights[features.backbone])
        (Path(folder) / "params.yaml").write_text(text, encoding="utf-8")
        preprocess = [sys.executable, "-m", "stages.preprocess", features.dataset]
        subprocess.run(preprocess, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
        for engine in row.values:
            changed = re.sub("^engine: [a-z]+", f"engine: {engine}", text, flags=re.M)
            (Path(folder) / "params.yaml").write_text(changed, encoding="utf-8")
            command = [sys.executable, "-m", "stages.extract", name]
            start = time.perf_counter()
            subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
            row.values[engine].append(time.perf_counter() - start)
            log(f"extract, {engine}: {row.values[engine][-1]:.1f} s")
    return [row]
