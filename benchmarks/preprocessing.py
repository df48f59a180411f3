"""Archives to TFRecords: the dataset's builder in TFDS, as `tfds build` runs it, and the stage, on the same archive.

The archives are those in data/raw; or, with `source: synthetic`, larger synthetic ones. Neither contender downloads,
and the archive is in the page cache.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import Done, Result, Round, Row, Table, Target, contender, interleaved, log, quiet, rates
from benchmarks.synthetic import resized, write_archives
from stages import preprocess
from stages.config import params
from stages.config.datasets import SyntheticConfig
from stages.runtime import paths
from stages.runtime.numerics import import_tensorflow

# The name in TFDS of a dataset in params.yaml; the number of synthetic images in a format
BUILDERS = {"mnist": "mnist", "cifar10": "cifar10", "imagenette": "imagenette/320px-v2"}
IMAGES = {"idx": 20_000, "cifar": 20_000, "image_folder": 3_000}


def measure(quick: bool) -> Result:
    """A dataset of each format."""
    return compare(list(BUILDERS), rounds=1 if quick else 5, share=0.05 if quick else 1)


def compare(names: list[str], rounds: int, share: float) -> Result:
    """Time the datasets `names`; synthetic ones have a share of the number of images in IMAGES."""
    table = Table("Archives to TFRecords", "images/s", [])
    targets = []
    for name in names:
        values = params.load()
        dataset = values.datasets[name]
        synthetic = None
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            if values.is_synthetic(dataset):
                images = int(IMAGES[dataset.format] * share)
                dataset = resized(dataset, images * 4 // 5, images // 5)
                synthetic = dataset.synthetic
                write_archives(Path(folder), name, dataset)
            else:
                raw = Path(folder) / paths.raw(name)
                raw.parent.mkdir(parents=True)
                raw.symlink_to(paths.raw(name).resolve())
            shutil.copy("params.yaml", folder)

            def start(work: Callable[..., None], *arguments: Any) -> Callable[[], Round]:
                return stack.enter_context(contender(work, *arguments))

            contenders = {"tfds build": start(build, name, folder, synthetic), "stage": start(stage, name, folder)}
            interleaved(contenders, 1)  # imports
            notes = {"format": dataset.format, "archive": "synthetic" if synthetic else "real"}
            row = Row(name, rates(interleaved(contenders, rounds), "images"), notes)
        table.rows.append(row)
        target = "≥ 3.0" if dataset.format == "image_folder" else "≥ 1.5"
        targets.append(Target(f"preprocessing `{name}` against `tfds build`", target, row.ratio("stage")))
        log(f"{name}: " + ", ".join(f"{one} {rate:,.0f}" for one, rate in row.medians.items()) + " images/s")
    return Result([table], targets)


def build(done: Done, name: str, folder: str, synthetic: SyntheticConfig | None) -> None:
    """Prepare the dataset with TFDS's builder in every round, including unpacking."""
    import_tensorflow()
    import tensorflow_datasets as tfds
    import tree

    tfds.disable_progress_bar()
    raw, target = Path(folder) / paths.raw(name), Path(folder, "tfds")
    while True:
        builder = tfds.builder(BUILDERS[name], data_dir=target)
        published = builder._split_generators

        def local(dl_manager: Any, published: Any = published) -> Any:
            """The splits of the published builder, read from the existing archive instead of a download."""
            dl_manager.download_and_extract = lambda urls: tree.map_structure(
                lambda url: dl_manager.extract(raw / Path(url).name), urls
            )
            splits = published(dl_manager)
            for split in splits if isinstance(splits, list) else []:
                if synthetic and "num_examples" in split.gen_kwargs:  # MNIST's reader expects this number
                    split.gen_kwargs["num_examples"] = getattr(synthetic, split.name)
            return splits

        builder._split_generators = local
        with quiet():
            builder.download_and_prepare(download_dir=target / "downloads")
        done({"images": builder.info.splits.total_num_examples})
        shutil.rmtree(target)


def stage(done: Done, name: str, folder: str) -> None:
    """Run the stage in every round."""
    import_tensorflow()
    os.chdir(folder)
    while True:
        with quiet():
            preprocess.preprocess(name)
        counts = json.loads(paths.counts(name).read_text(encoding="utf-8"))
        done({"images": sum(sum(split.values()) for split in counts.values())})
