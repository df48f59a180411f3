"""Images in data/records → bottleneck features of a frozen backbone in data/records: a dataset like any other."""

import json
from collections import Counter, defaultdict
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.config import params
from stages.config.messages import lookup
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, file_hash, open_input
from stages.runtime.numerics import import_tensorflow
from stages.runtime.progress import progress
from stages.runtime.tasks import Task, run_tasks

if TYPE_CHECKING:
    from stages.data.features import Extracted


def extract(name: str) -> None:
    """Write data/records/NAME of a feature set, with its dataset's splits, keys and labels, and its environment."""
    values = params.load()
    config = lookup(values.features, name, "features")
    weights = _verify_weights(values, config.backbone)
    import_tensorflow(values.threads, gpu=values.engine == "local")
    from stages.data import features, reader

    dataset = reader.info(config.dataset)
    if dataset.features["input"].shape[-1] != 3:
        raise UserError(f"params.yaml: features.{name}.dataset: {config.dataset} has no RGB images; choose another")
    with atomic_write(paths.records(name)) as folder, ExitStack() as stack:
        folder.mkdir()
        tasks = features.shard_tasks(name, config, dataset, folder)
        total = sum(split.num_examples for split in dataset.splits.values())
        load = partial(features.shard_extractor, name, config, total, values.threads, weights)
        if values.engine == "ray":
            from stages.cluster.tasks import run_on_nodes

            results = stack.enter_context(closing(run_on_nodes(tasks, load, [weights], values.threads)))
            finished = progress(results, total, name, "images", lambda result: result[0].argument.images)
        else:
            finished = run_tasks(tasks, load())
        environment = _describe(name, dataset, folder, dict(finished))
        backbone = {
            "name": config.backbone,
            "image_size": config.image_size,
            "weights": f"md5:{file_hash(weights, 'md5')}",
        }
        (folder / paths.backbone(name).name).write_text(json.dumps(backbone, indent=1) + "\n")
    with atomic_write(paths.environment("extract", name)) as path:
        path.write_text(json.dumps(environment, indent=1) + "\n")
    print(f"{config.backbone} features of {config.dataset}, {environment['compute_dtype']}")


def _verify_weights(values: params.Params, backbone: str) -> Path:
    """Return the weights file of a backbone. If it was downloaded, check its hash: it has no checksum of its own."""
    from stages.data.published.reuse import has_published_hash

    entry = values.weights[backbone]
    ((file_name, mirrors),) = entry.files.items()
    path = paths.raw(backbone) / file_name
    with open_input(path, f"download_weights@{backbone}"):
        if not values.is_synthetic(entry) and not has_published_hash(path, mirrors):
            raise ValueError("its hash is not in params.yaml")
    return path


def _describe(name: str, dataset: Any, folder: Path, extracted: dict[Task, "Extracted"]) -> dict[str, str]:
    """Write what describes the shards of features in `folder`; return the environment that computed them."""
    from stages.data import writer

    found: dict[str, set[str]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    for task, result in extracted.items():
        sizes[task.argument.split] += result.size
        for key, value in result.environment.items():
            found[key].add(value)
    if len(compute_dtypes := sorted(found["compute_dtype"])) > 1:
        raise UserError(
            f"params.yaml: features.{name}.compute_dtype: auto is {' and '.join(compute_dtypes)} on different nodes; "
            "choose one"
        )
    (shape,) = {result.shape for result in extracted.values()}
    splits = {split: (found.shard_lengths, sizes[split]) for split, found in dataset.splits.items()}
    writer.write_info(folder, name, dataset.features["label"].names, np.empty(shape, np.float16), splits)
    return {key: ", ".join(sorted(values)) for key, values in found.items()}


if __name__ == "__main__":
    run(extract, "features")
