"""`make audit-data`: add an entry for a dataset to `audits` in params.yaml, if it has none."""

from stages.config import params
from stages.config.messages import lookup
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.lib.params_file import NewEntry, add_entries

VALUES = {"similarity": 0.8, "ratio": 0.35, "folds": 5}  # docs/audit.md has the evidence


def add(dataset: str) -> None:
    """Add the entry: on the features of a backbone if the dataset has any, otherwise on its images.

    The rest of the file keeps its bytes, and with them its comments.

    Raises:
        UserError: there is no such dataset, or the section is not written as this tool can extend it.
    """
    values = params.load()
    if not dataset:
        raise UserError(f"name a dataset: make audit-data DATASET={next(iter(values.datasets), 'NAME')}")
    lookup(values.datasets, dataset, "datasets")
    if dataset in values.audits:
        return
    features = next((name for name, entry in values.features.items() if entry.dataset == dataset), dataset)
    add_entries([NewEntry("audits", dataset, {"features": features, **VALUES})], {})
    print(f"{paths.PARAMS}: audits.{dataset}: added")


if __name__ == "__main__":
    run(add, "dataset")
