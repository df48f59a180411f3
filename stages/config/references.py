"""Check the names in params.yaml that refer to other entries and to modules of stages/."""

from collections.abc import Mapping
from pathlib import Path

from stages.config.datasets import FORMAT
from stages.config.messages import choices, lookup
from stages.config.models import ModelConfig, PartConfig
from stages.config.overrides import change
from stages.config.plugins import check_options, check_plugin, load_plugin
from stages.config.schema import Params
from stages.config.sections import PretrainedConfig, Value
from stages.runtime.errors import UserError

PARTS = {  # key of a model's entry → package
    "optimizer": "training.optimizers",
    "schedule": "training.schedules",
    "loss": "training.losses",
}
OPTIONAL_PARTS = {"averaging": "training.averaging", "test_time": "prediction.test_time"}
PART_LISTS = {
    "augment": "training.augmentations",
    "initialize": "training.initializers",
}
PRETRAINED = "pretrained"  # the architecture of models that continue a training
PIXELS_ONLY = ("image_size", "augment", "progressive", "test_time")


def check_references(params: Params, path: Path) -> None:
    """Raise a `UserError` for the first name that does not exist, and for options that a module does not accept."""
    sections: dict[str, str] = {}
    for section in ("datasets", "weights", "features", "pretrained"):  # they share data/raw and data/records
        for name in getattr(params, section):
            if (taken := sections.setdefault(name, section)) != section:
                raise UserError(f"{path}: {section}.{name}: the name is taken by {taken}.{name}; choose another")
    for name in params.folders:
        if params.datasets[name].format != FORMAT:
            raise UserError(f"{path}: folders.{name}: the name is taken by datasets.{name}; choose another")
    for name, dataset in params.archives.items():
        check_plugin(f"{path}: datasets.{name}.format", "data.formats", dataset.format)
    for name, weights in params.weights.items():
        if not weights.files:
            raise UserError(
                f"{path}: weights.{name}.files: missing: Keras publishes none of {name}; name the file and its hash"
            )
    for name, features in params.features.items():
        lookup(params.datasets, features.dataset, f"features.{name}.dataset")
        networks = load_plugin("backbones", "_networks")
        if features.backbone not in networks.NETWORKS:
            check_plugin(f"{path}: features.{name}.backbone", "backbones", features.backbone, networks.NETWORKS)
        if features.backbone == networks.BUILT_IN:
            continue
        if features.backbone not in params.weights:
            raise UserError(
                f"{path}: weights.{features.backbone}: missing: features.{name} needs it; add "
                f"`{features.backbone}: {{}}`"
            )
        if len(files := params.weights[features.backbone].files) > 1:
            raise UserError(
                f"{path}: weights.{features.backbone}.files: {', '.join(files)}: {name} reads one; remove the others"
            )
    for name in params.not_in_pretraining:
        lookup(params.datasets, name, f"not_in_pretraining.{name}")
    for name, start in params.pretrained.items():
        _check_pretrained(f"{path}: pretrained.{name}", name, start, params)
    for name, model in params.models.items():
        lookup({**params.datasets, **params.features, **params.pretrained}, model.dataset, f"models.{name}.dataset")
        _check_model(f"{path}: models.{name}", model, params)
        if model.synthetic:
            check_change(params, model, model.synthetic, f"{path}: models.{name}.synthetic")
    for number, name in enumerate(params.export):
        lookup(params.models, name, f"export[{number}]")
        if name in params.export[:number]:
            raise UserError(f"{path}: export: {name} stands there twice; remove one")
    for name in params.gates:
        lookup(params.models, name, f"gates.{name}")
    for name, audit in params.audits.items():
        lookup(params.datasets, name, f"audits.{name}")
        own = [name, *(key for key, entry in params.features.items() if entry.dataset == name)]
        lookup(dict.fromkeys(own), audit.features, f"audits.{name}.features")
    for name, space in params.search.items():
        model = lookup(params.models, name, f"search.{name}")
        for key, parameter in space.items():
            for value in parameter.ends:
                check_change(params, model, {key: value}, f"{path}: search.{name}")


def check_change(params: Params, model: ModelConfig, values: Mapping[str, Value], what: str) -> None:
    """Raise a `UserError` that starts with `what` if a model's entry would not be valid with other values."""
    changed = change(model, values, what)
    try:
        _check_model("", changed, params)
    except UserError as error:
        raise UserError(f"{what}: {str(error).lstrip('.: ')}") from None


def _check_pretrained(key: str, name: str, start: PretrainedConfig, params: Params) -> None:
    """Check that the head takes the features that the entry says, which dvc.yaml relies on."""
    features = params.features.get(lookup(params.models, start.head, f"pretrained.{name}.head").dataset)
    if features is None:
        heads = [head for head, model in params.models.items() if model.dataset in params.features]
        raise UserError(f"{key}.head: {start.head} takes no features; {choices(start.head, heads)}")
    for what in ("backbone", "dataset"):
        if getattr(start, what) != getattr(features, what):
            raise UserError(
                f"{key}.{what}: {getattr(start, what)}: the features of {start.head} are those of "
                f"{getattr(features, what)}; correct it"
            )


def _check_model(key: str, model: ModelConfig, params: Params) -> None:
    for pixels_only in PIXELS_ONLY:
        if model.dataset in params.features and getattr(model, pixels_only):
            raise UserError(f"{key}.{pixels_only}: {model.dataset} holds features, not images; remove it")
    if model.abstain and model.abstain.none_of_these and model.dataset not in params.features:
        raise UserError(f"{key}.abstain.none_of_these: {model.dataset} holds images, not features; remove it")
    if (model.dataset in params.pretrained) != (model.architecture == PRETRAINED):
        raise UserError(
            f"{key}.architecture: {model.architecture}: an entry of `pretrained`, and no other dataset, needs "
            f"{PRETRAINED}; change one of them"
        )
    if model.dataset in params.pretrained and model.image_size:
        raise UserError(f"{key}.image_size: set it in pretrained.{model.dataset}: the network has one size")
    if model.averaging and model.averaging.options.get("keep_slow") and (model.patience or model.restore_best):
        raise UserError(
            f"{key}.averaging.keep_slow: only the last epoch ends with the slow weights; remove it, or patience and "
            "restore_best"
        )
    check_plugin(f"{key}.architecture", "models", model.architecture)
    check_options(key, "models", model.architecture, model.options, type(model).model_fields)
    for name, package in {**PARTS, **OPTIONAL_PARTS}.items():
        _check_plugin(f"{key}.{name}", package, getattr(model, name))
    for name, group in model.groups.items():
        for key_of_part in ("optimizer", "schedule"):
            _check_plugin(f"{key}.groups.{name}.{key_of_part}", PARTS[key_of_part], getattr(group, key_of_part))
    for parts, package in PART_LISTS.items():
        for position, part in enumerate(getattr(model, parts)):
            _check_plugin(f"{key}.{parts}.{position}", package, part)


def _check_plugin(key: str, package: str, config: PartConfig | None) -> None:
    if config:
        check_plugin(f"{key}.name", package, config.name)
        check_options(key, package, config.name, config.options)
