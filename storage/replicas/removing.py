"""Remove replicas, with one function for reclaim, trim and drain alike; and purge the trash (RACES 9, 10)."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence

import structlog
from django.db import connection, transaction

from storage.cluster.topology import Member, Topology
from storage.exceptions import VolumeError
from storage.models import Chunk, Node
from storage.replicas.finding import ask, verified
from storage.replicas.restoring import is_needed, restore
from storage.tracking import batches, counting
from storage.volumes import Trashed

log = structlog.get_logger(__name__)

PURGED_AT_ONCE = 256


def remove_replicas(topology: Topology, copies: Mapping[str, Sequence[Member]]) -> int:
    """Move copies of chunks into the trash of their nodes, if the chunks can do without these copies.

    The function decides while it holds the locks of the chunks' rows. If something refers to a chunk, other copies, at
    least as many as its target, must remain on nodes whose copies count, and this function reads these copies back. A
    chunk without references must be condemned. A chunk without a row is left alone: it first has to get a condemned row
    (RACES 11).

    If a node fails, it is not known whether a copy was removed. A copy that may have been removed stays counted.

    Args:
        topology: the nodes.
        copies: chunk hash → the nodes to remove a copy from. The rows of all these chunks are locked at once, and an
            upload that has one of the chunks waits: a caller that removes many copies does so in several calls.

    Returns:
        The number of copies removed.
    """
    # The batch is in flight until the removals are tallied, because a rebuild waits for batches before it compares the
    # tally with its listing. The batch lock is taken before the row locks: a thread that holds a chunk's row must not
    # wait for a batch lock.
    with batches.batch_in_flight():
        removed = _remove(topology, copies)
        Node.tally({node_id: (-len(sizes), -sum(sizes.values())) for node_id, sizes in removed.items()})
    return sum(map(len, removed.values()))


def _remove(topology: Topology, copies: Mapping[str, Sequence[Member]]) -> dict[str, dict[str, int]]:
    """Remove the copies that their chunks can do without; returns node id → the size of each removed chunk in bytes."""
    with transaction.atomic():
        # The rows are locked in the order of their hashes, as uploads lock them (RACES 6).
        chunks = list(Chunk.objects.select_for_update().filter(hash__in=list(copies)).order_by("hash"))
        spare = _spare(topology, chunks, copies)
        node_ids = {member.node_id for chunk in spare for member in copies[chunk.hash]}
        builds = counting.builds(topology, sorted(node_ids)) if node_ids else {}
        removed = _trash(spare, copies)
        if removed:
            counting.uncount(topology, {node_id: list(sizes) for node_id, sizes in removed.items()}, builds)
    return removed


def _spare(topology: Topology, chunks: Sequence[Chunk], copies: Mapping[str, Sequence[Member]]) -> list[Chunk]:
    """Return the chunks that can do without the copies. The caller has locked the rows of the chunks."""
    targets = Chunk.objects.targets([chunk.pk for chunk in chunks])
    in_use = {chunk.hash: chunk.size for chunk in chunks if targets[chunk.pk]}
    others = {}
    if in_use:
        for chunk_hash, holders in ask(topology, in_use).holders.items():
            leaving = {member.node_id for member in copies[chunk_hash]}
            others[chunk_hash] = [m for m in holders if m.counts and m.node_id not in leaving]
    good, _ = verified(others)

    def is_spare(chunk: Chunk) -> bool:
        target = targets[chunk.pk]
        return len(good[chunk.hash]) >= target if target else chunk.condemned_at is not None

    return [chunk for chunk in chunks if is_spare(chunk)]


def _trash(chunks: Sequence[Chunk], copies: Mapping[str, Sequence[Member]]) -> dict[str, dict[str, int]]:
    """Rename the copies into the trash, on all nodes at once; returns node id → the size of each chunk in bytes."""
    token, calls = trash_token(), []
    removed: dict[str, dict[str, int]] = defaultdict(dict)
    for chunk in chunks:
        for member in copies[chunk.hash]:
            try:
                calls.append((chunk, member, member.lane.submit(member.lane.volume.trash, chunk.hash, token)))
            except VolumeError as error:
                log.warning("removal.failed", chunk=chunk.hash, node=member.node_id, error=str(error))
    for chunk, member, future in calls:
        try:
            is_removed = member.lane.result(future)
        except VolumeError as error:
            log.warning("removal.failed", chunk=chunk.hash, node=member.node_id, error=str(error))
            continue
        if is_removed:
            removed[member.node_id][chunk.hash] = chunk.size
            log.info("replica.removed", chunk=chunk.hash, node=member.node_id)
    return dict(removed)


def purge_trash(member: Member, *, older_than: float, most: int) -> tuple[int, int]:
    """Unlink the copies that have been in a node's trash for long enough, and put back the copies that are needed.

    Args:
        member: the node.
        older_than: the age in seconds from which entries are purged, by PostgreSQL's clock. File times are not used.
        most: the largest number of entries to look at.

    Returns:
        The number of entries purged, and the bytes freed.

    Raises:
        VolumeError: the node failed.
    """
    limit = database_time() - older_than
    entries = member.lane.call(lambda: list(member.lane.volume.trashed()))
    due = [trashed for trashed in entries if trashed_at(trashed.token) <= limit][:most]
    purged = freed = 0
    for start in range(0, len(due), PURGED_AT_ONCE):
        batch = due[start : start + PURGED_AT_ONCE]
        hashes = [trashed.chunk_hash for trashed in batch]
        known = set(Chunk.objects.filter(hash__in=hashes).values_list("hash", flat=True))
        # Chunks that PostgreSQL does not know have no row that could be locked, and nothing refers to them. If a chunk
        # without a row is uploaded now, the upload writes all copies of the chunk: copies in the trash never count for
        # an upload.
        unlinked = _unlink(member, [trashed for trashed in batch if trashed.chunk_hash not in known])
        unlinked += [
            size for t in batch if t.chunk_hash in known and (size := _purge_or_restore(member, t)) is not None
        ]
        purged, freed = purged + len(unlinked), freed + sum(unlinked)
    return purged, freed


def _unlink(member: Member, entries: Sequence[Trashed]) -> list[int]:
    """Unlink entries of the trash; returns the bytes that each entry frees."""
    calls = [member.lane.submit(member.lane.volume.purge, trashed) for trashed in entries]
    return [member.lane.result(call) for call in calls]


def _purge_or_restore(member: Member, trashed: Trashed) -> int | None:
    """Unlink one entry, and return the bytes freed; or put the copy back if its chunk needs it, and return None.

    The topology is read again for each entry, while its chunk is locked. A pass may take long, and copies may have
    moved to a node that was added during the pass. Without the new node in the topology, copies on it would seem to be
    missing.
    """
    with transaction.atomic():
        chunk = Chunk.objects.select_for_update().filter(hash=trashed.chunk_hash).first()
        topology = Topology.load()
        if chunk is None or not is_needed(topology, chunk, member.node_id):
            return member.lane.call(member.lane.volume.purge, trashed)
    # The copy is restored after the transaction: if the copy cannot be counted, a sketch epoch is raised, and the new
    # epoch must be committed before the copy is back.
    restore(topology, member, trashed, chunk.size)
    return None


def trash_token() -> str:
    """Make a unique name for a removed copy. The name contains the time of the removal by PostgreSQL's clock."""
    return f"{int(database_time() * 1000):012x}{secrets.token_hex(10)}"


def trashed_at(token: str) -> float:
    """When the copy was removed, in seconds since 1970. A token of another form counts as just made: the result is
    infinity.
    """
    try:
        return int(token[:12], 16) / 1000
    except ValueError:
        return float("inf")


def database_time() -> float:
    """Seconds since 1970 by PostgreSQL's clock, which trash tokens carry."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        return float(cursor.fetchone()[0])
