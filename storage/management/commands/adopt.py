from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from storage import plans
from storage.management.operation import Operation, printable
from storage.models import Job
from storage.plans import Words
from storage.services import adopt
from storage.services.adopt import Unknown


class Command(Operation):
    help = (
        "Goes on with volumes that were written to under another copy of the database, as after an older backup was "
        "put back. Until then nothing is removed. To go back to the newer database instead, put that in its place."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        unknown = parser.add_mutually_exclusive_group()
        unknown.add_argument(
            "--keep", action="store_true", help="chunks that the database does not know stay on the volumes"
        )
        unknown.add_argument(
            "--condemn", action="store_true", help="chunks that the database does not know go after RECLAIM_GRACE"
        )
        parser.add_argument(
            "--export", type=Path, metavar="FILE", help="first write hash and size of each unknown chunk to a file"
        )

    def act(self, options: Mapping[str, Any]) -> None:
        if not (options["dry_run"] or options["keep"] or options["condemn"]):
            raise CommandError("say --keep or --condemn, or --dry-run to see what there is")
        super().act(options)

    def plan(self, options: Mapping[str, Any]) -> Words:
        return plans.of_adoption(self._export(options["export"]) if options["export"] else adopt.plan())

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        if options["export"]:
            self._export(options["export"])
        return [adopt.request(Unknown.KEEP if options["keep"] else Unknown.CONDEMN)]

    def _export(self, path: Path) -> adopt.Plan:
        """Write the list of unknown chunks to the file ``path``, and then print its length."""
        try:
            with path.open("x") as file:
                found = adopt.plan(lambda chunk_hash, count: print(chunk_hash, count, file=file))
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from error
        self.stdout.write(f"{found.unknown} chunks are listed in {printable(path)}")
        return found
