"""What docs/scaling.md reckons with: rates of one core and of one machine, what Ray adds, and how it scales.

Needs requirements-cluster.txt. The images are drawn: of the size, in pixels and bytes, of ImageNet's.
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

import numpy as np
from PIL import Image

from benchmarks.common import FOLDER, Done, Goal, Result, Row, Table, in_turn, log, rates, side
from stages import extract, jpeg, params, records, sample
from stages.console import import_tensorflow
from stages.formats import image_folder

HEIGHT, WIDTH, QUALITY = 375, 500, 93  # about 110 kB, which is 138 GB / 1,281,167 images
FEATURE = (7, 7, 512)  # float16, that VGG16 makes of an image
CLASSES = ["n0", "n1"]
WORK = (  # of one core, in this order
    "read the archive",
    "check",
    "check and decode",
    "write records",
    "read records",
    "decode and cut",
    "write features",
    "hash, as DVC does",
)
TIMES = 16  # the sample, for what Ray adds
FAST = 1000.0  # images/s of a worker that stands for a GPU: an assumption


def measure(quick: bool) -> Result:
    """All of it; the overhead takes most of the time."""
    rounds = 1 if quick else 3
    name = next(iter(params.load().features))
    core = [Row(what, {"one core": []}) for what in WORK]
    with side(work_of_one_core, 64 if quick else 1024) as turn:
        in_turn({"warm": turn}, len(core))
        for _ in range(rounds):
            for row in core:
                done = turn()
                row.values["one core"].append(done.value["images"] / done.seconds)
    with side(backbone, name) as turn:
        turn()
        machine = Row(name, rates(in_turn({"all cores": turn}, rounds), "images"))
    slow = machine.medians["all cores"]
    log(f"{name}: {slow:.1f} images/s")
    simulated = []
    for rate, batches in ((slow, 12), (FAST, 100)):
        for workers in (1, 2, 4):
            simulated.append(simulation(workers, rate, 4 if quick else batches))
            log(f"{simulated[-1].name}: {simulated[-1].medians['reached']:.1f} images/s")
    times = 1 if quick else TIMES
    stages = engines(name, times)
    totals = {engine: sum(row.medians[engine] for row in stages) for engine in ("local", "ray")}
    goal = Goal(
        f"preprocess and extract by Ray on one machine against local, {times} times the sample",
        "≤ 1.25",
        totals["ray"] / totals["local"],
    )
    return Result(
        [
            Table("One core, drawn images of ImageNet's size", "images/s", core),
            Table("The backbone", "images/s", [machine]),
            Table("Extract by Ray, with workers that sleep instead of computing", "images/s", simulated),
            Table("A stage by either engine, from start to end", "s", stages),
        ],
        [goal],
        [f"A drawn image has {WIDTH} × {HEIGHT} pixels and {len(drawn(0)):,} bytes."],
    )


def drawn(number: int) -> bytes:
    """A JPEG file: smooth shapes with noise on top."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )
    noise = rng.normal(0, 14, (HEIGHT, WIDTH, 1))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def work_of_one_core(done: Done, images: int) -> None:
    """Turn by turn: what is done to every image but the backbone's work, in the order of `WORK`."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        files = [drawn(number) for number in range(64)]
        examples = [("train", f"{number}", files[number % 64], number % 2) for number in range(images)]
        with tarfile.open("images.tgz", "w:gz", compresslevel=1) as archive:
            for number, (_, key, data, label) in enumerate(examples):
                member = tarfile.TarInfo(f"all/{'train' if number else 'val'}/n{label}/{key}.JPEG")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        batches = [
            {
                "key": np.array([key.encode() for _, key, _, _ in some]),
                "input": np.array([data for _, _, data, _ in some], object),
            }
            for some in (examples[start : start + 32] for start in range(0, images, 32))
        ]
        features = [
            ("train", key, np.random.default_rng(label).random(FEATURE).astype("f2"), label)
            for _, key, _, label in examples
        ]
        work: dict[str, Callable[[], object]] = {
            "read the archive": lambda: sum(1 for _ in image_folder.examples(Path(), CLASSES)),
            "check": lambda: [jpeg.fault(data) for _, _, data, _ in examples],
            "check and decode": lambda: [jpeg.fault(data, decode=True) for _, _, data, _ in examples],
            "write records": lambda: records.write("drawn", CLASSES, ["train"], examples),
            "read records": lambda: sum(1 for _ in records.batches("drawn", "train", 32, decode=False)),
            "decode and cut": lambda: [records.decoded("drawn", 224, batch) for batch in batches],
            "write features": lambda: records.write("features", CLASSES, ["train"], features),
            "hash, as DVC does": lambda: [hashlib.md5(data) for _, _, data, _ in examples],
        }
        while True:
            for what in WORK:
                work[what]()
                done({"images": images})


def backbone(done: Done, name: str) -> None:
    """Turn by turn: two batches."""
    values = params.load()
    features = values.features[name]
    weights = values.weights[features.backbone]
    with tempfile.TemporaryDirectory() as folder:
        sample.draw(features.backbone, weights, Path(folder) / "drawn")
        extractor = extract.Extractor(features, Path(folder) / "drawn" / next(iter(weights.files)))
    size = features.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (extract.BATCH, size, size, 3), np.uint8)
    keys, labels = np.array([b""] * extract.BATCH), np.zeros(extract.BATCH, int)
    batch = {"split": "train", "key": keys, "input": pixels, "label": labels}
    while True:
        for _ in range(2):
            extractor(batch)
        done({"images": 2 * extract.BATCH})


def simulation(workers: int, rate: float, batches: int) -> Row:
    """`simulate`, beside what its workers could do."""
    with side(simulate, workers, rate, batches) as turn:
        reached = turn().value
    return Row(f"{workers} × {rate:,.0f} images/s", {"workers alone": [workers * rate], "reached": [reached]})


def simulate(done: Done, workers: int, rate: float, batches: int) -> None:
    """Records of files of ImageNet's size to records of features, by workers that take as long as told and do nothing.

    One process reads and one writes, as in `extract`. A worker is a node of a cluster, whose nodes are processes of
    this machine.

    Args:
        done: called with the images in a second, from the first result to the last record.
        workers: how many.
        rate: images/s of each.
        batches: for each.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "PYTHONPATH": str(FOLDER.parent)}
    from ray.cluster_utils import Cluster

    from stages import cluster

    import_tensorflow()
    images = workers * batches * extract.BATCH
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        file = drawn(0)
        records.write(
            "drawn", CLASSES, ["train"], (("train", f"{number}", file, number % 2) for number in range(images))
        )
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 500_000_000})
        try:
            for _ in range(workers):
                nodes.add_node(num_cpus=1, object_store_memory=200_000_000)
            nodes.wait_for_nodes()
            os.environ["RAY_ADDRESS"] = nodes.address
            read = partial(records.batches, "drawn", "train", extract.BATCH, decode=False)
            with cluster.mapped(read, _as_it_is, partial(Sleeper, extract.BATCH / rate)) as results:
                next(results)
                start = time.perf_counter()
                records.write("features", CLASSES, ["train"], (example for found in results for example in found))
                seconds = time.perf_counter() - start
        finally:
            nodes.shutdown()
    done((images - extract.BATCH) / seconds)


