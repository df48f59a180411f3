"""Images in data/records → bottleneck features of a frozen backbone in data/records: a dataset like any other."""

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from stages.config import params
from stages.config.messages import lookup
from stages.data.examples import Example
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, file_hash, open_input
from stages.runtime.numerics import import_tensorflow


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
    read = partial(features.batches, config.dataset, list(dataset.splits))
    if values.engine == "ray":
        from stages.cluster.map import map_items

        decode = partial(reader.decode_batch, config.dataset, config.image_size)
        actor_factory = partial(features.Extractor, config, values.threads)
        with map_items(partial(read, decode=False), decode, actor_factory, [weights], values.threads) as outputs:
            environment = _write(name, dataset, outputs)
    else:
        extractor = features.Extractor(config, values.threads, weights)
        environment = _write(name, dataset, map(extractor, read(image_size=config.image_size)))
    backbone = {
        "name": config.backbone,
        "image_size": config.image_size,
        "pooling": config.pooling,
        "compute_dtype": environment["compute_dtype"],
        "weights": f"md5:{file_hash(weights, 'md5')}",
    }
    with atomic_write(paths.backbone(name)) as path:
        path.write_text(json.dumps(backbone, indent=1) + "\n")
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


def _write(name: str, dataset: Any, outputs: Iterator[tuple[dict[str, str], list[Example]]]) -> dict[str, str]:
    """Write the outputs of one `Extractor` or of several as records; return the environment that computed them."""
    from stages.data import writer

    found: dict[str, set[str]] = defaultdict(set)

    def examples() -> Iterator[Example]:
        for environment, batch in outputs:
            for key, value in environment.items():
                found[key].add(value)
            if len(compute_dtypes := sorted(found["compute_dtype"])) > 1:
                raise UserError(
                    f"params.yaml: features.{name}.compute_dtype: auto is {' and '.join(compute_dtypes)} on different "
                    "nodes; choose one"
                )
            yield from batch

    total = sum(split.num_examples for split in dataset.splits.values())
    writer.write(name, dataset.features["label"].names, dataset.splits, examples(), total)
    return {key: ", ".join(sorted(values)) for key, values in found.items()}


if __name__ == "__main__":
    run(extract, "features")
