"""Choose a model for a dataset by the number and size of its images."""

from typing import Any, NamedTuple

TINY = 64  # pixels: features of a backbone that was trained on 224 pixels say little of smaller images
MANY = 20_000  # images: an hour or more of features on a few cores; enough to train a network from scratch


class Facts(NamedTuple):
    """What a recipe depends on."""

    images: int
    classes: int
    short_side: int  # median, in pixels
    elongation: float  # median of the longer side by the shorter one
    size: tuple[int, int] | None  # height and width, if all images have the same
    channels: int  # as they are stored
    largest_class: int  # images
    smallest_class: int


class Recipe(NamedTuple):
    """Entries for params.yaml."""

    name: str  # of the model, and of the features
    features: dict[str, Any] | None
    model: dict[str, Any]
    reason: str


def choose(dataset: str, facts: Facts) -> Recipe:
    """Choose a head on VGG16's features for few photos, and a small network from scratch for the rest."""
    tiny = facts.short_side < TINY or facts.channels == 1
    if not tiny and facts.images <= MANY:
        name = f"{dataset}_vgg16"
        features: dict[str, Any] | None
        features = {"dataset": dataset, "backbone": "vgg16", "image_size": 224, "compute_dtype": "auto"}
        reason = (
            f"{facts.images:,} photos are too few to train a network from scratch: a small head on the features of "
            "VGG16, which was trained on ImageNet. Fine-tuning it may gain a few points: docs/transfer.md."
        )
        model: dict[str, Any] = {"dataset": name, "architecture": "dense", "units": [256]}
        model |= {"learning_rate": 0.0001, "batch_size": 32, "epochs": 30, "compute_dtype": "float32"}
    else:
        name, features = f"{dataset}_cnn", None
        reason = (
            f"{facts.short_side} pixels are few for a backbone that was trained on 224: a small network from scratch."
            if tiny
            else f"{facts.images:,} images are enough to train a small network from scratch; to compute the features "
            "of a backbone would take hours on a few cores."
        )
        model = {"dataset": dataset}
        size = facts.size if facts.channels == 1 else None  # color images are stored as files, which may differ in size
        if size is None or size[0] != size[1]:
            model["image_size"] = max(8, min(facts.short_side, TINY))
        filters = [32, 64, 128] if tiny else [32, 64, 128, 256]
        model |= {"architecture": "cnn", "filters": filters, "padding": "same", "units": [256]}
        model |= {"learning_rate": 0.001, "batch_size": 64, "epochs": 20, "compute_dtype": "auto"}
    model |= {"optimizer": {"name": "adam"}, "schedule": {"name": "constant"}, "loss": {"name": "cross_entropy"}}
    model |= {"patience": 5, "restore_best": True}
    if facts.largest_class > 2 * facts.smallest_class:
        model["class_weight"] = "balanced"
        reason += (
            f" The largest class has {facts.largest_class:,} images, the smallest {facts.smallest_class:,}: each class "
            "has the same weight."
        )
    return Recipe(name, features, model, reason)
