"""The schema of params.yaml."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.config import overrides
from stages.config.datasets import DatasetConfig, FolderConfig, MirrorConfig, WeightsConfig
from stages.config.models import ModelConfig, TrainConfig
from stages.config.plugins import load_plugin
from stages.config.sections import (
    AuditConfig,
    FeaturesConfig,
    GateConfig,
    NotInPretrainingConfig,
    PretrainedConfig,
    SearchSpace,
)
from stages.config.types import Config, Name
from stages.runtime import paths
from stages.runtime.numerics import Kernels


class KernelsConfig(Config):
    """The section `kernels`: what TensorFlow may compute with, on generated and on real data."""

    synthetic: Kernels
    real: Kernels


class Params(Config):
    """The whole file."""

    source: Literal["synthetic", "real"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    skip_invalid_images: bool
    max_pixels: Annotated[int, Field(ge=1)]  # of a file among your own images, and of one to predict
    kernels: KernelsConfig
    engine: Literal["local", "ray"]
    memory: Annotated[float, Field(ge=0)]  # GiB
    datasets: dict[Name, DatasetConfig]  # with those of `folders`, so that every dataset is found here
    folders: dict[Name, FolderConfig] = Field(default_factory=dict)
    weights: dict[Name, WeightsConfig]
    features: dict[Name, FeaturesConfig]
    not_in_pretraining: dict[Name, NotInPretrainingConfig]
    pretrained: dict[Name, PretrainedConfig] = Field(default_factory=dict)
    train: TrainConfig
    models: dict[Name, ModelConfig]
    export: list[Name] = Field(default_factory=list)  # models
    gates: dict[Name, GateConfig]
    audits: dict[Name, AuditConfig] = Field(default_factory=dict)
    search: dict[Name, SearchSpace] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _add_folders(self) -> "Params":
        for name, folder in self.folders.items():
            self.datasets.setdefault(name, folder.as_dataset())  # `check_references` rejects a name that is taken
        return self

    @model_validator(mode="after")
    def _add_published_weights(self) -> "Params":
        networks = load_plugin("backbones", "_networks")
        for name, weights in self.weights.items():
            if not weights.files and name != networks.BUILT_IN and (network := networks.NETWORKS.get(name)):
                mirror = MirrorConfig.model_construct(url=network.url, hash=network.hash)
                self.weights[name] = weights.model_copy(update={"files": {network.file: [mirror]}})
        return self

    @property
    def archives(self) -> dict[str, DatasetConfig]:
        """The datasets that are downloaded or generated."""
        return {name: dataset for name, dataset in self.datasets.items() if name not in self.folders}

    def preprocess_stage(self, dataset: str) -> str:
        """The stage of dvc.yaml that writes the records of a dataset."""
        return f"preprocess_folder@{dataset}" if dataset in self.folders else f"preprocess@{dataset}"

    @cached_property
    def resolved_models(self) -> dict[str, ModelConfig]:
        """The configuration of each model as it is trained: with the overrides of `train`.

        A model on a network of `pretrained` is trained on the images of that network, in its size.
        """
        found = {}
        for name, model in self.models.items():
            found[name] = overrides.merge(model, self.train, self.is_model_synthetic(name))
            if start := self.pretrained.get(model.dataset):
                size = start.image_size or self.resolved_features[self.models[start.head].dataset].image_size
                found[name] = found[name].model_copy(update={"dataset": start.dataset, "image_size": size})
        return found

    @cached_property
    def resolved_features(self) -> dict[str, FeaturesConfig]:
        """The configuration of each feature set as it is extracted: of generated images with its `synthetic` values."""
        found = {}
        for name, entry in self.features.items():
            other = entry.synthetic if self.is_features_synthetic(entry) else {}
            found[name] = entry.model_copy(update={"image_size": other.get("image_size", entry.image_size)})
        return found

    def is_synthetic(self, entry: DatasetConfig | WeightsConfig) -> bool:
        """Whether the files of an entry are generated instead of downloaded."""
        return self.source == "synthetic" and bool(entry.synthetic)

    def is_backbone_synthetic(self, backbone: str) -> bool:
        """Whether the weights of a backbone are generated."""
        return backbone in self.weights and self.is_synthetic(self.weights[backbone])

    def kernels_for(self, synthetic: bool) -> Kernels:
        """The kernels for what is computed from generated images or weights, or from real ones."""
        return self.kernels.synthetic if synthetic else self.kernels.real

    def model_kernels(self, model: str) -> Kernels:
        """The kernels for a model's training."""
        return self.kernels_for(self.is_model_synthetic(model))

    def image_dataset(self, model: str) -> str:
        """The dataset with a model's images: its own, or the one that its features are extracted from."""
        dataset, features = self.models[model].dataset, self.model_features(model)
        return features.dataset if features else dataset

    def model_features(self, model: str) -> FeaturesConfig | None:
        """The features that a model takes, or that the head of its pretrained network took; None without a backbone."""
        dataset = self.models[model].dataset
        if dataset in self.pretrained:
            dataset = self.models[self.pretrained[dataset].head].dataset
        return self.features.get(dataset)

    def pretrained_network(self, model: str) -> Path | None:
        """The file of the network that a model continues to train, if its dataset is an entry of `pretrained`."""
        dataset = self.models[model].dataset
        return paths.network(dataset) if dataset in self.pretrained else None

    def is_model_synthetic(self, model: str) -> bool:
        """Whether a model's images, or the weights that its features were extracted with, are generated."""
        if features := self.model_features(model):
            return self.is_features_synthetic(features)
        return self.is_synthetic(self.datasets[self.image_dataset(model)])

    def is_features_synthetic(self, features: FeaturesConfig) -> bool:
        """Whether the images of a feature set, or the weights of its backbone, are generated."""
        return self.is_synthetic(self.datasets[features.dataset]) or self.is_backbone_synthetic(features.backbone)
