"""The one function that removes replicas: for reclaim, trim and drain alike (RACES 9, 10)."""

from __future__ import annotations

import secrets

import structlog
from django.db import connection, transaction

from storage.cluster.topology import Member, Topology
from storage.models import Chunk, Node
from storage.replicas.finding import ask, verified
from storage.replicas.restoring import is_needed, restore
from storage.tracking import batches, counting

log = structlog.get_logger(__name__)


def remove_replica(topology: Topology, chunk_hash: str, member: Member) -> bool:
    """Move one copy of a chunk into its node's trash, if the chunk can do without it.

    Under the chunk's row lock: a chunk that something refers to keeps at least its target of other copies, read back
    just now, on nodes that count; a chunk without references has no such need. A chunk without a row is left alone:
    it first has to be condemned (RACES 11).

    Returns:
        Whether a copy was removed.

    Raises:
        VolumeError: the node failed; whether the copy went is not known, and its count stays.
    """
    # In flight until it is tallied, so that a rebuild that compares the tally with its listing can wait for that. Taken
    # before the row is locked, as nobody who holds a chunk's row waits for a batch.
    with batches.batch_in_flight():
        size = _remove(topology, chunk_hash, member)
        if size is None:
            return False
        Node.tally({member.node_id: (-1, -size)})
    return True


def _remove(topology: Topology, chunk_hash: str, member: Member) -> int | None:
    """The size of the copy that was removed; None if none was."""
    with transaction.atomic():
        chunk = Chunk.objects.select_for_update().filter(hash=chunk_hash).first()
        if chunk is None:
            return None
        target = Chunk.objects.targets([chunk.pk])[chunk.pk]
        if target:
            holders = ask(topology, {chunk_hash: chunk.size}).holders[chunk_hash]
            others = [m for m in holders if m.counts and m.node_id != member.node_id]
            good, _ = verified({chunk_hash: others})
            if len(good[chunk_hash]) < target:
                return None
        elif chunk.condemned_at is None:
            return None
        builds = counting.builds(topology, [member.node_id])
        if not member.lane.call(member.lane.volume.trash, chunk_hash, trash_token()):
            return None
        counting.uncount(topology, {member.node_id: [chunk_hash]}, builds)
    log.info("replica.removed", chunk=chunk_hash, node=member.node_id, target=target)
    return chunk.size


def purge_trash(member: Member, *, older_than: float, most: int) -> tuple[int, int]:
    """Unlink what has lain in a node's trash for long enough, or put back what turns out to be needed.

    The nodes are read again for each entry, while its chunk is locked. A pass may take long, and copies may have moved
    since it began to a node that has been added since then: without that node they would seem to be missing.

    Args:
        member: whose trash.
        older_than: seconds of PostgreSQL's clock; file times are not looked at.
        most: entries to deal with at most.

    Returns:
        Entries purged and bytes freed.

    Raises:
        VolumeError: the node failed.
    """
    volume = member.lane.volume
    limit = database_time() - older_than
    purged = freed = 0
    for trashed in member.lane.call(lambda: list(volume.trashed())):
        if purged >= most or trashed_at(trashed.token) > limit:
            continue
        with transaction.atomic():
            chunk = Chunk.objects.select_for_update().filter(hash=trashed.chunk_hash).first()
            topology = Topology.load()
            needed = chunk is not None and is_needed(topology, chunk, member.node_id)
            if not needed:
                freed += member.lane.call(volume.purge, trashed)
                purged += 1
        if chunk is not None and needed:
            # After the transaction: an epoch that the count raises must be committed before the copy is back.
            restore(topology, member, trashed, chunk.size)
    return purged, freed


def trash_token() -> str:
    """A unique name for a removed copy that tells when it was removed, by PostgreSQL's clock."""
    return f"{int(database_time() * 1000):012x}{secrets.token_hex(10)}"


def trashed_at(token: str) -> float:
    """When the copy was removed, in seconds since 1970; a token of another form counts as just removed."""
    try:
        return int(token[:12], 16) / 1000
    except ValueError:
        return float("inf")


def database_time() -> float:
    """Seconds since 1970 by PostgreSQL's clock, which trash tokens carry."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        return float(cursor.fetchone()[0])
