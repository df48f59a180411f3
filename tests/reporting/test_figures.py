"""Figures of data."""

import pytest

from stages.reporting import build, drawings


@pytest.mark.parametrize("classes", [40, 21_000])
def test_a_distribution_is_bounded_for_any_number_of_classes(classes: int) -> None:
    counts = {split: {f"class {label}": label for label in range(classes)} for split in ("train", "validation", "test")}
    figure = build.distribution(counts)
    assert max(figure.get_size_inches()) < 10
    assert len(drawings.draw(figure)[0]) < 60_000
