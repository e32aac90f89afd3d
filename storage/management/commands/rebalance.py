from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from storage import plans
from storage.management.operation import Operation
from storage.models import Holding, Job, nobody
from storage.plans import Words
from storage.services import catalogue, rebalance, rebalance_all


class Command(Operation):
    help = "Moves the copies that are misplaced; or, given a file, brings it to its replication factor."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("file_hash", nargs="?", metavar="FILE_HASH", help="without it: the whole cluster")
        parser.add_argument("--replication-factor", type=int, metavar="N", help="the file's new factor, at least 1")

    def plan(self, options: Mapping[str, Any]) -> Words:
        file = self._file(options)
        if file is None:
            return plans.of_cluster_rebalance(rebalance_all.plan())
        return plans.of_file_rebalance(rebalance.plan(file, options["replication_factor"]))

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        file = self._file(options)
        return [rebalance_all.request() if file is None else rebalance.request(file, options["replication_factor"])]

    def _file(self, options: Mapping[str, Any]) -> Holding | None:
        file_hash, replication_factor = options["file_hash"], options["replication_factor"]
        if file_hash is None and replication_factor is not None:
            raise CommandError("--replication-factor is a file's: name one")
        if replication_factor is not None and replication_factor < 1:
            raise CommandError("--replication-factor is at least 1")
        if file_hash is None:
            return None
        try:
            return catalogue.find_holding(nobody(), file_hash)
        except ValidationError as error:
            raise CommandError(f"{file_hash}: {error.message}") from error
