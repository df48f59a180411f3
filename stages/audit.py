"""Audit a dataset: duplicates, bad images and label errors → data/audit/NAME.parquet and .csv, and their numbers."""

from stages.config import params
from stages.config.messages import lookup
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.files import write_json
from stages.runtime.numerics import import_tensorflow


def audit(name: str) -> None:
    """Write the findings on the images of a dataset, one row each, and their numbers."""
    values = params.load()
    config = lookup(values.audits, name, "audits")
    import_tensorflow(values.threads, values.kernels_for(values.is_synthetic(values.datasets[name])), gpu=False)
    import pandas as pd

    from stages.auditing import duplicates, findings, labels, quality
    from stages.auditing.images import describe

    images = describe(name)
    found = [duplicates.find(images, config.similarity, config.ratio), quality.find(images.measures)]
    errors, accuracy = labels.find(images, config.features, config.features in values.features, config.folds)
    rows = findings.table(pd.concat([*found, errors], ignore_index=True), images)
    counts = findings.counts(rows, images.splits)
    accuracy = round(accuracy, 6)
    findings.write(name, rows, accuracy)
    metrics = {
        "images": {split: int((images.split == at).sum()) for at, split in enumerate(images.splits)},
        "findings": counts,
        "test_images_with_training_duplicate": len(findings.with_training_duplicate(rows)),
        findings.ACCURACY: accuracy,  # of the model behind the label errors
    }
    write_json(metrics, paths.audit_metrics(name))
    numbers = ", ".join(f"{kind} {sum(row.values()):,}" for kind, row in counts.items() if any(row.values()))
    print(f"{name}: {len(images.keys):,} images; {numbers or 'no findings'}")


if __name__ == "__main__":
    run(audit, "dataset")
