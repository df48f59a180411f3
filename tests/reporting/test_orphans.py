"""The report removes what entries of params.yaml that no longer exist left behind, and nothing else."""

from pathlib import Path

from ruamel.yaml import YAML

from stages.config import params
from stages.reporting.orphans import remove_orphans
from stages.runtime import paths
from tests.conftest import write_params

GONE = [
    "reports/metrics/old.json",
    "data/predictions/old.parquet",
    "data/records/flowers",
    ".dvc/tmp/checkpoints/old-0a.npz",
    ".dvc/tmp/extractions/old_vgg16-0a",
]
KEPT = [
    "reports/metrics/mnist_cnn.json",
    "reports/metrics/notes.txt",  # DVC does not know it
    "data/records/mnist",
    ".dvc/tmp/checkpoints/mnist_cnn-0a.npz",
    ".dvc/tmp/extractions/imagenette_vgg16-0a",
]


def test_remove_orphans_removes_outputs_and_unfinished_work_of_removed_entries_only(project: Path) -> None:
    write_params(project)
    for path in map(Path, (*GONE, *KEPT)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if "records" in path.parts else path.write_text("x", encoding="utf-8")
    stages = {
        "evaluate@old": ["reports/metrics/old.json"],
        "train@old": ["data/predictions/old.parquet", "data/models/old.keras"],  # the second is already absent
        "preprocess@flowers": ["data/records/flowers"],
        "evaluate@mnist_cnn": ["reports/metrics/mnist_cnn.json"],
        "preprocess@mnist": ["data/records/mnist"],
    }
    lock = {"stages": {name: {"outs": [{"path": path} for path in outs]} for name, outs in stages.items()}}
    YAML().dump(lock, paths.LOCK)
    remove_orphans(params.load())
    assert [path for path in GONE if Path(path).exists()] == []
    assert [path for path in KEPT if not Path(path).exists()] == []
