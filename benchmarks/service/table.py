"""Makes tables in Markdown that can be copied into a document."""

from __future__ import annotations

from collections.abc import Sequence

Cell = str | float | None


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return heads and rows as text. Columns without text are aligned right, and None becomes an empty cell."""
    right = [not any(isinstance(cell, str) for cell in column) for column in zip(*rows, strict=True)]
    rule = "".join("---:|" if at_right else "---|" for at_right in right or [False] * len(heads))
    lines = [f"| {' | '.join(heads)} |", f"|{rule}"]
    lines += [f"| {' | '.join(shown(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def shown(cell: Cell) -> str:
    """Return a number with about three digits, and a text unchanged."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    digits = 0 if abs(cell) >= 100 else 1 if abs(cell) >= 10 else 2
    return f"{cell:,.{digits}f}"


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Return ``ours / theirs``, or None if either is not known or ``theirs`` is 0."""
    return ours / theirs if ours is not None and theirs else None
