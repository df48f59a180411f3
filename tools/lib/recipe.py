"""Choose a model for a dataset by the size of its images."""

from typing import Any, NamedTuple

from stages.backbones._networks import BUILT_IN
from stages.runtime.errors import UserError

TINY = 64  # pixels: features of a backbone that was trained on 224 pixels say little of smaller images
IMAGE_SIZE = 224  # pixels that backbones take
PARTS = {"optimizer": {"name": "adam"}, "schedule": {"name": "constant"}, "loss": {"name": "cross_entropy"}}
SHORT = {BUILT_IN: "mobilenetv2", "mobilenetv2": "mobilenetv2_100"}  # in the names of models: the width that is meant
DECAY = {"name": "adamw", "weight_decay": 1.0, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 0.0000001}  # of a linear head
FINETUNING = {  # of a head and its backbone
    "augment": [
        {"name": "random_resized_crop", "scale": 0.3, "ratio": 1.33},
        {"name": "horizontal_flip"},
        {"name": "color_jitter", "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
    ],
    "optimizer": {"name": "adam"},
    "schedule": {"name": "one_cycle", "warmup": 0.2, "start": 0.1, "end": 0.01},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "test_time": {"name": "mirror"},
}


class Facts(NamedTuple):
    """What a recipe depends on."""

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


def choose(dataset: str, facts: Facts, backbone: str | None = None) -> Recipe:
    """Choose a linear head on a backbone's features for photos, and a small network from scratch for the rest.

    Args:
        dataset: name of the dataset.
        facts: what is known of its images.
        backbone: name of a network; None: the one in Git, unless the images are too small for it.

    Raises:
        UserError: as `on_features`.
    """
    if backbone is None and (facts.short_side < TINY or facts.channels == 1):
        recipe = _from_scratch(dataset, facts)
    else:
        recipe = on_features(dataset, backbone or BUILT_IN, facts.channels)
    if facts.largest_class > 2 * facts.smallest_class:
        recipe.model["class_weight"] = "balanced"
        sizes = f"The largest class has {facts.largest_class:,} images, the smallest {facts.smallest_class:,}"
        return recipe._replace(reason=f"{recipe.reason} {sizes}: each class has the same weight.")
    return recipe


def on_features(dataset: str, backbone: str, channels: int) -> Recipe:
    """A linear head on the mean features of a backbone.

    Raises:
        UserError: the images have one channel.
    """
    if channels == 1:
        raise UserError(
            f"BACKBONE={backbone}: the images of {dataset} have one channel, and a backbone takes RGB; choose another "
            "dataset, or do without a backbone"
        )
    name = f"{dataset}_{SHORT.get(backbone, backbone)}"
    dtype = "float32" if backbone == BUILT_IN else "auto"  # so small a network gains nothing by bfloat16
    features: dict[str, Any] = {"dataset": dataset, "backbone": backbone, "image_size": IMAGE_SIZE, "pooling": "avg"}
    features |= {"compute_dtype": dtype}
    model: dict[str, Any] = {"dataset": name, "architecture": "dense", "units": [], **PARTS, "optimizer": dict(DECAY)}
    model |= {"learning_rate": 0.001, "batch_size": 32, "epochs": 50, "compute_dtype": "float32"}
    model |= {"patience": 5, "restore_best": True, "abstain": {"none_of_these": 0.05}}
    reason = (
        f"A linear head on the features of {backbone}, which was trained on ImageNet. `make finetune MODEL={name}` "
        "trains the backbone, too: docs/transfer.md."
    )
    return Recipe(name, features, model, reason)


def _from_scratch(dataset: str, facts: Facts) -> Recipe:
    model: dict[str, Any] = {"dataset": dataset}
    size = facts.size if facts.channels == 1 else None  # color images are stored as files, which may differ in size
    if size is None or size[0] != size[1]:
        model["image_size"] = max(8, min(facts.short_side, TINY))
    model |= {"architecture": "cnn", "filters": [32, 64, 128], "padding": "same", "units": [256], **PARTS}
    model |= {"learning_rate": 0.001, "batch_size": 64, "epochs": 20, "compute_dtype": "auto"}
    model |= {"patience": 5, "restore_best": True}
    reason = f"{facts.short_side} pixels are few for a backbone that was trained on 224: a small network from scratch."
    return Recipe(f"{dataset}_cnn", None, model, reason)
