from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from occsite.backup import restoring
from occsite.backup.archive import Archive, Backup
from occsite.backup.progress import Progress
from occsite.launch.state import restoring_marker
from storage.conf import configuration
from storage.exceptions import BackupError
from storage.management.operation import OperatorCommand, printable
from storage.plans import size
from storage.volumes import addresses


class Command(OperatorCommand):
    silenced = logging.CRITICAL
    help = (
        "Restores a backup while the service is stopped: the database, the secret, and the chunks of which no node has "
        "a copy. Nothing on the volumes is removed. An interrupted restore is run again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", type=Path, metavar="SOURCE", help="the folder of backups")
        parser.add_argument("--backup", metavar="NAME", help="a backup in the folder; by default the last one")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--list", action="store_true", help="list the backups in the folder")
        how.add_argument("--check", action="store_true", help="read the whole backup, and change nothing")
        how.add_argument("--dry-run", action="store_true", help="print what would be done, and change nothing")
        parser.add_argument("--replace", action="store_true", help="replace the database that is there")
        parser.add_argument(
            "--make-volumes",
            action="store_true",
            help="make missing volumes on other disks too, not only those below STORAGE_DIR",
        )

    def act(self, options: Mapping[str, Any]) -> None:
        archive = Archive(options["source"])
        if options["list"]:
            self._list(archive)
            return
        backup = archive.find(options["backup"])
        if options["check"]:
            self._check(archive, backup)
        elif options["dry_run"]:
            self._print_plan(backup)
        else:
            self._restore(archive, backup, options)

    def _list(self, archive: Archive) -> None:
        for name in archive.names():
            try:
                told = archive.find(name).description
            except BackupError as error:
                self.stdout.write(f"{name}  unreadable: {printable(error)}")
                continue
            chunks = f"{told.chunks} chunks, {size(told.bytes)}" if told.has_chunks else "the database only"
            self.stdout.write(f"{name}  version {told.version}  {chunks}{', incomplete' * bool(told.missing)}")

    def _check(self, archive: Archive, backup: Backup) -> None:
        with Progress(self.stdout, "check") as progress:
            bad = restoring.check(archive, backup, progress)
        if len(bad) > backup.description.missing:
            raise CommandError(f"{len(bad)} chunks of {backup.name} are missing or damaged; the first is {bad[0]}")
        told = backup.description
        chunks = f" and {told.chunks - len(bad)} chunks" if told.has_chunks else "; chunks were not copied"
        self.stdout.write(f"{backup.name} is whole: the database{chunks}")

    def _print_plan(self, backup: Backup) -> None:
        conf, told = configuration(), backup.description
        into = "the database of DATABASE_URL" if conf.database_url else f"{conf.storage_dir / 'postgres'}"
        self.stdout.write(f"{backup.name}, taken at {told.taken_at}, would be restored into {into}")
        if restoring_marker(conf.storage_dir).exists():
            self.stdout.write("an interrupted restore would be ended")
        elif not conf.database_url and (conf.storage_dir / "postgres").exists():
            self.stdout.write("the database there would be kept under another name; this needs --replace")
        for place in told.nodes:
            there = (addresses.path_of(addresses.absolute(place.url, conf.nodes_dir)) / "identity").exists()
            outside = not addresses.is_relative(place.url)
            words = "on another disk" if outside else "its volume is there" if there else "its volume would be made"
            self.stdout.write(f"{place.node_id}  {place.url}  {words}")

    def _restore(self, archive: Archive, backup: Backup, options: Mapping[str, Any]) -> None:
        with Progress(self.stdout, "restore") as progress:
            result = restoring.restore(
                archive,
                backup,
                configuration(),
                progress,
                replace=options["replace"],
                make_volumes=options["make_volumes"],
            )
        self.stdout.write(f"{backup.name}, taken at {backup.description.taken_at}, is restored")
        self.stdout.write(f"  chunks that no node had  {result.copied}, {size(result.bytes)}")
        if result.made:
            self.stdout.write(f"  volumes made             {', '.join(result.made)}")
        if result.kept:
            self.stdout.write(f"  the former database      {result.kept}")
        for node_id, reason in result.away.items():
            self.stdout.write(f"{node_id} is away: {reason}")
        if result.foreign:
            self.stdout.write(
                f"{', '.join(result.foreign)} may hold files that are newer than the backup. Nothing is removed until "
                "`manage.py adopt` decides: start the service, and see `manage.py adopt --dry-run`"
            )
        lost = len(result.missing) + result.unplaced
        if lost:
            raise CommandError(f"{lost} chunks have no copy: they are not in the backup, or no node took them")
