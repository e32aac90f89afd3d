"""Take a backup while the service runs.

The order matters. Reclaim is held back first, so that every chunk in the dump keeps its copies. Then a snapshot of the
database is dumped, and the chunks that the dump knows are copied. Contents never change, so their chunks may be copied
after the dump. A new generation begins after the snapshot: volumes that are written to from now on are recognised as
newer than the dump.

The phases: ``backup.dump``, ``backup.copy``, ``backup.complete``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from occsite.backup import tools
from occsite.backup.archive import DATABASE, LIST, MISSING, SECRET, Archive, Backup, Description, Place, batches, sha256
from occsite.launch.files import write_private
from occsite.launch.secret import read_secret
from storage import phases
from storage.cluster import generations
from storage.cluster.topology import Topology
from storage.conf import VERSION, Configuration
from storage.exceptions import BackupError, ContentGone, ContentUnavailable
from storage.models import Cluster, Hold, Node
from storage.models.refusals import UNAVAILABLE
from storage.replicas.reading import read, read_ahead
from storage.services import reclaim
from storage.tracking import batches as writing
from storage.tracking import routing

HOLD = timedelta(minutes=10)  # If a backup is killed, reclaim may go on after this time.
BEAT = 60.0  # A running backup puts off the end of its hold once in this many seconds.

# A chunk that is pinned and in no manifest is left out: only an upload in flight needs it, so it may have no copy yet.
CHUNKS = """
    SELECT encode(hash, 'hex'), size FROM storage_chunk c
     WHERE EXISTS (SELECT FROM storage_manifestentry e WHERE e.chunk_id = c.id)
        OR (condemned_at IS NULL AND NOT EXISTS (SELECT FROM storage_pin p WHERE p.chunk_id = c.id))
     ORDER BY hash
"""

Tell = Callable[[int, int], None]
"""A function that is called with the bytes that are done, and with all bytes."""


@dataclass(frozen=True)
class Plan:
    """What a backup would do: chunks and bytes on record, chunks and bytes to copy, the database's size on its disk."""

    chunks: int
    bytes: int
    chunks_to_copy: int
    bytes_to_copy: int
    database_bytes: int


def plan(archive: Archive) -> Plan:
    """Compare the archive with the database. This function changes nothing."""
    chunks = size = chunks_to_copy = bytes_to_copy = 0
    with _snapshot() as (session, _):
        row = session.execute("SELECT pg_database_size(current_database())").fetchone()
        for batch in _portions(session):
            lacking = _lacking(archive, batch)
            chunks, size = chunks + len(batch), size + sum(batch.values())
            chunks_to_copy, bytes_to_copy = chunks_to_copy + len(lacking), bytes_to_copy + sum(lacking.values())
    return Plan(chunks, size, chunks_to_copy, bytes_to_copy, database_bytes=int(row[0]) if row else 0)


def take(
    archive: Archive,
    configuration: Configuration,
    tell: Tell,
    *,
    with_chunks: bool = True,
    hold_after: timedelta | None = None,
) -> Backup:
    """Take a backup. If the call is interrupted, no backup is left, but the next backup need not copy the same chunks
    again.

    Args:
        archive: the directory of backups.
        configuration: the settings of the service.
        tell: is called with the bytes of chunks that are done, and with all bytes.
        with_chunks: False to leave the chunks to the operator's own tools.
        hold_after: how long reclaim is held back after the end of the backup, so that the operator's tools find every
            chunk.

    Raises:
        BackupError: the backup could not be completed.
        ForeignVolume: the archive is that of another cluster.
        ClusterUnavailable: a pass of reclaim does not end.
    """
    if archive.root.resolve().is_relative_to(configuration.storage_dir.resolve()):
        raise BackupError("a backup below STORAGE_DIR would be lost together with it; choose another folder")
    cluster = Cluster.load()
    with archive.opened(str(cluster.uuid)), held_back() as hold:
        draft = archive.begin()
        with _snapshot() as (session, name):
            _begin_generation()
            phases.enter("backup.dump")
            facts = _facts(session)
            tools.dump(draft / DATABASE, name)
            chunks, size = _write_list(session, draft / LIST)
        if secret := read_secret(configuration.storage_dir):
            write_private(draft / SECRET, secret + "\n")
        missing = _copy(archive, draft, size, tell) if with_chunks else []
        phases.enter("backup.complete")
        if not hold.put_off(HOLD):
            raise BackupError("reclaim was not held back all the time, so chunks may be missing: take the backup again")
        description = Description(
            version=VERSION,
            cluster=str(cluster.uuid),
            database_sha256=sha256(draft / DATABASE),
            database_bytes=(draft / DATABASE).stat().st_size,
            chunks=chunks,
            bytes=size,
            has_chunks=with_chunks,
            missing=len(missing),
            **facts,
        )
        if hold_after:
            Hold.begin(hold_after)
        return archive.complete(draft, description)


