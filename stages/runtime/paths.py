"""Where every input and output lies, relative to the root of the repository. dvc.yaml names the same paths."""

import functools
import os
from pathlib import Path

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")
CHECKED = Path("data/checked")  # says that params.yaml is valid
CHECKPOINTS = Path(".dvc/tmp/checkpoints")
EXTRACTIONS = Path(".dvc/tmp/extractions")  # finished shards of interrupted extractions
DOWNLOADS = Path(".dvc/tmp/downloads")  # what came of interrupted downloads
DECODED = Path(".dvc/tmp/decoded")  # temporary files of trainings that do not fit into memory, without names
# What the report drew; may be removed. `dvc exp run --temp`, which works in another folder, shares it
DRAWINGS = Path(os.environ.get("DVC_ROOT", "."), ".dvc/tmp/drawings")
PUBLISHED = Path("reports/published.yaml")
MEASURED = Path("reports/measured")  # results on the real data, a folder for each seed
PROBES = MEASURED / "probes.json"  # digest of each model's small training with today's code
REPORT = Path("reports/README.md")
PAGE = Path("reports/index.html")


def raw(name: str) -> Path:
    """The folder with the archives of a dataset, or with the weights of a backbone."""
    return Path("data/raw") / name


def records(name: str) -> Path:
    """The folder with the TFRecords of a dataset or a feature set, or with a network to fine-tune."""
    return Path("data/records") / name


def backbone(name: str) -> Path:
    """The backbone that computed a feature set, as JSON, beside its TFRecords."""
    return records(name) / "backbone.json"


def fit(name: str) -> Path:
    """How the images of a dataset are fitted to the size of a model, as JSON, beside its TFRecords."""
    return records(name) / "fit.json"


def network(name: str) -> Path:
    """A network to fine-tune, in Keras's format."""
    return records(name) / "network.keras"


def counts(name: str) -> Path:
    """Images per split and class of a dataset, as JSON."""
    return Path("data/counts") / f"{name}.json"


def skipped(name: str) -> Path:
    """Files of a dataset that are not valid images, as JSON."""
    return Path("data/skipped") / f"{name}.json"


def model(name: str) -> Path:
    """A trained model in Keras's format."""
    return Path("data/models") / f"{name}.keras"


def predictions(name: str) -> Path:
    """A model's predictions on the test split, as Parquet."""
    return Path("data/predictions") / f"{name}.parquet"


def history(name: str) -> Path:
    """Loss and accuracy of each epoch of a training, as CSV."""
    return Path("reports/history") / f"{name}.csv"


def metrics(name: str) -> Path:
    """A model's metrics, as JSON."""
    return Path("reports/metrics") / f"{name}.json"


def plot(plot: str, name: str) -> Path:
    """The table behind one plot of a model, as CSV."""
    return Path("reports/plots") / plot / f"{name}.csv"


def export(name: str, kind: str) -> Path:
    """A model as a LiteRT file; `kind` is its number format, float32 or int8."""
    return Path("data/export") / f"{name}.{kind}.tflite"


def export_metrics(name: str) -> Path:
    """Sizes of a model's LiteRT files, and how well they agree with it, as JSON."""
    return Path("reports/export") / f"{name}.json"


def environment(stage: str, name: str) -> Path:
    """What a result of `train` or `extract` was computed with: threads, number format, processor, versions."""
    return Path("data/environment") / stage / f"{name}.json"


def audit(name: str) -> Path:
    """The findings of the audit of a dataset, as Parquet."""
    return Path("data/audit") / f"{name}.parquet"


def corrections(dataset: str) -> Path:
    """Corrections of a dataset's labels, as a person made them."""
    return Path(f"data/corrections/{dataset}.csv")


def suspects(dataset: str) -> Path:
    """Labels of a dataset that its audit suggests to correct."""
    return Path(f"data/audit/{dataset}.csv")


def audit_metrics(name: str) -> Path:
    """The numbers of the findings of an audit, as JSON."""
    return Path("reports/audit") / f"{name}.json"


@functools.cache
def dvc_cache(repository: Path) -> Path | None:
    """The folder of DVC's cache; None outside of a repository."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(repository) as repo:
            return Path(os.path.realpath(repo.cache.local.path))
    except DvcException:
        return None
