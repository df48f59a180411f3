"""`make finetune MODEL=flowers_mobilenetv2`: add a model that continues to train a head together with its backbone.

Adds, too, what a head needs: features of a backbone, and where its weights come from.
"""

from typing import Any

from stages.backbones._networks import BUILT_IN, NETWORKS
from stages.config import params
from stages.config.messages import choices, lookup
from stages.config.schema import Params
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.lib import recipe
from tools.lib.params_file import NewEntry, add_entries


def check_backbone(values: Params, backbone: str) -> None:
    """Raise a `UserError` if there is no network of this name, or only its generated weights; print what it costs."""
    if backbone not in NETWORKS:
        raise UserError(f"BACKBONE={backbone}: there is no such network; {choices(backbone, sorted(NETWORKS))}")
    if values.is_backbone_synthetic(backbone):
        raise UserError(
            f"params.yaml: weights.{backbone}.synthetic: the sample uses random weights of {backbone}; remove this "
            "line, and the real ones are downloaded"
        )
    network = NETWORKS[backbone]
    size = "in Git" if backbone == BUILT_IN else f"a download of {network.megabytes:g} MB"
    print(f"{backbone}: {size}, {network.gflop:g} GFLOP an image; {network.top1} % on ImageNet (published)")


def add_head(values: Params, dataset: str, backbone: str) -> None:
    """Add features of a backbone, and a head on them, for a dataset that params.yaml has."""
    lookup(values.datasets, dataset, "datasets and folders")
    channels = 3  # probably, until there are records
    if paths.records(dataset).exists():
        from stages.data import reader

        channels = reader.info(dataset).features["input"].shape[-1]
    chosen = recipe.on_features(dataset, backbone, channels)
    own = [entry for name, entry in values.models.items() if values.image_dataset(name) == dataset]
    if weight := next((entry.class_weight for entry in own if entry.class_weight), None):
        chosen.model["class_weight"] = weight
    add_recipe(values, chosen, [], {})


def add_recipe(values: Params, chosen: recipe.Recipe, before: list[NewEntry], headings: dict[str, str]) -> None:
    """Add the entries of a recipe after those of `before`, and print the next command."""
    added = list(before)
    if chosen.features:
        backbone = chosen.features["backbone"]
        if backbone != BUILT_IN and backbone not in values.weights:
            added.append(NewEntry("weights", backbone, {}))
        added.append(NewEntry("features", chosen.name, chosen.features))
    _add([*added, NewEntry("models", chosen.name, chosen.model, chosen.reason)], headings)


def finetune(name: str) -> None:
    """Add an entry of `pretrained` and a model that fine-tunes it to params.yaml.

    Raises:
        UserError: there is no such model, it takes no features, or there are such entries already.
    """
    values = params.load()
    head = lookup(values.models, name, "models")
    features = values.features.get(head.dataset)
    if features is None:
        heads = [model for model, entry in values.models.items() if entry.dataset in values.features]
        raise UserError(f"params.yaml: models.{name}: it takes no features of a backbone; {choices(name, heads)}")
    network, tuned = f"{name}_network", f"{name}_finetuned"
    start = {"head": name, "backbone": features.backbone, "dataset": features.dataset}
    rate, batch_size, epochs = (
        (0.0005, 64, 30) if features.backbone == BUILT_IN else (0.0001, 32, 6)
    )  # docs/transfer.md
    model: dict[str, Any] = {"dataset": network, "architecture": "pretrained", **recipe.FINETUNING}
    model |= {
        "learning_rate": rate,
        "batch_size": batch_size,
        "epochs": epochs,
        "compute_dtype": features.compute_dtype,
    }
    if head.class_weight:
        model["class_weight"] = head.class_weight
    reason = f"{name} and its backbone, which has learned the classes of ImageNet: docs/transfer.md."
    _add([NewEntry("pretrained", network, start), NewEntry("models", tuned, model, reason)], {})


def _add(entries: list[NewEntry], headings: dict[str, str]) -> None:
    add_entries(entries, headings)
    print("params.yaml: added " + ", ".join(f"{new.section}.{new.name}" for new in entries))
    print(f"next: make repro TARGETS=evaluate@{entries[-1].name}")


if __name__ == "__main__":
    run(finetune, "model")
