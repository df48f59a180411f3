"""Check the names in params.yaml that refer to other entries and to modules of stages/."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.config.messages import lookup
from stages.config.models import ModelConfig
from stages.config.parts import check_options, check_part
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    from stages.config.params import Params

PARTS = {  # key of a model's entry → package
    "optimizer": "training.optimizers",
    "schedule": "training.schedules",
    "loss": "training.losses",
}


def check_references(params: "Params", path: Path) -> None:
    """Raise a `UserError` for the first name that does not exist, and for options that a module does not accept."""
    sections: dict[str, str] = {}
    for section in ("datasets", "weights", "features"):  # they share the folders data/raw and data/records
        for name in getattr(params, section):
            if (taken := sections.setdefault(name, section)) != section:
                raise UserError(f"{path}: {section}.{name}: the name is taken by {taken}.{name}; choose another")
    for name, dataset in params.datasets.items():
        check_part(f"{path}: datasets.{name}.format", "data.formats", dataset.format)
    for name, features in params.features.items():
        lookup(params.datasets, features.dataset, f"features.{name}.dataset")
        lookup(params.weights, features.backbone, f"features.{name}.backbone")
        check_part(f"{path}: features.{name}.backbone", "backbones", features.backbone)
        if len(files := params.weights[features.backbone].files) > 1:
            raise UserError(
                f"{path}: weights.{features.backbone}.files: {', '.join(files)}: {name} reads one; remove the others"
            )
    for name in params.not_in_pretraining:
        lookup(params.datasets, name, f"not_in_pretraining.{name}")
    for name, model in params.models.items():
        lookup({**params.datasets, **params.features}, model.dataset, f"models.{name}.dataset")
        _check_model(f"{path}: models.{name}", model, holds_features=model.dataset in params.features)
    for name in params.gates:
        lookup(params.models, name, f"gates.{name}")


def _check_model(key: str, model: ModelConfig, holds_features: bool) -> None:
    for pixels_only in ("image_size", "augment"):
        if holds_features and getattr(model, pixels_only):
            raise UserError(f"{key}.{pixels_only}: {model.dataset} holds features, not images; remove it")
    check_part(f"{key}.architecture", "models", model.architecture)
    check_options(key, "models", model.architecture, model.options)
    for part, package in PARTS.items():
        config = getattr(model, part)
        check_part(f"{key}.{part}.name", package, config.name)
        check_options(f"{key}.{part}", package, config.name, config.options)
    for name, options in model.augment.items():
        check_part(f"{key}.augment.{name}", "training.augmentations", name)
        check_options(f"{key}.augment.{name}", "training.augmentations", name, options)
