"""`make real` with the stages of the project: archives from file:// mirrors, one model, an uncommitted change."""

import hashlib
import sys
from pathlib import Path
from typing import Any

from stages.config.datasets import DatasetConfig, SyntheticConfig
from stages.data.synthetic import idx
from tests.conftest import clone_of_work_tree, only, run, write_params


def test_real_data_are_downloaded_once_and_an_uncommitted_change_is_reviewed_and_gated(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()

    def change(values: Any) -> None:
        only(values, "mnist_dense")
        entry = values["datasets"]["mnist"]
        config = DatasetConfig.model_validate(dict(entry) | {"files": entry["files"], "synthetic": None})
        config = config.model_copy(update={"synthetic": SyntheticConfig(train=200, test=100)})
        for name, content in idx.generate("mnist", config).items():
            (mirror / name).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            entry["files"][name] = [{"url": (mirror / name).as_uri(), "hash": f"sha256:{digest}"}]
        values["gates"] = {"mnist_dense": {"min_accuracy": 0.001, "max_drop": 0.999}}

    def other(values: Any) -> None:
        change(values)
        values["models"]["mnist_dense"]["units"] = [50]

    folder = clone_of_work_tree(tmp_path / "clone", change)
    write_params(folder, other)
    before = run(folder, "git", "status", "--porcelain").stdout
    done = run(folder, sys.executable, "-m", "tools.compare.real", "main", "mnist_dense fashion_mnist_cnn")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("# On real data: mnist_dense, fashion_mnist_cnn\n\n## The workspace against `main` (")
    assert "| `models.mnist_dense.units` | `[100]` | `[50]` |" in done.stdout
    assert "synthetic data" not in done.stdout.lower()
    assert "Both sides were produced on: " in done.stdout
    assert "gate passed; judged: mnist_dense" in done.stdout
    # The second side takes the archives from the run cache.
    assert done.stderr.count("Running stage 'download@mnist'") == 1
    assert run(folder, "git", "status", "--porcelain").stdout == before
    assert not (folder / "data/raw/mnist").exists()