def _as_it_is(batch: extract.Batch) -> extract.Batch:
    return batch


class Sleeper:
    """In the place of a backbone."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, batch: extract.Batch) -> list[records.Example]:
        time.sleep(self.seconds)
        return [
            ("train", key.decode(), np.ones(FEATURE, np.float16), int(label))
            for key, label in zip(batch["key"], batch["label"], strict=True)
        ]


def engines(name: str, times: int) -> list[Row]:
    """Seconds of preprocess and extract, so many times the sample, in processes of their own, by either engine."""
    values = params.load()
    features = values.features[name]
    text = Path("params.yaml").read_text()
    dataset = values.datasets[features.dataset]
    size = params.SampleSize(train=times * dataset.sample.train, test=times * dataset.sample.test)
    path = {"PYTHONPATH": str(FOLDER.parent), "RAY_ADDRESS": ""}
    rows = [Row("preprocess", {"local": [], "ray": []}), Row("extract", {"local": [], "ray": []})]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "data/raw"
        sample.draw(features.dataset, dataset.model_copy(update={"sample": size}), raw / features.dataset)
        sample.draw(features.backbone, values.weights[features.backbone], raw / features.backbone)
        for row, entry in zip(rows, (features.dataset, name), strict=True):
            for engine in row.values:
                changed = re.sub("^engine: [a-z]+", f"engine: {engine}", text, flags=re.M)
                (Path(folder) / "params.yaml").write_text(changed)
                command = [sys.executable, "-m", f"stages.{row.name}", entry]
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, env={**os.environ, **path}, stdout=subprocess.DEVNULL, check=True)
                row.values[engine].append(time.perf_counter() - start)
                log(f"{row.name}, {engine}: {row.values[engine][-1]:.1f} s")
    return rows