@contextmanager
def held_back() -> Iterator[Hold]:
    """Hold reclaim back while the ``with`` block runs. The hold may end sooner if PostgreSQL is away for long."""
    hold = reclaim.hold_back(HOLD)
    ended = Event()
    keeper = Thread(target=_keep, args=(hold, ended), name="hold", daemon=True)
    keeper.start()
    try:
        yield hold
    finally:
        ended.set()
        keeper.join()
        with suppress(*UNAVAILABLE):
            Hold.objects.filter(pk=hold.pk).delete()


def _keep(hold: Hold, ended: Event) -> None:
    while not ended.wait(BEAT):
        try:
            if not hold.put_off(HOLD):
                return  # ``take`` notices the end of the hold too, before the backup is complete.
        except UNAVAILABLE:
            pass  # PostgreSQL may be back before the hold is over.
        finally:
            connection.close()


@contextmanager
def _snapshot() -> Iterator[tuple[psycopg.Connection[Any], str]]:
    """A session that sees one state of the database, and the name under which other sessions see the same state."""
    with psycopg.connect(**connection.get_connection_params()) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            session.execute(f"SET LOCAL {name} = 0")  # A dump may take long.
        session.execute("SET LOCAL enable_seqscan = on")
        row = session.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        yield session, str(row[0])


def _begin_generation() -> None:
    """Begin a generation that the snapshot does not know, as soon as earlier batches have ended."""
    writing.wait_for_batches()
    generations.begin(Topology.load())


def _facts(session: psycopg.Connection[Any]) -> dict[str, Any]:
    """What the description of the backup takes from PostgreSQL."""
    row = session.execute("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')").fetchone()
    applied = MigrationRecorder(connection).applied_migrations()
    places = Node.objects.exclude(state=Node.State.RETIRED).values_list("node_id", "url")
    return {
        "taken_at": f"{row[0] if row else ''}Z",
        "migrations": dict(sorted(applied)),  # ``dict`` keeps the last name of each application.
        "nodes": [Place(node_id, url) for node_id, url in places],
    }


def _write_list(session: psycopg.Connection[Any], path: Path) -> tuple[int, int]:
    """Write hash and size of each chunk that the snapshot has; returns their number and their bytes."""
    chunks = size = 0
    with path.open("w") as file:
        for batch in _portions(session):
            file.writelines(f"{chunk_hash} {length}\n" for chunk_hash, length in batch.items())
            chunks, size = chunks + len(batch), size + sum(batch.values())
    return chunks, size


def _portions(session: psycopg.Connection[Any]) -> Iterator[dict[str, int]]:
    with session.cursor("chunks") as cursor:
        cursor.execute(CHUNKS)
        while rows := cursor.fetchmany(2000):
            yield dict(rows)


def _lacking(archive: Archive, batch: Mapping[str, int]) -> dict[str, int]:
    """The chunks of a batch that the archive does not have in their full size."""
    if not (archive.volume.root / "identity").exists():
        return dict(batch)
    sizes = archive.volume.sizes(list(batch))
    return {chunk_hash: size for (chunk_hash, size), found in zip(batch.items(), sizes, strict=True) if found != size}


def _copy(archive: Archive, draft: Path, total: int, tell: Tell) -> list[str]:
    """Copy the chunks that the archive lacks; returns the chunks of which no node has a good copy."""
    missing: list[str] = []
    done = 0
    for batch in batches(draft / LIST):
        phases.enter("backup.copy")
        lacking = _lacking(archive, batch)
        data = _read(lacking)
        archive.volume.write(data)
        missing += [chunk_hash for chunk_hash in lacking if chunk_hash not in data]
        done += sum(batch.values())
        tell(done, total)
    if missing:
        (draft / MISSING).write_text("".join(f"{chunk_hash}\n" for chunk_hash in missing))
    return missing


def _read(sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Read and verify chunks. Chunks that cannot be read are left out."""
    hashes, topology = list(sizes), Topology.recent()
    try:
        chunks = read_ahead(topology, iter(hashes), max(sizes.values(), default=1), 1)
        return dict(zip(hashes, chunks, strict=True))
    except (ContentGone, ContentUnavailable):
        found = {}
        for chunk_hash, route in zip(hashes, routing.locate(topology, hashes), strict=True):
            with suppress(ContentGone, ContentUnavailable):
                found[chunk_hash] = read(topology, chunk_hash, route)
        return found
