"""Tables in Markdown."""

import pytest

from benchmarks.service.table import Cell, ratio, shown, table


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, ""), ("W1", "W1"), (0.0, "0.00"), (1.234, "1.23"), (56.78, "56.8"), (1234.5, "1,234"), (-20.26, "-20.3")],
)
def test_cells(cell: Cell, text: str) -> None:
    assert shown(cell) == text


def test_numbers_stand_at_the_right_and_text_at_the_left() -> None:
    assert table(("of", "MiB/s"), [("ours", 30.12), ("SHA-256", None)]) == "\n".join(
        ["| of | MiB/s |", "|---|---:|", "| ours | 30.1 |", "| SHA-256 |  |"]
    )


def test_a_ratio_needs_both() -> None:
    assert ratio(1.0, 4.0) == 0.25
    assert ratio(None, 4.0) is None
    assert ratio(1.0, None) is None
    assert ratio(1.0, 0.0) is None
