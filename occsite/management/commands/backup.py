from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from occsite.backup import taking
from occsite.backup.archive import MISSING, Archive
from occsite.backup.progress import Progress
from storage.conf import configuration
from storage.management.operation import OperatorCommand, printable
from storage.plans import size

LONGEST_HOLD = 2 * 24 * 60  # minutes


class Command(OperatorCommand):
    help = (
        "Takes a backup of the running service: the database, the secret, and one copy of each chunk that the folder "
        "does not have yet. Until the end, reclaim is held back."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "target", type=Path, metavar="TARGET", help="the folder of backups; it is made if it is missing"
        )
        parser.add_argument("--dry-run", action="store_true", help="print what would be copied, and change nothing")
        parser.add_argument(
            "--database-only", action="store_true", help="leave the chunks to a tool that copies the nodes' folders"
        )
        parser.add_argument(
            "--hold",
            type=int,
            metavar="MINUTES",
            default=0,
            help="hold reclaim back for so long after the end, until that tool has ended",
        )

    def act(self, options: Mapping[str, Any]) -> None:
        if not 0 <= options["hold"] <= LONGEST_HOLD:
            raise CommandError(f"--hold is from 0 to {LONGEST_HOLD} minutes")
        archive = Archive(options["target"])
        if options["dry_run"]:
            self._print_plan(archive)
            return
        with Progress(self.stdout, "backup") as progress:
            backup = taking.take(
                archive,
                configuration(),
                progress,
                with_chunks=not options["database_only"],
                hold_after=timedelta(minutes=options["hold"]) or None,
            )
        told = backup.description
        self.stdout.write(f"{printable(backup.path)} is complete")
        self.stdout.write(f"  database  {size(told.database_bytes)}")
        copied = "" if told.has_chunks else ", not copied: copy the folders of the nodes with a tool of your own"
        self.stdout.write(f"  chunks    {told.chunks}, {size(told.bytes)}{copied}")
        if backup.secret is None:
            self.stdout.write("  secret    none in STORAGE_DIR: keep SECRET_KEY yourself")
        if told.missing:
            raise CommandError(f"{told.missing} chunks could not be read from any node: see {backup.path / MISSING}")

    def _print_plan(self, archive: Archive) -> None:
        plan = taking.plan(archive)
        self.stdout.write(f"the database takes {size(plan.database_bytes)} on its disk; a dump is smaller")
        self.stdout.write(f"{plan.chunks} chunks, {size(plan.bytes)}, belong to files")
        self.stdout.write(f"{plan.chunks_to_copy} of them, {size(plan.bytes_to_copy)}, would be copied")
