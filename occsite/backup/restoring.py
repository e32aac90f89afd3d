"""Restore a backup while the service is stopped.

A marker in the state directory keeps the service from a start on half a database. A restore that was interrupted is run
again: it loads the database once more and copies only the chunks that are not on a node yet.

The volumes may be empty, or those of the lost database, or newer than the backup. Nothing on the volumes is removed.
Chunks that the restored database does not know stay until the operator adopts the volumes (ADR 18).

The phases: ``restore.database``, ``restore.copy``, and those of ``storage.replicas.writing`` with the prefix
``restore``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from occsite.backup import tools
from occsite.backup.archive import Archive, Backup
from occsite.backup.server import embedded_postgres
from occsite.backup.taking import Tell
from occsite.launch.files import sync_directory, write_private
from occsite.launch.secret import read_secret
from occsite.launch.state import lock_state, make_state_dir, restoring_marker
from occsite.signature import COMMAND, Signature
from storage import phases
from storage.cluster import generations, topology
from storage.cluster.topology import Topology
from storage.conf import Configuration
from storage.exceptions import BackupError, VolumeError
from storage.models import Chunk, Cluster, Hold, Node
from storage.models.cluster import draw_seed
from storage.replicas.finding import ask, has_hash
from storage.replicas.writing import store
from storage.services import probe
from storage.volumes import addresses, open_volume


@dataclass
class Result:
    """What a restore did.

    Attributes:
        made: ids of the nodes whose volumes were made.
        away: node id → why the volume of the node cannot be used.
        copied: chunks of which no node had a copy, and which were written.
        bytes: the size of the copied chunks.
        unplaced: chunks that no node has taken.
        missing: chunks of which neither a node nor the backup has a good copy.
        foreign: ids of the nodes that were written to after the backup was taken, or under another database.
        kept: the directory of the former embedded database; None if there was none.
    """

    made: list[str] = field(default_factory=list)
    away: dict[str, str] = field(default_factory=dict)
    copied: int = 0
    bytes: int = 0
    unplaced: int = 0
    missing: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    kept: Path | None = None


def check(archive: Archive, backup: Backup, tell: Tell) -> list[str]:
    """Read a whole backup. This function changes nothing, and asks no server.

    Returns:
        The hashes of the chunks that are missing or damaged.

    Raises:
        BackupError: the dump is damaged.
    """
    backup.check_database()
    tools.check(backup.database)
    bad: list[str] = []
    done = 0
    for batch in backup.batches() if backup.description.has_chunks else ():
        good = _good(archive, batch)
        bad += [chunk_hash for chunk_hash in batch if chunk_hash not in good]
        done += sum(batch.values())
        tell(done, backup.description.bytes)
    return bad


def restore(
    archive: Archive, backup: Backup, configuration: Configuration, tell: Tell, *, replace: bool, make_volumes: bool
) -> Result:
    """Restore a backup into this installation, whose programs are stopped.

    Args:
        archive: the directory of backups.
        backup: the backup.
        configuration: the settings of the service.
        tell: is called with the bytes of chunks that are done, and with all bytes.
        replace: True if an existing database may be replaced.
        make_volumes: True to make missing volumes outside STORAGE_DIR too. If False, missing volumes outside
            STORAGE_DIR count as disks that are not mounted.

    Raises:
        BackupError: the backup is damaged or newer than this program, or a database exists and ``replace`` is false.
        ConfigurationError: the service runs, or the embedded server does not start.
    """
    backup.check_database()
    _require_known_migrations(backup)
    storage_dir = configuration.storage_dir
    os.umask(0o077)
    make_state_dir(storage_dir)
    result = Result()
    with lock_state(storage_dir):
        if not configuration.database_url:
            result.kept = _set_former_database_aside(storage_dir, backup, replace)
        with nullcontext() if configuration.database_url else embedded_postgres(storage_dir):
            if configuration.database_url:
                _require_vacant_database(replace or restoring_marker(storage_dir).exists())
                _mark(storage_dir, backup, had_database=False)
                _put_secret(storage_dir, backup)
            phases.enter("restore.database")
            _load_database(backup)
            _make_volumes(result, make_volumes)
            probe.probe()
            _copy(archive, backup, result, tell)
            members = generations.look(Topology.load().members)
            result.foreign = [member.node_id for member in generations.strangers(members)]
        shutil.rmtree(storage_dir / "valkey", ignore_errors=True)
        restoring_marker(storage_dir).unlink()
        sync_directory(storage_dir)
    return result


# -- the database ------------------------------------------------------------


def _require_known_migrations(backup: Backup) -> None:
    known = MigrationLoader(None).disk_migrations
    for application, name in backup.description.migrations.items():
        if (application, name) not in known and any(app == application for app, _ in known):
            raise BackupError(
                f"the backup is of version {backup.description.version}, which is newer: its database has "
                f"{application} {name}"
            )


def _set_former_database_aside(storage_dir: Path, backup: Backup, replace: bool) -> Path | None:
    """Rename the directory of an embedded database, and keep its secret: the operator may go back to this database.

    When the restore is run again after a crash, the marker says whether the former database was renamed.
    """
    folder, marker = storage_dir / "postgres", restoring_marker(storage_dir)
    if not marker.exists():
        if folder.exists() and not replace:
            raise BackupError(
                f"{storage_dir} holds a database: choose another STORAGE_DIR, or say --replace; the database is then "
                "kept under another name, and nothing on the volumes is removed"
            )
        _mark(storage_dir, backup, had_database=folder.exists())
    mark = json.loads(marker.read_text())
    kept = storage_dir / f"postgres.before-{mark['begun']}"
    if mark["had_database"] and not kept.exists():
        old = storage_dir / f"secret.before-{mark['begun']}"
        if (secret := read_secret(storage_dir)) and not old.exists():
            _write(old, secret + "\n")
        # The sweep would remove the bodies of uploads that the restored database does not know.
        staging = storage_dir / "staging"
        if staging.is_dir() and any(staging.iterdir()):
            staging.rename(storage_dir / f"staging.before-{mark['begun']}")
        folder.rename(kept)
        sync_directory(storage_dir)
    elif folder.exists():
        shutil.rmtree(folder)  # An interrupted restore has left this directory.
    _put_secret(storage_dir, backup)
    return kept if mark["had_database"] else None


def _mark(storage_dir: Path, backup: Backup, *, had_database: bool) -> None:
    begun = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    text = json.dumps({"backup": backup.name, "begun": begun, "had_database": had_database})
    _write(restoring_marker(storage_dir), text)


def _write(path: Path, text: str) -> None:
    """Write a private file, which is there whole or not at all, and survives a power cut."""
    draft = path.with_name(f"{path.name}.new")
    write_private(draft, text)
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)


def _put_secret(storage_dir: Path, backup: Backup) -> None:
    """Put the secret of the backup in its place: the secrets of keys in the dump are encrypted under it."""
    secret = backup.secret
    if secret is not None and secret != read_secret(storage_dir):
        _write(storage_dir / "secret", secret + "\n")


def _require_vacant_database(replace: bool) -> None:
    """Make sure that no program uses the database that DATABASE_URL names, and that the database may be replaced."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()")
        running = sorted({s.program for (name,) in cursor.fetchall() if (s := Signature.parse(name))} - {COMMAND})
        if running:
            raise BackupError(f"the service runs: stop {', '.join(running)} first")
        cursor.execute("SELECT to_regclass('storage_cluster') IS NOT NULL")
        if cursor.fetchone()[0] and not replace:
            raise BackupError("DATABASE_URL names a database with a cluster: name an empty one, or say --replace")


