"""What the page shows of the audits: numbers, accuracy without duplicates of training images, findings side by side."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pandas as pd

from stages.auditing import findings
from stages.auditing.images import split_names
from stages.config.schema import Params
from stages.evaluation import predictions
from stages.reporting import images
from stages.reporting.drawings import EmbeddedImage
from stages.reporting.images import embed_image

PER_KIND = 8  # findings shown of each kind, so that the page stays small whatever the dataset
TITLES = {kind: kind.replace("_", " ").capitalize() for kind in findings.KINDS}
Tile = tuple[EmbeddedImage, str]  # an image of a finding, or its partner, and what is written below


class AuditView(NamedTuple):
    """What the page shows of the audit of a dataset."""

    dataset: str
    counts: dict[str, dict[str, int]]  # by title of the kind and place; kinds without findings are absent
    places: list[str]
    cross_validation_accuracy: float  # of the model behind the label errors
    accuracies: list[tuple[str, float, float, int]]  # model, its accuracy; without duplicates, of so many
    examples: dict[str, list[list[Tile]]]  # by title of the kind: one or two images of each finding shown


def views(params: Params) -> list[AuditView]:
    """The audits of all entries of `audits`.

    Raises:
        UserError: a file is missing or corrupt.
    """
    return [_view(name, params) for name in params.audits]


def _view(name: str, params: Params) -> AuditView:
    rows = findings.read(name)
    counts = findings.counts(rows, split_names(name))
    duplicated = findings.with_training_duplicate(rows)
    found = {TITLES[kind]: row for kind, row in counts.items() if any(row.values())}
    return AuditView(
        dataset=name,
        counts=found,
        places=list(next(iter(counts.values()))),
        cross_validation_accuracy=rows.attrs[findings.ACCURACY],
        accuracies=[_accuracy(model, duplicated) for model in params.models if params.image_dataset(model) == name],
        examples=_examples(name, rows),
    )


def _accuracy(model: str, duplicated: set[str]) -> tuple[str, float, float, int]:
    predicted = predictions.read(model)
    clean = np.array([key not in duplicated for key in predicted.keys], bool)
    accuracy = float(predicted.correct.mean())
    return model, accuracy, float(predicted.correct[clean].mean()) if clean.any() else accuracy, int(clean.sum())


def _examples(name: str, rows: pd.DataFrame) -> dict[str, list[list[Tile]]]:
    ordered = findings.by_certainty(rows)
    chosen = {kind: ordered[ordered["kind"] == kind].head(PER_KIND) for kind in TITLES}
    keys: dict[str, set[str]] = defaultdict(set)
    for table in chosen.values():
        for row in table.itertuples():
            keys[row.split].add(row.key)
            if pd.notna(row.partner_key):
                keys[row.partner_split].add(row.partner_key)
    found = {split: images.split_images(name, split, wanted) for split, wanted in keys.items()}

    def tile(split: str, key: str, label: str, caption: str = "") -> Tile:
        embedded = embed_image(images.thumbnail(found[split][key]), f"{split} image {key} of class “{label}”")
        return embedded, caption or f"{key} ({label}, {split})"

    examples: dict[str, list[list[Tile]]] = {}
    for kind, table in chosen.items():
        for row in table.itertuples():
            suggestion = pd.isna(row.partner_key) and pd.notna(row.partner_label)
            caption = f"{row.key} ({row.label} → {row.partner_label}?)" if suggestion else ""
            tiles = [tile(row.split, row.key, row.label, caption)]
            if pd.notna(row.partner_key):
                tiles.append(tile(row.partner_split, row.partner_key, row.partner_label))
            examples.setdefault(TITLES[kind], []).append(tiles)
    return examples
