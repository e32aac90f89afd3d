from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from storage.management.operation import Operation, size, table
from storage.models import File, Job, nobody
from storage.services import catalogue, rebalance, rebalance_all


class Command(Operation):
    help = "Moves the copies that are misplaced; or, given a file, brings it to its replication factor."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("file_hash", nargs="?", metavar="FILE_HASH", help="without it: the whole cluster")
        parser.add_argument("--replication-factor", type=int, metavar="N", help="the file's new factor, at least 1")

    def plan(self, options: Mapping[str, Any]) -> None:
        file = self._file(options)
        if file is None:
            self._plan_cluster()
        else:
            self._plan_file(file, options["replication_factor"])

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        file = self._file(options)
        return [rebalance_all.request() if file is None else rebalance.request(file, options["replication_factor"])]

    def _file(self, options: Mapping[str, Any]) -> File | None:
        file_hash, replication_factor = options["file_hash"], options["replication_factor"]
        if file_hash is None and replication_factor is not None:
            raise CommandError("--replication-factor is a file's: name one")
        if replication_factor is not None and replication_factor < 1:
            raise CommandError("--replication-factor is at least 1")
        if file_hash is None:
            return None
        try:
            return catalogue.find(nobody(), file_hash)
        except ValidationError as error:
            raise CommandError(f"{file_hash}: {error.message}") from error

    def _plan_cluster(self) -> None:
        plan = rebalance_all.plan()
        rows: list[tuple[object, ...]] = [("node", "holds", "copies in", "", "copies out", "", "will hold")]
        for load in plan.loads:
            moved = (load.copies_in, size(load.bytes_in), load.copies_out, size(load.bytes_out))
            rows.append((load.node_id, size(load.bytes), *moved, size(load.planned)))
        for line in table(rows):
            self.stdout.write(line)
        if not plan.misplaced and not plan.surplus:
            self.stdout.write(f"nothing to move: all {plan.copies} copies are where placement puts them")
            return
        self.stdout.write(f"misplaced: {plan.misplaced} of {plan.copies} copies; to move: {size(plan.bytes)}")
        if plan.surplus:
            self.stdout.write(f"to remove: {plan.surplus} copies too many")
        if plan.largest_z is not None and plan.largest_z_planned is not None:
            self.stdout.write(f"largest z of two nodes: {plan.largest_z:.1f} now, {plan.largest_z_planned:.1f} after")
        else:
            self.stdout.write("largest z of two nodes: not known, because a sketch is missing or too full")

    def _plan_file(self, file: File, replication_factor: int | None) -> None:
        plan = rebalance.plan(file, replication_factor)
        nodes = sorted({*plan.added, *plan.removed})
        if not nodes and not plan.lost:
            self.stdout.write("nothing to do: every chunk has the copies that it should have")
        if nodes:
            rows: list[tuple[object, ...]] = [("node", "copies to add", "", "copies to remove", "")]
            for node_id in nodes:
                added, removed = plan.added.get(node_id, (0, 0)), plan.removed.get(node_id, (0, 0))
                rows.append((node_id, added[0], size(added[1]), removed[0], size(removed[1])))
            for line in table(rows):
                self.stdout.write(line)
        if plan.lost:
            self.stdout.write(f"{plan.lost} chunks have no copy on a node that answers: nothing can be added")
