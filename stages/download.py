"""Archives, or pretrained weights, in data/raw/NAME: generated, or downloaded from a mirror and verified."""

from importlib.util import find_spec
from pathlib import Path

from stages.config import params
from stages.config.datasets import DatasetConfig, WeightsConfig
from stages.config.messages import lookup
from stages.config.plugins import load_plugin
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write


def download(name: str) -> None:
    """Write data/raw/NAME with exactly the files of the entry in params.yaml, completely or not at all.

    Raises:
        UserError: there is no such dataset or backbone, no generator for it, or no mirror that delivers a file.
    """
    values = params.load()
    entries: dict[str, DatasetConfig | WeightsConfig] = {**values.archives, **values.weights}
    entry = lookup(entries, name, "datasets and weights")
    synthetic = values.is_synthetic(entry)
    target = paths.raw(name)
    with atomic_write(target) as folder:
        folder.mkdir()
        if synthetic:
            _generate(name, entry, folder)
        else:
            _fetch(entry, folder, target)
    print(f"{target}: complete, {'generated' if synthetic else 'verified'}")


def _generate(name: str, entry: DatasetConfig | WeightsConfig, folder: Path) -> None:
    """Write the files of an entry with the generator of its format or backbone."""
    is_dataset = isinstance(entry, DatasetConfig)
    key = f"params.yaml: {'datasets' if is_dataset else 'weights'}.{name}"
    part = entry.format if isinstance(entry, DatasetConfig) else name
    if find_spec(f"stages.data.synthetic.{part}") is None:
        raise UserError(
            f"{key}.synthetic: there is no generator stages/data/synthetic/{part}.py; write it, or set it to null"
        )
    files: dict[str, bytes] = load_plugin("data.synthetic", part).generate(name, entry)
    if set(files) != set(entry.files):
        raise UserError(f"{key}.files: the synthetic files are {', '.join(files)}; name them like that")
    for file_name, data in files.items():
        (folder / file_name).write_bytes(data)


def _fetch(entry: DatasetConfig | WeightsConfig, folder: Path, target: Path) -> None:
    """Write the published files of an entry; download those that are neither in `target` nor in DVC's cache."""
    from stages.data.real.fetch import fetch
    from stages.data.real.reuse import reuse

    for file_name, mirrors in entry.files.items():
        path = folder / file_name
        if not reuse(path, mirrors, target):
            fetch(path, mirrors, target)


if __name__ == "__main__":
    run(download, "name")
