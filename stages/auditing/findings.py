"""Findings of an audit: their table, data/audit/NAME.parquet, their numbers, and the labels to correct, NAME.csv."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stages.config.datasets import is_formula
from stages.runtime import paths
from stages.runtime.files import atomic_write, open_input

if TYPE_CHECKING:
    from stages.auditing.images import Images

ACCURACY = "cross_validation_accuracy"
DUPLICATES = ("exact_duplicate", "near_duplicate")
KINDS = (
    *DUPLICATES,
    "conflicting_labels",
    "label_error",
    *("dark", "bright", "low_information", "low_contrast", "blurred", "odd_shape"),
)
COLUMNS = ("split", "key", "label", "kind", "score", "partner_split", "partner_key", "partner_label")


def table(found: pd.DataFrame, images: "Images") -> pd.DataFrame:
    """The rows image, kind, score, partner of all detectors with names instead of positions.

    The order is that of the kinds, then of the images. The partner of a label error has a label alone: the one that
    the cross-validation predicts, which is the row's column `predicted`.
    """
    splits, classes = np.array(images.splits, object), np.array(images.classes, object)
    image, partner = found["image"].to_numpy(int), found["partner"].to_numpy(int)
    paired = partner >= 0
    predicted = found["predicted"].fillna(-1).to_numpy(int)  # of label errors alone
    suggested = np.where(paired, images.labels[partner], predicted)
    rows = pd.DataFrame(
        {
            "split": splits[images.split[image]],
            "key": images.keys[image],
            "label": classes[images.labels[image]],
            "kind": pd.Categorical(found["kind"], KINDS),
            "score": found["score"].astype(float).round(4),
            "partner_split": np.where(paired, splits[images.split[partner]], None),
            "partner_key": np.where(paired, images.keys[partner], None),
            "partner_label": np.where(suggested >= 0, classes[suggested], None),
        }
    )
    order = np.lexsort((partner, image, rows["kind"].cat.codes))
    return rows.iloc[order].astype({"kind": str}).reset_index(drop=True)


def counts(rows: pd.DataFrame, splits: list[str]) -> dict[str, dict[str, int]]:
    """Number of rows of each kind, by split; of duplicates across splits, by "test-train"."""
    across = rows["partner_split"].notna() & (rows["partner_split"] != rows["split"])
    where = np.where(across, rows["split"] + "-" + rows["partner_split"].fillna(""), rows["split"])
    places = [*splits, *sorted(set(where) - set(splits))]
    found = pd.crosstab(rows["kind"], where).reindex(index=list(KINDS), columns=places, fill_value=0)
    return {kind: {place: int(number) for place, number in row.items()} for kind, row in found.iterrows()}


def write(dataset: str, rows: pd.DataFrame, accuracy: float) -> None:
    """Write data/audit/NAME.parquet, with the accuracy of the model behind the label errors, and NAME.csv."""
    rows.attrs[ACCURACY] = accuracy
    with atomic_write(paths.audit(dataset)) as part:
        rows.to_parquet(part, index=False)
    with atomic_write(paths.suspects(dataset)) as part:
        _suspects(rows).to_csv(part, index=False, encoding="utf-8-sig")  # with the mark by which Excel knows UTF-8


def _suspects(rows: pd.DataFrame) -> pd.DataFrame:
    """Images whose label may be wrong, as a table that `corrections` of a dataset reads; the most certain first.

    No cell is a formula: the names of files are the only ones that could be.
    """
    errors = rows[rows["kind"] == "label_error"].sort_values("score", kind="stable")
    conflicts = rows[rows["kind"] == "conflicting_labels"]
    reasons = [
        *(f"probability of {row.label}: {row.score:.0%}" for row in errors.itertuples()),
        *(f"as {row.partner_key} of {row.partner_label} ({row.partner_split})" for row in conflicts.itertuples()),
    ]
    suspects = pd.concat([errors, conflicts.assign(partner_label="")], ignore_index=True).assign(reason=reasons)
    suspects = suspects.rename(columns={"key": "file", "partner_label": "suggested_label"})
    suspects["file"] = [f"'{file}" if is_formula(file) else file for file in suspects["file"]]
    return suspects.drop_duplicates(["split", "file"])[["file", "label", "suggested_label", "reason", "split"]]


def read(dataset: str) -> pd.DataFrame:
    """Read data/audit/NAME.parquet.

    Raises:
        UserError: the file is missing or corrupt.
    """
    with open_input(paths.audit(dataset), f"audit@{dataset}") as file:
        rows = pd.read_parquet(file)
        if tuple(rows.columns) != COLUMNS:
            raise ValueError("its columns are not those of an audit")
        return rows


def by_certainty(rows: pd.DataFrame) -> pd.DataFrame:
    """Duplicates across splits first, because these change what is measured; then the most certain findings."""
    across = rows["partner_split"].notna() & (rows["partner_split"] != rows["split"])
    certain = rows["score"].where(~rows["kind"].isin(DUPLICATES), -rows["score"])
    return rows.assign(within=~across, certain=certain).sort_values(["within", "certain"], kind="stable")


def with_training_duplicate(rows: pd.DataFrame) -> set[str]:
    """Keys of the test images that have an exact or near duplicate in the training split."""
    chosen = rows["kind"].isin(DUPLICATES) & (rows["split"] == "test") & (rows["partner_split"] == "train")
    return set(rows.loc[chosen, "key"])
