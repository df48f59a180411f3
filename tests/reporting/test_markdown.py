"""Markdown tables."""

from stages.reporting.markdown import table


def test_cells_are_escaped_and_aligned() -> None:
    assert table(["a", "b"], [["x|y", 1], ["two\nlines", None]], "lr") == (
        "| a | b |\n| :--- | ---: |\n| x\\|y | 1 |\n| two lines | None |"
    )


def test_columns_without_alignment_have_plain_rules() -> None:
    assert table(["a"], []) == "| a |\n| --- |"
