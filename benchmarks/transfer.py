"""Transfer learning by the number of images: a head on VGG16's features, fine-tuning, and a network from scratch.

Subsets of Imagenette, with VGG16's real weights. It needs their records and weights: `dvc repro preprocess@imagenette
download_weights@vgg16` with `source: real`. Takes an hour or more. An interrupted benchmark resumes:
each size and recipe is kept in `FOLDER` when it is done. The table is a remark of the result: nothing takes turns.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.common import Result, inside, log
from stages.config import params
from stages.config.schema import Params
from stages.data.examples import Example
from stages.reporting.markdown import table
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.numerics import import_tensorflow

DATASET, BACKBONE = "imagenette", "vgg16"
IMAGE_SIZE = 96  # 224 would take five times as long
VALIDATION, TEST = 30, 50  # images of a class
FOLDER = Path(".dvc/tmp/transfer")
# Images of a class in training, None for all → epochs of fine-tuning, and at most so many from scratch
SIZES: dict[int | None, tuple[int, int]] = {10: (20, 60), 50: (10, 40), 200: (4, 20), None: (1, 12)}

COMMON: dict[str, Any] = {
    "schedule": {"name": "constant"},
    "loss": {"name": "cross_entropy"},
    "batch_size": 32,
    "compute_dtype": "auto",
    "restore_best": True,
}
HEAD: dict[str, Any] = {
    **{"dataset": "features", "architecture": "dense", "units": [256], "optimizer": {"name": "adam"}},
    **{"learning_rate": 0.0001, "epochs": 30, "patience": 5},
}
TUNED: dict[str, Any] = {
    **{"dataset": "network", "architecture": "pretrained", "optimizer": {"name": "adam"}, "learning_rate": 0.00001},
    **{"frozen": ["block[12]_*"], "augment": [{"name": "horizontal_flip"}]},
}
SCRATCH: dict[str, Any] = {
    **{"dataset": "images", "image_size": IMAGE_SIZE, "architecture": "cnn", "filters": [32, 64, 128, 256]},
    **{"padding": "same", "units": [256], "optimizer": {"name": "adam"}, "learning_rate": 0.001, "patience": 5},
    **{"augment": [{"name": "horizontal_flip"}]},
}
# Recipe → the stages of it, in their order; the head's are those that fine-tuning starts from
STAGES = {
    "head": ["extract@features", "train@head", "evaluate@head"],
    "tuned": ["join@network", "train@tuned", "evaluate@tuned"],
    "scratch": ["train@scratch", "evaluate@scratch"],
}


def measure(quick: bool) -> Result:
    """All sizes; with `quick` the smallest one, for an epoch."""
    values = params.load()
    if values.is_synthetic(values.weights[BACKBONE]) or values.is_synthetic(values.datasets[DATASET]):
        raise UserError(f"benchmarks: {DATASET}, {BACKBONE}: synthetic; set source: real")
    sizes = {10: (1, 1)} if quick else SIZES
    cells = []
    for size, epochs in sizes.items():
        folder = FOLDER / f"{size or 'all'}-seed-{values.seed}{'-quick' if quick else ''}"
        found = _run(values, size, epochs, folder.absolute())
        cells.append([str(size or "all, about 900"), *(_cell(found[recipe]) for recipe in STAGES)])
    head = ["Images of a class", "Head", "Fine-tuned", "From scratch"]
    text = (
        f"{DATASET} at {IMAGE_SIZE} pixels, {BACKBONE}, one seed: accuracy in percent on {10 * VALIDATION} validation, "
        f"{10 * TEST} test images; minutes of processor time, the head's with its features, those of fine-tuning "
        "on top of them."
    )
    return Result([], [], [text, table(head, cells, ["", "r", "r", "r"])])


def _cell(found: dict[str, float]) -> str:
    return f"{100 * found['validation']:.1f} / {100 * found['test']:.1f}, {found['cpu_seconds'] / 60:.1f} min"


def _run(values: Params, size: int | None, epochs: tuple[int, int], folder: Path) -> dict[str, dict[str, float]]:
    """Train all recipes on one size in `folder`, as far as they have not been; return what they reached."""
    done_path = folder / "done.json"
    done: dict[str, dict[str, float]] = json.loads(done_path.read_text(encoding="utf-8")) if done_path.exists() else {}
    if not done_path.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _write_project(values, size, epochs, folder)
        done_path.write_text("{}", encoding="utf-8")
    for recipe, stages in STAGES.items():
        if recipe in done:
            continue
        before = _cpu_seconds()
        for stage in stages:
            log(f"{folder.name}: {stage}")
            module, _, name = stage.partition("@")
            command = [sys.executable, "-m", f"stages.{module}", name]
            environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
            if subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr).returncode:
                raise UserError(f"benchmarks: {stage} failed in {folder}, see above; run this again")
        metrics = json.loads((folder / paths.metrics(recipe)).read_text(encoding="utf-8"))
        done[recipe] = {
            "validation": metrics["validation_accuracy"],
            "test": metrics["accuracy"],
            "cpu_seconds": _cpu_seconds() - before,
        }
        log(f"{folder.name}: {recipe}: {_cell(done[recipe])}")
        done_path.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    return done


def _write_project(values: Params, size: int | None, epochs: tuple[int, int], folder: Path) -> None:
    """Write the records of a subset, at the image size, and params.yaml with the three recipes."""
    import_tensorflow(values.threads, gpu=False)
    from stages.data import reader, writer

    classes = reader.info(DATASET).features["label"].names
    examples = list(_subset({"train": None if size is None else size + VALIDATION, "test": TEST}))
    (folder / "data/raw").mkdir(parents=True)
    (folder / paths.raw(BACKBONE)).symlink_to(paths.raw(BACKBONE).absolute())
    with inside(folder):
        writer.write("images", classes, ["train", "test"], examples)
    yaml = YAML()
    content = yaml.load(paths.PARAMS.read_text(encoding="utf-8"))
    number = sum(split == "train" for split, *_ in examples)
    content["engine"], content["datasets"] = "local", {"images": content["datasets"][DATASET]}
    content["features"] = {
        "features": {"dataset": "images", "backbone": BACKBONE, "image_size": IMAGE_SIZE, "compute_dtype": "auto"}
    }
    content["pretrained"] = {"network": {"head": "head", "backbone": BACKBONE, "dataset": "images"}}
    content["train"] = {"validation_fraction": VALIDATION * len(classes) / number}
    content["models"] = {
        "head": {**COMMON, **HEAD, "compute_dtype": "float32"},
        "tuned": {**COMMON, **TUNED, "epochs": epochs[0]},
        "scratch": {**COMMON, **SCRATCH, "epochs": epochs[1]},
    }
    for section in ("folders", "not_in_pretraining", "gates", "audits", "search"):
        content[section] = {}
    content["export"] = []
    yaml.dump(content, folder / paths.PARAMS)


def _subset(sizes: dict[str, int | None]) -> Iterator[Example]:
    """The first images of each class, so many of each split, or all if its number is None."""
    from stages.data import reader

    for split, size in sizes.items():
        counts: Counter[int] = Counter()
        for batch in reader.batches(DATASET, split, 64, IMAGE_SIZE):
            for key, pixels, label in zip(batch["key"], batch["input"], batch["label"], strict=True):
                counts[int(label)] += 1
                if size is None or counts[int(label)] <= size:
                    yield split, key.decode(), pixels, int(label)


def _cpu_seconds() -> float:
    """Processor time of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
