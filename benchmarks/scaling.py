"""The figures of docs/cluster.md: rates of one core and of one machine.

The images are synthetic and have the size of ImageNet's, in pixels and bytes.
"""

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.common import Done, Result, Row, Table, contender, interleaved, log, rates
from benchmarks.synthetic import write_weights
from stages.config import params
from stages.data import jpeg
from stages.data.formats import image_folder
from stages.runtime import paths
from stages.runtime.numerics import import_tensorflow

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


def measure(quick: bool) -> Result:
    """Each kind of work, and the backbone."""
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
    return Result(
        [
            Table("One core, synthetic images of ImageNet's size", "images/s", core),
            Table("The backbone", "images/s", [machine]),
        ],
        [],
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
