"""The geometry of the plots. Templates draw the plots as SVG. All functions are pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEIGHT = 150.0  # The bars stand in an area of this height.
WIDTH = 560.0
GAP = 0.35  # the share of a column that stays empty
LEFT = 46.0
LOUD = 3  # levels of colour for pairs of nodes, in each direction


@dataclass(frozen=True)
class Bar:
    """One bar of the spectrum, in the units of the picture.

    Attributes:
        label: the number of copies.
        is_short: True if the bar stands for chunks that have fewer copies than ``target``.
        x, width, y, height: its rectangle.
        middle: the middle of its width.
        low, high: the ends of its interval; ``high`` is None if the interval has no upper end.
        row: the figures behind the bar.
    """

    label: str
    is_short: bool
    x: float
    width: float
    y: float
    height: float
    middle: float
    low: float
    high: float | None
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Spectrum:
    """How many chunks have how many copies, on a logarithmic scale.

    Attributes:
        bars: one for each number of copies.
        ticks: height in the picture and label of each line of the scale.
        width, height: the size of the picture without its labels.
        target: the number of copies that chunks have by default.
    """

    bars: Sequence[Bar]
    ticks: Sequence[tuple[float, str]]
    width: float
    height: float
    target: int


def spectrum(rows: Sequence[Mapping[str, Any]], target: int) -> Spectrum:
    """The plot of a replication spectrum.

    Args:
        rows: the ``estimates.spectrum`` of ``/status``.
        target: the number of copies that chunks have by default.
    """
    top = max([10.0, *(max(row["estimate"], row["upper_bound"] or 0) for row in rows)])
    decades = math.ceil(math.log10(top + 1))
    column = (WIDTH - LEFT) / max(1, len(rows))

    def level(value: float) -> float:
        return HEIGHT * (1 - math.log10(max(0.0, value) + 1) / decades)

    bars = []
    for place, row in enumerate(rows):
        x = LEFT + column * (place + GAP / 2)
        upper = row["upper_bound"]
        bars.append(
            Bar(
                label=f"{row['replicas']}{'+' if row['or_more'] else ''}",
                is_short=row["replicas"] < target and round(row["estimate"]) > 0,
                x=round(x, 1),
                width=round(column * (1 - GAP), 1),
                y=round(level(row["estimate"]), 1),
                height=round(HEIGHT - level(row["estimate"]), 1),
                middle=round(x + column * (1 - GAP) / 2, 1),
                low=round(level(row["lower_bound"]), 1),
                high=None if upper is None else round(level(upper), 1),
                row=row,
            )
        )
    values = [0, *(10**power for power in range(1, decades + 1))]
    return Spectrum(bars, [(round(level(value), 1), f"{value:,}") for value in values], WIDTH, HEIGHT, target)


@dataclass(frozen=True)
class Cell:
    """One pair of nodes.

    Attributes:
        level: its colour: from ``cold3``, far fewer shared chunks than expected, over ``even`` to ``hot3``.
        nodes: the two nodes.
        observed, expected, z: the figures behind it.
    """

    level: str
    nodes: tuple[str, str]
    observed: float
    expected: float
    z: float


def overlap(document: Mapping[str, Any]) -> list[tuple[str, list[Cell | None]]]:
    """The heat map of an ``overlap`` of ``/status``: node → its cells, None for the node itself."""
    nodes, bound = document["nodes"], document["bound"] or 1.0
    rows = []
    for i, node in enumerate(nodes):
        cells = [None if i == j else _cell(document, i, j, bound) for j in range(len(nodes))]
        rows.append((node, cells))
    return rows


def _cell(document: Mapping[str, Any], i: int, j: int, bound: float) -> Cell:
    z = document["z"][i][j]
    step = min(LOUD, int(abs(z) / bound * LOUD))
    level = "even" if not step else f"{'hot' if z > 0 else 'cold'}{step}"
    pair = (document["nodes"][i], document["nodes"][j])
    return Cell(level, pair, document["observed"][i][j], document["expected"][i][j], z)


@dataclass(frozen=True)
class Fill:
    """How full the disk of a node is, in percent.

    Attributes:
        stored: what the node's copies take.
        others: what other files on the same disk take.
        free: what is free on the disk.
    """

    stored: float
    others: float
    free: float


def fill(stored: float, disk: float | None, free: float | None) -> Fill | None:
    """The bar of a node; None while the size of its disk is not known."""
    if not disk or free is None:
        return None
    share_free = min(100.0, 100 * free / disk)
    share_stored = min(100.0 - share_free, 100 * stored / disk)
    return Fill(round(share_stored, 2), round(100 - share_free - share_stored, 2), round(share_free, 2))
