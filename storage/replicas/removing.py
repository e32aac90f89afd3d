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

    This is decided under the chunk's row lock. If something refers to the chunk, at least its target of other copies
    must remain on nodes that count, and these copies are read back now. A chunk without references must be condemned. A
    chunk without a row is left alone: it first has to get a condemned row (RACES 11).

    Returns:
        True if a copy was removed.

    Raises:
        VolumeError: the node failed. It is not known whether the copy was removed, so the copy stays counted.
    """
    # The batch is in flight until the removal is tallied, because a rebuild waits for batches before it compares the
    # tally with its listing. The batch lock is taken before the row lock: a thread that holds a chunk's row must not
    # wait for a batch lock.
    with batches.batch_in_flight():
        size = _remove(topology, chunk_hash, member)
        if size is None:
            return False
        Node.tally({member.node_id: (-1, -size)})
    return True


def _remove(topology: Topology, chunk_hash: str, member: Member) -> int | None:
    """Remove the copy if the chunk can do without it; returns its size in bytes, or None if it was not removed."""
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
    """Unlink the copies that have been in a node's trash for long enough, and put back the copies that are needed.

    The topology is read again for each entry, while its chunk is locked. A pass may take long, and copies may have
    moved to a node that was added during the pass. Without that node in the topology they would seem to be missing.

    Args:
        member: the node.
        older_than: the age in seconds from which entries are purged, by PostgreSQL's clock. File times are not used.
        most: the largest number of entries to purge.

    Returns:
        The number of entries purged, and the bytes freed.

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
            # This comes after the transaction: if the copy cannot be counted, a sketch epoch is raised, and the new
            # epoch must be committed before the copy is back.
            restore(topology, member, trashed, chunk.size)
    return purged, freed


def trash_token() -> str:
    """Make a unique name for a removed copy. The name contains the time of the removal by PostgreSQL's clock."""
    return f"{int(database_time() * 1000):012x}{secrets.token_hex(10)}"


def trashed_at(token: str) -> float:
    """When the copy was removed, in seconds since 1970; infinity, as if just removed, for a token of another form."""
    try:
        return int(token[:12], 16) / 1000
    except ValueError:
        return float("inf")


def database_time() -> float:
    """Seconds since 1970 by PostgreSQL's clock, which trash tokens carry."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        return float(cursor.fetchone()[0])
