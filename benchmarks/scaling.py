"""What docs/scaling.md reckons with: rates of one core and of one machine, what Ray adds, and how it scales.

Needs requirements-cluster.txt. The images are drawn: of the size, in pixels and bytes, of ImageNet's.
"""

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import Done, Goal, Result, Row, Table, in_turn, log, rates, side
from stages import extract, jpeg, params, records, sample
from stages.console import import_tensorflow
from stages.formats import image_folder

HEIGHT, WIDTH, QUALITY = 375, 500, 93  # about 110 kB, which is 138 GB / 1,281,167 images
FEATURE = 7 * 7 * 512 * 2  # bytes that VGG16 makes of an image
CLASSES = ["n0", "n1"]
TIMES = 16  # the sample, for what Ray adds
FAST = 1000.0  # images/s of a worker that stands for a GPU: an assumption


def measure(quick: bool) -> Result:
    """All of it; the overhead takes most of the time."""
    rounds = 1 if quick else 5
    values = params.load()
    name = next(iter(values.features))
    core = _rows(["check", "check and decode", "decode and cut", "read the archive", "write records", "read records"])
    with ExitStack() as stack:
        turn = stack.enter_context(side(work_of_one_core, 64 if quick else 512))
        in_turn({"warm": turn}, len(core))
        for _ in range(rounds):
            for row in core:
                done = turn()
                assert done.value["what"] == row.name
                row.values["one core"].append(done.value["images"] / done.seconds)
        forward = stack.enter_context(side(backbone, name))
        in_turn({"warm": forward}, 1)
        machine = Row(name, rates(in_turn({"this machine": forward}, rounds), "images"))
    seconds = extract.BATCH / machine.medians["this machine"]
    log(f"{name}: {machine.medians['this machine']:.1f} images/s")
    simulated = []
    for rate in (1 / seconds * extract.BATCH, FAST):
        for workers in (1, 2, 4):
            simulated.append(simulation(workers, rate, batches=4 if quick else 12 if rate < FAST else 100))
            log(f"{simulated[-1].name}: {simulated[-1].medians['reached']:.1f} images/s")
    overhead, both = engines(name, 1 if quick else TIMES, 1 if quick else 2)
    goals = [Goal(f"preprocess and extract by Ray on one machine, {TIMES} times the sample", "≤ 1.25", both)]
    return Result(
        [
            Table("One core, drawn images of ImageNet's size", "images/s", core),
            Table("The backbone on all cores", "images/s", [machine]),
            Table("Ray's scheduler, workers that sleep instead of computing", "images/s", simulated),
            Table("A stage by either engine, from start to end", "s", overhead),
        ],
        goals,
    )


