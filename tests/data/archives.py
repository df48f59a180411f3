"""Synthetic archives for tests."""

from pathlib import Path

from stages.config import params
from stages.config.datasets import DatasetConfig, WeightsConfig
from stages.config.plugins import load_plugin
from stages.runtime import paths


def generate(name: str, entry: DatasetConfig | WeightsConfig | None = None, folder: Path | None = None) -> None:
    """Write the synthetic files of an entry, by default that of params.yaml, to a folder, by default in data/raw."""
    if entry is None:
        values = params.load()
        entry = values.datasets[name] if name in values.datasets else values.weights[name]
    folder = folder or paths.raw(name)
    folder.mkdir(parents=True, exist_ok=True)
    generator = load_plugin("data.synthetic", entry.format if isinstance(entry, DatasetConfig) else name)
    for file, data in generator.generate(name, entry).items():
        (folder / file).write_bytes(data)
