"""Archives to TFRecords: TFDS's own builder of a dataset, as `tfds build` runs it, and the stage, on the same archive.

The archives are those in data/raw, or, where the sample is drawn, drawn as it is, but larger. Neither side downloads;
the archive is in the disk's cache.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import Done, Goal, Result, Row, Table, Turn, in_turn, log, quiet, rates, side
from stages import params, preprocess, sample
from stages.console import import_tensorflow

# TFDS's name for a dataset of params.yaml, and the images that are drawn in a format
BUILDERS = {"mnist": "mnist", "cifar10": "cifar10", "imagenette": "imagenette/320px-v2"}
IMAGES = {"idx": 20_000, "cifar": 20_000, "image_folder": 3_000}


def measure(quick: bool) -> Result:
    """A dataset of each format."""
    return compare(list(BUILDERS), rounds=1 if quick else 5, share=0.05 if quick else 1)


def compare(names: list[str], rounds: int, share: float) -> Result:
    """Time the datasets `names`, drawn ones with so large a share of the images of IMAGES."""
    table = Table("Archives to TFRecords", "images/s", [])
    goals = []
    for name in names:
        values = params.load()
        dataset = values.datasets[name]
        size = None
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            raw = Path(folder) / "data" / "raw" / name
            if values.is_sample(dataset):
                images = int(IMAGES[dataset.format] * share)
                size = params.SampleSize(train=images * 4 // 5, test=images // 5)
                sample.draw(name, dataset.model_copy(update={"sample": size}), raw)
            else:
                raw.parent.mkdir(parents=True)
                raw.symlink_to(Path("data/raw", name).resolve())
            shutil.copy("params.yaml", folder)

            def start(work: Callable[..., None], *arguments: Any) -> Callable[[], Turn]:
                return stack.enter_context(side(work, *arguments))

            sides = {"tfds build": start(build, name, folder, size), "stage": start(stage, name, folder)}
            in_turn(sides, 1)
            notes = {"format": dataset.format, "archive": "drawn" if size else "published"}
            row = Row(name, rates(in_turn(sides, rounds), "images"), notes)
        table.rows.append(row)
        wanted = "≥ 3.0" if dataset.format == "image_folder" else "≥ 1.5"
        goals.append(Goal(f"preprocessing `{name}` against `tfds build`", wanted, row.ratio("stage")))
        log(f"{name}: " + ", ".join(f"{one} {rate:,.0f}" for one, rate in row.medians.items()) + " images/s")
    return Result([table], goals)


def build(done: Done, name: str, folder: str, size: params.SampleSize | None) -> None:
    """Prepare the dataset with TFDS's builder, unpacking included, ever anew."""
    import_tensorflow()
    import tensorflow_datasets as tfds
    import tree

    tfds.disable_progress_bar()
    raw, target = Path(folder, "data", "raw", name), Path(folder, "tfds")
    while True:
        builder = tfds.builder(BUILDERS[name], data_dir=target)
        published = builder._split_generators

        def local(dl_manager: Any, published: Any = published) -> Any:
            """The published splits, of the archive that is there instead of the one that would be downloaded."""
            dl_manager.download_and_extract = lambda urls: tree.map_structure(
                lambda url: dl_manager.extract(raw / Path(url).name), urls
            )
            splits = published(dl_manager)
            for split in splits if isinstance(splits, list) else []:
                if size and "num_examples" in split.gen_kwargs:  # MNIST's reader is told how many to expect
                    split.gen_kwargs["num_examples"] = size.train if split.name == "train" else size.test
            return splits

        builder._split_generators = local
        with quiet():
            builder.download_and_prepare(download_dir=target / "downloads")
        done({"images": builder.info.splits.total_num_examples})
        shutil.rmtree(target)


def stage(done: Done, name: str, folder: str) -> None:
    """The stage itself, ever anew."""
    import_tensorflow()
    os.chdir(folder)
    while True:
        with quiet():
            preprocess.preprocess(name)
        counts = json.loads(Path("data/counts", f"{name}.json").read_text())
        done({"images": sum(sum(split.values()) for split in counts.values())})
