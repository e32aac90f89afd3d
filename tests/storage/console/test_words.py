"""Sizes and times in units that people use."""

from __future__ import annotations

import pytest

from storage.console import words


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 KB"), (999_600, "1.0 MB"), (123_456_789, "123 MB")],
)
def test_sizes_are_in_the_units_of_people(count: int, text: str) -> None:
    assert words.size(count) == text
