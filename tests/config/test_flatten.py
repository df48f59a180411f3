"""Params under dotted keys, as MLflow, the model card and a search have them."""

from typing import Any

import pytest

from stages.config.flatten import flatten


@pytest.mark.parametrize(
    ("values", "flat"),
    [
        ({"a": {"b": 1, "c": {"d": None}}, "e": [1, 2]}, {"a.b": 1, "a.c.d": None, "e": [1, 2]}),
        (
            {"augment": {"horizontal_flip": {}, "random_crop": {"padding": 4}}},
            {"augment.horizontal_flip": {}, "augment.random_crop.padding": 4},
        ),
        (
            {"augment": [{"name": "horizontal_flip"}, {"name": "random_crop", "padding": 4}, {}]},
            {"augment.0.name": "horizontal_flip", "augment.1.name": "random_crop", "augment.1.padding": 4}
            | {"augment.2": {}},
        ),
        ({"augment": {}, "frozen": []}, {"augment": {}, "frozen": []}),
    ],
)
def test_augmentations_without_options_stay(values: Any, flat: dict[str, Any]) -> None:
    assert flatten(values) == flat
    assert list(flatten(values)) == list(flat)
