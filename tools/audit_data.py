"""`make audit-data`: add an entry for a dataset to `audits` in params.yaml, if it has none."""

import re

from stages.config import params
from stages.config.messages import lookup
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write
from tools.params_file import line_break

VALUES = "similarity: 0.8, ratio: 0.35, folds: 5"  # docs/audit.md has the evidence
SECTION = re.compile(r"^audits:[ ]*(\{\}|)[ ]*$", re.MULTILINE)


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
    line = f"  {dataset}: {{features: {features}, {VALUES}}}"
    text, replaced = SECTION.subn(lambda found: f"audits:\n{line}", paths.PARAMS.read_text(), count=1)
    if not replaced:
        raise UserError(f"{paths.PARAMS}: audits: cannot be extended as it is written; add the line {line.strip()!r}")
    with atomic_write(paths.PARAMS) as part:
        part.write_text(text, newline=line_break(paths.PARAMS))
        params.load(part)
    print(f"{paths.PARAMS}: audits.{dataset}: added")


if __name__ == "__main__":
    run(add, "dataset")
