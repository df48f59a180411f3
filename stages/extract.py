"""Images in data/records → bottleneck features of a frozen backbone in data/records: a dataset like any other."""

import json
from pathlib import Path
from typing import Any

from stages.backbones._networks import BUILT_IN, DIGEST, WEIGHTS
from stages.config import params
from stages.config.messages import lookup
from stages.config.schema import Params
from stages.config.sections import FeaturesConfig
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write, file_hash, open_input, remove, write_json
from stages.runtime.identity import data_identity, digest
from stages.runtime.numerics import import_tensorflow


def extract(name: str) -> None:
    """Write data/records/NAME of a feature set, with its dataset's splits, keys and labels, and its environment."""
    values = params.load()
    config = lookup(values.resolved_features, name, "features")
    weights = _verify_weights(values, config.backbone)
    kernels = values.kernels_for(values.is_features_synthetic(config))
    import_tensorflow(values.threads, kernels)
    from stages.data import extraction, reader

    dataset = reader.info(config.dataset)
    if dataset.features["input"].shape[-1] != 3:
        raise UserError(f"params.yaml: features.{name}.dataset: {config.dataset} has no RGB images; choose another")
    extractor = extraction.Extractor(config, values.threads, kernels, weights)
    environment = extractor.environment
    weights_hash = file_hash(weights, "md5")
    unfinished = _unfinished(name, config, [environment, weights_hash])
    with atomic_write(paths.records(name)) as folder:
        folder.mkdir()
        extraction.write_features(name, config, dataset, extractor, folder, unfinished)
        backbone = {
            "name": config.backbone,
            "image_size": config.image_size,
            "pooling": config.pooling,
            "compute_dtype": environment["compute_dtype"],
            "weights": f"md5:{weights_hash}",
        }
        if (fit := reader.fit(config.dataset)) != "crop":
            backbone["fit"] = fit
        write_json(backbone, folder / paths.backbone(name).name, indent=1)
    write_json(environment, paths.environment("extract", name), indent=1)
    print(f"{config.backbone} features of {config.dataset}, {environment['compute_dtype']}")


def _unfinished(name: str, config: FeaturesConfig, facts: list[Any]) -> Path:
    """The folder for finished shards, whose name covers all that decides them; those of other extractions are removed.

    Args:
        name: of the feature set.
        config: its entry in params.yaml, resolved.
        facts: what else decides the features, besides images and code.
    """
    stages = Path(__file__).parent
    code = [stages / "extract.py", stages / "runtime/numerics.py", *sorted((stages / "backbones").glob("*.py"))]
    code += [stages / f"data/{module}.py" for module in ("arrays", "extraction", "reader", "writer")]
    decides = json.dumps([config.model_dump(mode="json"), facts, data_identity(config.dataset, [])])
    folder = paths.EXTRACTIONS / f"{name}-{digest([decides.encode(), *(path.read_bytes() for path in code)])}"
    for other in paths.EXTRACTIONS.glob(f"{name}-*"):
        if other != folder and other.name.rpartition("-")[0] == name:
            remove(other)
    return folder


def _verify_weights(values: Params, backbone: str) -> Path:
    """Return the weights file of a backbone. If it is not generated, check its hash: it has no checksum of its own."""
    from stages.data.real.reuse import has_published_hash

    if backbone == BUILT_IN:
        path = Path(WEIGHTS)
        if not path.exists() or f"sha256:{file_hash(path, 'sha256')}" != DIGEST:
            raise UserError(f"{path}: missing or changed; get it again with `git checkout {path}`")
        return path
    entry = values.weights[backbone]
    ((file_name, mirrors),) = entry.files.items()
    path = paths.raw(backbone) / file_name
    with open_input(path, f"download_weights@{backbone}"):
        published = all(mirror.hash for mirror in mirrors)  # otherwise dvc.lock pins the file
        if published and not values.is_synthetic(entry) and not has_published_hash(path, mirrors):
            raise ValueError("its hash is not in params.yaml")
    return path


if __name__ == "__main__":
    run(extract, "features")
