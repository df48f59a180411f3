"""Synthetic archives of any size, in the folders where the stages look for them."""

from pathlib import Path

from stages.config.datasets import DatasetConfig, SyntheticConfig, WeightsConfig
from stages.config.plugins import load_plugin
from stages.runtime import paths


def enlarged(dataset: DatasetConfig, factor: int) -> DatasetConfig:
    """`dataset` with `factor` times as many synthetic images."""
    assert dataset.synthetic
    return resized(dataset, factor * dataset.synthetic.train, factor * dataset.synthetic.test)


def resized(dataset: DatasetConfig, train: int, test: int) -> DatasetConfig:
    """`dataset` with the given numbers of synthetic images."""
    return dataset.model_copy(update={"synthetic": SyntheticConfig(train=train, test=test)})


def write_archives(root: Path, name: str, dataset: DatasetConfig) -> None:
    """Write the synthetic archives of a dataset below `root`."""
    _write(root / paths.raw(name), load_plugin("data.synthetic", dataset.format).generate(name, dataset))


def write_weights(root: Path, name: str, weights: WeightsConfig) -> None:
    """Write the synthetic weights of a backbone below `root`."""
    _write(root / paths.raw(name), load_plugin("data.synthetic", name).generate(name, weights))


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