def _rows(names: list[str]) -> list[Row]:
    return [Row(name, {"one core": []}) for name in names]


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
    """Turn by turn: what is done to every image but the backbone's work, in the order of `measure`."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        files = [drawn(number) for number in range(64)]
        examples = [(f"{number}", files[number % 64], number % 2) for number in range(images)]
        with tarfile.open("images.tgz", "w:gz", compresslevel=1) as archive:
            for key, data, label in examples:
                member = tarfile.TarInfo(f"all/train/n{label}/{key}.JPEG")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        batches = [
            {
                "key": np.array([key.encode() for key, _, _ in some]),
                "input": np.array([data for _, data, _ in some], object),
            }
            for some in (examples[start : start + 32] for start in range(0, images, 32))
        ]
        work: dict[str, Callable[[], object]] = {
            "check": lambda: [jpeg.fault(data) for _, data, _ in examples],
            "check and decode": lambda: [jpeg.fault(data, decode=True) for _, data, _ in examples],
            "decode and cut": lambda: [records.decoded("drawn", 224, batch) for batch in batches],
            "read the archive": lambda: sum(1 for _ in image_folder.examples(Path(), "train", CLASSES)),
            "write records": lambda: records.write("drawn", CLASSES, {"train": examples}),
            "read records": lambda: sum(1 for _ in records.batches("drawn", "train", 32, decode=False)),
        }
        while True:
            for what, function in work.items():
                function()
                done({"images": images, "what": what, "bytes": sum(map(len, files)) // len(files)})


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
    batch = {"key": np.array([b""] * extract.BATCH), "input": pixels, "label": np.zeros(extract.BATCH, int)}
    while True:
        for _ in range(2):
            extractor(batch)
        done({"images": 2 * extract.BATCH})


def simulation(workers: int, rate: float, batches: int) -> Row:
    """Files of ImageNet's size through workers that take as long as measured, and do nothing.

    Args:
        workers: nodes of a cluster of processes of this machine.
        rate: images/s of each.
        batches: for each.
    """
    with side(simulate, workers, rate, batches) as turn:
        reached = turn().value
    return Row(
        f"{workers} × {rate:,.0f} images/s",
        {"workers alone": [workers * rate], "reached": [reached]},
        {"workers": workers},
    )


def simulate(done: Done, workers: int, rate: float, batches: int) -> None:
    """Images in a second from the first result to the last."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    from ray.cluster_utils import Cluster

    from stages import cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 500_000_000})
    try:
        for _ in range(workers):
            nodes.add_node(num_cpus=1, object_store_memory=200_000_000)
        nodes.wait_for_nodes()
        os.environ["RAY_ADDRESS"] = nodes.address
        read = partial(_batches, workers * batches)
        with cluster.connected():
            results = cluster.mapped({"train": read}, _as_it_is, partial(Sleeper, extract.BATCH / rate))["train"]
            next(results)
            start = time.perf_counter()
            count = sum(1 for _ in results)
            seconds = time.perf_counter() - start
    finally:
        nodes.shutdown()
    done(count * extract.BATCH / seconds)


def _batches(count: int) -> Iterator[list[bytes]]:
    file = drawn(0)
    for _ in range(count):
        yield [bytes(bytearray(file)) for _ in range(extract.BATCH)]


def _as_it_is(batch: list[bytes]) -> list[bytes]:
    return batch


class Sleeper:
    """In the place of a backbone."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, batch: list[bytes]) -> bytes:
        time.sleep(self.seconds)
        return bytes(len(batch) * FEATURE)


def engines(name: str, times: int, rounds: int) -> tuple[list[Row], float]:
    """Preprocess and extract in processes of their own, so many times the sample, by either engine in turn.

    Returns:
        Seconds of each stage, and the ratio of both together, Ray to local.
    """
    values = params.load()
    features = values.features[name]
    text = Path("params.yaml").read_text()
    dataset = values.datasets[features.dataset]
    larger = dataset.sample.model_copy(
        update={split: times * size for split, size in dataset.sample.model_dump().items()}
    )
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "data/raw"
        sample.draw(features.dataset, dataset.model_copy(update={"sample": larger}), raw / features.dataset)
        sample.draw(features.backbone, values.weights[features.backbone], raw / features.backbone)
        rows = [Row("preprocess", {"local": [], "ray": []}), Row("extract", {"local": [], "ray": []})]
        for _ in range(rounds):
            for engine in ("local", "ray"):
                (Path(folder) / "params.yaml").write_text(
                    re.sub("^engine: [a-z]+", f"engine: {engine}", text, flags=re.M)
                )
                for row, entry in zip(rows, (features.dataset, name), strict=True):
                    start = time.perf_counter()
                    subprocess.run(
                        [sys.executable, "-m", f"stages.{row.name}", entry],
                        cwd=folder,
                        env={
                            **os.environ,
                            "PYTHONPATH": str(Path(__file__).parents[1]),
                            "RAY_ADDRESS": "",
                            "DVC_STAGE": f"{row.name}@{entry}",
                        },
                        stdout=subprocess.DEVNULL,
                        check=True,
                    )
                    row.values[engine].append(time.perf_counter() - start)
                    log(f"{row.name}, {engine}: {row.values[engine][-1]:.1f} s")
    totals = {engine: sum(row.medians[engine] for row in rows) for engine in ("local", "ray")}
    return rows, totals["ray"] / totals["local"]
