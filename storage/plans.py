"""The plans of operations in words, which commands print, and which admin pages show before they ask for consent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage.services import adopt, drain, rebalance, rebalance_all, reclaim
from storage.volumes import Totals


@dataclass(frozen=True)
class Table:
    """A part of a plan that is a table. The first row is the header."""

    rows: Sequence[Sequence[object]]

    @property
    def cells(self) -> list[list[tuple[str, bool]]]:
        """The text of each cell of each row, and True if the cell's column has numbers."""
        numeric = [all(map(is_number, column[1:])) for column in zip(*self.rows, strict=True)]
        return [list(zip(map(str, row), numeric, strict=True)) for row in self.rows]


Words = Sequence[str | Table]
"""A plan in words: its sentences and tables, in the order in which they are shown."""


def is_number(cell: object) -> bool:
    """True if a cell of a table is a number, perhaps with a unit, or is empty."""
    return str(cell)[:1] in "-0123456789"


def size(count: float) -> str:
    """A number of bytes, which may be negative, as an operator reads it, such as ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def of_drain(plan: drain.Plan) -> Words:
    header = ("node", "copies", "to remove", "to write elsewhere", "unknown copies")
    return [Table([header, (plan.node_id, plan.replicas, size(plan.bytes), size(plan.to_write), plan.orphans)])]


def of_retirement(node_id: str, lost: int) -> Words:
    return [f"{node_id} would be given up, and with it {lost} contents that cannot be read now"]


def of_index(node_id: str, totals: Totals) -> Words:
    header = ("node", "copies, trash included", "bytes", "on the disk")
    return [Table([header, (node_id, totals.records, size(totals.size), size(totals.stored))])]


def of_cluster_rebalance(plan: rebalance_all.Plan) -> Words:
    rows: list[tuple[object, ...]] = [("node", "holds", "copies in", "", "copies out", "", "will hold")]
    for load in plan.loads:
        moved = (load.copies_in, size(load.bytes_in), load.copies_out, size(load.bytes_out))
        rows.append((load.node_id, size(load.bytes), *moved, size(load.planned)))
    if not plan.misplaced and not plan.surplus:
        return [Table(rows), f"nothing to move: all {plan.copies} copies are where placement puts them"]
    words = [f"misplaced: {plan.misplaced} of {plan.copies} copies; to move: {size(plan.bytes)}"]
    if plan.surplus:
        words.append(f"to remove: {plan.surplus} copies too many")
    if plan.largest_z is not None and plan.largest_z_planned is not None:
        words.append(f"largest z of two nodes: {plan.largest_z:.1f} now, {plan.largest_z_planned:.1f} after")
    else:
        words.append("largest z of two nodes: not known, because a sketch is missing or too full")
    return [Table(rows), *words]


def of_file_rebalance(plan: rebalance.Plan) -> Words:
    words: list[str | Table] = []
    nodes = sorted({*plan.added, *plan.removed})
    if not nodes and not plan.lost:
        words.append("nothing to do: every chunk has the copies that it should have")
    if nodes:
        rows: list[tuple[object, ...]] = [("node", "copies to add", "", "copies to remove", "")]
        for node_id in nodes:
            added, removed = plan.added.get(node_id, (0, 0)), plan.removed.get(node_id, (0, 0))
            rows.append((node_id, added[0], size(added[1]), removed[0], size(removed[1])))
        words.append(Table(rows))
    if plan.lost:
        words.append(f"{plan.lost} chunks have no copy on a node that answers: nothing can be added")
    return words


def of_reclaim(preview: reclaim.Preview) -> Words:
    more = ", and more in later passes" if preview.is_capped else ""
    due = f"{preview.due} of them, {size(preview.due_bytes)} in each copy, for more than {preview.grace} s"
    rows: list[tuple[object, ...]] = [("node", "copies in the trash", "to remove")]
    rows += [(trash.node_id, trash.copies, trash.due) for trash in preview.trash]
    silent = [
        f"{node_id} does not answer: nothing goes from it, and no chunk is forgotten" for node_id in preview.absent
    ]
    held = [f"a backup holds reclaim back until {preview.held_until:%H:%M:%S} UTC"] if preview.held_until else []
    return [
        f"{preview.condemned} chunks belong to no file",
        f"{due}: into the trash{more}",
        Table(rows),
        *silent,
        *held,
    ]


def of_adoption(plan: adopt.Plan) -> Words:
    if plan.foreign:
        known = f"written to under a database that this one does not know: {', '.join(plan.foreign)}"
    else:
        known = "this database knows every volume that answers: there is nothing to adopt"
    rows: list[tuple[object, ...]] = [
        ("chunks", "", ""),
        ("the database does not know", plan.unknown, size(plan.unknown_bytes)),
        ("kept earlier, of no file", plan.kept, ""),
        ("of files, on no node", plan.lost, ""),
        ("of files, short of copies", plan.short, ""),
    ]
    return [
        known,
        Table(rows),
        *(f"{node_id} does not answer: what it holds is not counted" for node_id in plan.silent),
    ]
