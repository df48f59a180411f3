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
from stages.reporting.embed import EmbeddedImage, embed_image

PER_KIND = 8  # findings shown of each kind, so that the page stays small whatever the dataset

TITLES = {
    "exact_duplicate": "Exact duplicates",
    "near_duplicate": "Near duplicates",
    "conflicting_labels": "Duplicates with conflicting labels",
    "label_error": "Probable label errors",
    "dark": "Dark",
    "bright": "Bright",
    "low_information": "Low information",
    "low_contrast": "Low contrast",
    "blurred": "Blurred",
    "odd_shape": "Odd shape",
}


class CleanAccuracy(NamedTuple):
    """The accuracy of a model on all test images, and on those without a duplicate in the training split."""

    model: str
    accuracy: float
    clean_accuracy: float
    clean_images: int


class Tile(NamedTuple):
    """An image of a finding, or its partner, and what is written below."""

    embedded: EmbeddedImage
    caption: str


class AuditView(NamedTuple):
    """What the page shows of the audit of a dataset."""

    dataset: str
    counts: dict[str, dict[str, int]]  # by title of the kind and place; kinds without findings are absent
    places: list[str]
    cross_validation_accuracy: float  # of the model behind the label errors
    accuracies: list[CleanAccuracy]
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


def _accuracy(model: str, duplicated: set[str]) -> CleanAccuracy:
    predicted = predictions.read(model)
    clean = np.array([key not in duplicated for key in predicted.keys], bool)
    accuracy = float(predicted.correct.mean())
    return CleanAccuracy(
        model, accuracy, float(predicted.correct[clean].mean()) if clean.any() else accuracy, int(clean.sum())
    )


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

    def tile(split: str, key: str, label: str) -> Tile:
        return Tile(
            embed_image(found[split][key], f"{split} image {key} of class “{label}”"), f"{key} ({label}, {split})"
        )

    examples: dict[str, list[list[Tile]]] = {}
    for kind, table in chosen.items():
        for row in table.itertuples():
            tiles = [tile(row.split, row.key, row.label)]
            if pd.notna(row.partner_key):
                tiles.append(tile(row.partner_split, row.partner_key, row.partner_label))
            elif pd.notna(row.partner_label):
                tiles[0] = tiles[0]._replace(caption=f"{row.key} ({row.label} → {row.partner_label}?)")
            examples.setdefault(TITLES[kind], []).append(tiles)
    return examples