def _load_database(backup: Backup) -> None:
    connection.close()  # The schema cannot be dropped while a transaction of this process reads it.
    tools.load(backup.database)
    call_command("migrate", interactive=False, verbosity=0)
    Hold.objects.all().delete()  # The dump has the hold of the backup that made it.
    # No sketch that Redis may still have fits the new seed, so all sketches count as missing from now on, and are
    # rebuilt.
    Cluster.objects.update(sketch_seed=draw_seed())
    Cluster.bump_topology()
    topology.forget()


# -- the volumes ---------------------------------------------------------------


def _make_volumes(result: Result, everywhere: bool) -> None:
    """Make volumes that are missing; outside STORAGE_DIR only with ``everywhere``, as a disk may not be mounted now."""
    cluster = Cluster.load()
    for node in Node.objects.filter(state__in=(Node.State.ACTIVE, Node.State.DRAINING)):
        identity = topology.identity_of(cluster, node)
        volume = open_volume(topology.absolute_url(node), identity)
        try:
            if volume.identity().same_volume(identity):
                continue
            result.away[node.node_id] = (
                f"the volume at {topology.absolute_url(node)} is that of another node or cluster"
            )
            continue
        except VolumeError as error:
            reason = str(error)
        if not addresses.is_relative(node.url) and not everywhere:
            result.away[node.node_id] = f"{reason}; mount its disk, or say --make-volumes for an empty disk"
            continue
        try:
            volume.create(identity)
            result.made.append(node.node_id)
        except VolumeError as error:
            result.away[node.node_id] = str(error)


def _copy(archive: Archive, backup: Backup, result: Result, tell: Tell) -> None:
    """Write the chunks of which no node has a copy. A repair makes the copies that other chunks lack."""
    done = 0
    for batch in backup.batches():
        phases.enter("restore.copy")
        members = Topology.load()
        holders = ask(members, batch).holders
        absent = {chunk_hash: size for chunk_hash, size in batch.items() if not holders[chunk_hash]}
        data = _good(archive, absent) if backup.description.has_chunks else {}
        result.missing += [chunk_hash for chunk_hash in absent if chunk_hash not in data]
        if data:
            stored = store(members, data, _targets(data), operation="restore")
            result.copied += len(data)
            result.bytes += sum(map(len, data.values()))
            result.unplaced += sum(not stored.holders[chunk_hash] for chunk_hash in data)
        done += sum(batch.values())
        tell(done, backup.description.bytes)


def _targets(hashes: Mapping[str, bytes]) -> dict[str, int]:
    """The copies that each chunk should have; one for a chunk that no file needs, such as an adopted orphan."""
    rows = dict(Chunk.objects.filter(hash__in=list(hashes)).values_list("hash", "pk"))
    targets = Chunk.objects.targets(rows.values())
    return {chunk_hash: max(1, targets.get(rows.get(chunk_hash, 0), 0)) for chunk_hash in hashes}


def _good(archive: Archive, batch: Mapping[str, int]) -> dict[str, bytes]:
    """The chunks that the archive has whole: hash → bytes."""
    found = {}
    for chunk_hash in batch:
        try:
            data = archive.volume.read(chunk_hash, uncached=True)
        except VolumeError:
            continue
        if has_hash(data, chunk_hash):
            found[chunk_hash] = data
    return found
