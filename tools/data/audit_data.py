"""`make audit-data DATASET=flowers`: audit a dataset, and name what was found.

Adds an entry for the dataset to `audits` in params.yaml, if it has none.
"""

import subprocess

from stages.config import params
from stages.config.messages import lookup
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError, printable
from tools.lib.params_file import NewEntry, add_entries

VALUES = {"similarity": 0.8, "ratio": 0.35, "folds": 5}  # docs/audit.md has the evidence
SHOWN = 10  # images of each kind


def audit_data(dataset: str) -> None:
    """Add the entry, run the stage, and print the number and the first images of each kind of finding."""
    add(dataset)
    if subprocess.run(["dvc", "repro", f"audit@{dataset}"], check=False).returncode:
        raise UserError(f"audit@{dataset} failed: see above")
    show(dataset)


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


def show(dataset: str) -> None:
    """Print the number and the first images of each kind of finding, the most certain first."""
    from stages.auditing import findings

    rows = findings.read(dataset)
    accuracy = f" (cross-validation accuracy {rows.attrs[findings.ACCURACY]:.1%})"
    rows = findings.by_certainty(rows).fillna("")
    for kind in findings.KINDS:
        found = rows[rows["kind"] == kind]
        if found.empty:
            continue
        print(f"{kind}: {len(found):,}{accuracy if kind == 'label_error' else ''}")
        for row in found.head(SHOWN).itertuples():
            partner = f" = {row.partner_key} ({row.partner_split}, {row.partner_label})" if row.partner_key else ""
            suggested = f" → {row.partner_label}?" if row.partner_label and not row.partner_key else ""
            print("  " + printable(f"{row.key} ({row.split}, {row.label}{suggested}){partner}"))
        if len(found) > SHOWN:
            print(f"  … and {len(found) - SHOWN:,} more")
    print(f"all: {paths.audit(dataset)}; labels to correct: {paths.suspects(dataset)} (docs/audit.md)")


if __name__ == "__main__":
    run(audit_data, "dataset")
