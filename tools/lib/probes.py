"""Probes: small trainings and extractions through the real stages, whose digests tell whether code computes the same.

As a script with the arguments PARAMS STAGE…, it runs them in the working directory, an empty folder, with the stages
that PYTHONPATH names, and prints the digest of each.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from stages.config import params
from stages.config.schema import Params
from stages.runtime import paths
from stages.runtime.errors import UserError
from stages.runtime.numerics import import_tensorflow
from stages.runtime.progress import progress

IMAGES = {"train": 300, "test": 40}  # generated; 270 of them train: at least two batches and a remainder
PHOTOS = {"train": 100, "test": 20}  # of datasets with large images
SMALL_SAMPLE = 500  # training images of the sample; a dataset with fewer has large images
BATCH_SHARE = 0.36  # of the generated training images: the largest batch
EPOCHS = 3
FEATURE_SIZE = 64  # height and width of the images that features are extracted from
FOLDER_SIDE = 64
RESULT = "probe "  # begins a line with a digest
# This module, whatever digest the code of another revision would compute
RUN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
ROW_METRICS = ("accuracy", "accuracy_without_tta", "validation_accuracy")  # what a row of measured results shows


def probe(stages: Sequence[str], project: Path = Path()) -> dict[str, str]:
    """Probe stages such as train@NAME and extract@NAME with the code and params.yaml of a folder, two at a time.

    Returns:
        The digest of each stage.

    Raises:
        UserError: a probe fails.
    """
    environment = os.environ | {"PYTHONPATH": str(project.absolute())}
    digests: dict[str, str] = {}
    with ExitStack() as stack:
        processes = []
        for part in filter(None, (stages[::2], stages[1::2])):
            folder = Path(stack.enter_context(TemporaryDirectory()))
            command = [sys.executable, "-c", RUN, __file__, str(project.absolute() / paths.PARAMS), *part]
            log = stack.enter_context((folder / "log").open("w+", encoding="utf-8"))
            run = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, encoding="utf-8"
            )
            processes.append((stack.enter_context(run), log))
        for process, log in processes:
            lines = process.stdout or ()
            for line in progress(lines, len(stages), "probes", "probes", lambda line: line.startswith(RESULT)):
                if line.startswith(RESULT):
                    digests |= json.loads(line.removeprefix(RESULT))
            if process.wait():
                log.seek(0)
                raise UserError(f"the probe failed: {(log.read().strip().splitlines() or ['no message'])[-1]}")
    return digests


def small(values: Any) -> Any:
    """Change the content of params.yaml so that a training takes seconds, and reaches every part that it names."""
    values["source"], values["kernels"]["synthetic"], values["engine"] = "synthetic", "portable", "local"
    values["train"] |= dict.fromkeys(("epochs", "batch_size", "learning_rate", "compute_dtype", "distribution"))
    for dataset in values["datasets"].values():
        dataset["synthetic"] = IMAGES if (dataset.get("synthetic") or IMAGES)["train"] >= SMALL_SAMPLE else PHOTOS
    for weights in (values.get("weights") or {}).values():
        weights["synthetic"] = True
    for entry in [*(values.get("features") or {}).values(), *(values.get("pretrained") or {}).values()]:
        entry["image_size"] = FEATURE_SIZE
        entry.pop("synthetic", None)
    for name, folder in (values.get("folders") or {}).items():
        folder |= {"path": f"images/{name}", "table": None, "group": None, "test_fraction": 0.2}
        folder["validation_fraction"] = None
    for model in values["models"].values():
        model["batch_size"] = min(model["batch_size"], int(BATCH_SHARE * _training_images(values, model["dataset"])))
        stages = model.get("progressive") or []
        for stage in stages:
            stage["epochs"] = 1
        model["epochs"] = max(EPOCHS, len(stages) + 1)
        model.pop("synthetic", None)
    return values


def main(params_file: str, stages: Iterable[str]) -> None:
    """Run probes one after the other and print their digests."""
    from ruamel.yaml import YAML

    values = small(YAML(typ="safe").load(Path(params_file).read_text(encoding="utf-8")))
    paths.PARAMS.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    import_tensorflow(params.load().threads, "portable")  # before a stage that leaves the number of threads open
    for stage in stages:
        kind, _, name = stage.partition("@")
        print(RESULT + json.dumps({stage: _trained(name) if kind == "train" else _extracted(name)}), flush=True)


@cache
def _extracted(name: str) -> str:
    """Extract a feature set and return its digest."""
    from stages.download import download
    from stages.extract import extract

    values = params.load()
    features = values.features[name]
    _preprocess(features.dataset, values)
    if features.backbone in values.weights:
        download(features.backbone)
    extract(name)
    files = sorted(path for path in paths.records(name).iterdir() if ".tfrecord" in path.name)
    return _digest([path.read_bytes() for path in (*files, paths.backbone(name))])


@cache
def _trained(name: str) -> str:
    """Train and evaluate a model on data that are made if they are not there; return its digest."""
    values = params.load()
    dataset = values.models[name].dataset
    if dataset in values.pretrained:
        from stages.join import join

        _trained(values.pretrained[dataset].head)
        join(dataset)
    elif dataset in values.features:
        _extracted(dataset)
    else:
        _preprocess(dataset, values)
    import keras
    import pyarrow.parquet as pq

    from stages.evaluate import evaluate
    from stages.training import checkpoint
    from stages.training.train_model import Training, run

    checkpoint.SECONDS_BETWEEN = 0.0
    keras.utils.clear_session()  # Keras numbers the layers of a process
    events = run(Training.of(name, values), values.memory)
    info: Any = next(events)
    rows: list[Any] = [event[1] for event in events]
    evaluate(name)
    predicted = pq.read_table(paths.predictions(name)).to_pandas().sort_values("key")
    metrics = json.loads(paths.metrics(name).read_text(encoding="utf-8"))
    with np.load(info.checkpoint) as arrays:
        state = [_array_digest(arrays[key]) for key in arrays.files if key != "rest"]
    without_tta = predicted.get("predicted_without_tta")
    return _digest(
        [
            *saved_parts(paths.model(name)),
            "".join(sorted(state)).encode(),
            repr([sorted(row.items()) for row in rows]).encode(),
            np.stack(predicted["probabilities"].to_numpy()).astype(np.float32).tobytes(),
            repr(None if without_tta is None else list(map(str, without_tta))).encode(),
            repr([metrics.get(key) for key in ROW_METRICS]).encode(),
        ]
    )


def _preprocess(dataset: str, values: Params) -> None:
    """Generate and preprocess a dataset, unless it is there."""
    from stages.download import download
    from stages.preprocess import preprocess
    from stages.preprocess_folder import preprocess_folder

    if paths.records(dataset).exists():
        return
    if dataset in values.folders:
        _write_folder(dataset, values)
        preprocess_folder(dataset)
    else:
        download(dataset)
        preprocess(dataset)


def _training_images(values: Any, dataset: str) -> int:
    """Generated images that train the models of a dataset, a feature set or a network."""
    made_of = {**(values.get("features") or {}), **(values.get("pretrained") or {})}
    entry = values["datasets"].get(made_of.get(dataset, {}).get("dataset", dataset))
    return (entry["synthetic"] if entry else PHOTOS)["train"]


def _write_folder(name: str, values: Params) -> None:
    """Write random images in a folder for each class, in the shape of the records that this clone has, if any."""
    from PIL import Image

    classes = values.folders[name].classes
    rng = np.random.default_rng(0)
    for label, folder in enumerate(classes):
        target = Path(values.folders[name].path) / folder
        target.mkdir(parents=True)
        for number in range(max(8, sum(PHOTOS.values()) // len(classes))):
            pixels = rng.integers(0, 100, (FOLDER_SIDE, FOLDER_SIDE, 3)) + 155 * label // len(classes)
            Image.fromarray(pixels.astype(np.uint8)).save(target / f"{number}.png")


def saved_parts(path: Path) -> list[bytes]:
    """What decides the answers of a .keras file, whatever its layers are called: arrays, signature, class means."""
    import h5py

    from stages.prediction.saved_model import read_class_means, read_signature

    digests: list[str] = []
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(
            lambda _, item: digests.append(_array_digest(item[()])) if isinstance(item, h5py.Dataset) else None
        )
    means = read_class_means(path)
    signature = json.dumps(read_signature(path), sort_keys=True)
    return ["".join(sorted(digests)).encode(), signature.encode(), b"" if means is None else means.tobytes()]


def _array_digest(array: np.ndarray) -> str:
    return _digest([str((array.dtype.str, array.shape)).encode(), np.ascontiguousarray(array).tobytes()])


def _digest(parts: Iterable[bytes]) -> str:
    """16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
