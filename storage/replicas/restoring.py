"""Bring copies that are needed again back from the trash (RACES 10)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

import structlog
from django.db import transaction

from storage.cluster.topology import Member, Topology
from storage.exceptions import ReplicaCorrupt, VolumeError
from storage.models import Chunk, Node
from storage.replicas.finding import ask, rescue_verified, verified
from storage.tracking import batches, counting
from storage.volumes import Trashed

log = structlog.get_logger(__name__)

Entry: TypeAlias = tuple[Member, Trashed]

LOST_NAMED = 20  # One log line names at most this many lost chunks; `/files` names their files.
PROGRESS_EVERY = 32  # Chunks between two progress reports: to restore them takes far less time than a lease lasts.


def bring_back(
    topology: Topology, chunk_hashes: Collection[str], progress: Callable[[], object] = lambda: None
) -> set[str]:
    """Restore trashed copies of chunks that something refers to and that are short of good copies.

    The trash of every node is listed once. A copy whose bytes in the trash have the wrong hash is not restored. A purge
    of the same entry decides under the same row lock and by the same rule: it spares an entry that is needed here. An
    entry that a purge has unlinked already cannot be restored.

    Args:
        topology: the nodes.
        chunk_hashes: the hashes of the chunks to look for.
        progress: called regularly, so that the caller's lease is extended.

    Returns:
        The hashes of the chunks of which a copy was restored.
    """
    restored = set()
    for number, (chunk_hash, entries) in enumerate(sorted(_trashed(topology, frozenset(chunk_hashes)).items())):
        if number % PROGRESS_EVERY == PROGRESS_EVERY - 1:
            progress()
        if _bring_back(topology, chunk_hash, entries):
            restored.add(chunk_hash)
    return restored


def bring_back_or_tell(
    topology: Topology, chunk_hashes: Sequence[str], progress: Callable[[], object] = lambda: None
) -> tuple[set[str], list[str]]:
    """Restore chunks that no node has a copy of, as in ``bring_back``, and log those that are not in the trash as lost.

    Returns:
        The hashes of the chunks of which a copy was restored, and the hashes of the lost chunks.
    """
    restored = bring_back(topology, chunk_hashes, progress) if chunk_hashes else set[str]()
    lost = [chunk_hash for chunk_hash in chunk_hashes if chunk_hash not in restored]
    if lost:
        log.error("chunks.lost", number=len(lost), chunks=lost[:LOST_NAMED])
    return restored, lost


def _trashed(topology: Topology, chunk_hashes: frozenset[str]) -> dict[str, list[Entry]]:
    """Find the trashed copies of the chunks: chunk hash → one entry per node. Nodes whose copies count come first."""
    copies: dict[str, list[Entry]] = defaultdict(list)
    if not chunk_hashes:
        return copies
    for member in sorted(topology.members, key=lambda member: not member.counts):
        try:
            entries = member.lane.call(_list, member, chunk_hashes)
        except VolumeError:
            continue
        for trashed in entries:
            copies[trashed.chunk_hash].append((member, trashed))
    return copies


def _list(member: Member, chunk_hashes: frozenset[str]) -> Sequence[Trashed]:
    """List the trash of a node, one entry per chunk; runs in the node's lane.

    If the trash has several entries of a chunk, the first one is taken, because ``rescue`` also reads the first one.
    """
    entries: dict[str, Trashed] = {}
    for trashed in member.lane.volume.trashed():
        if trashed.chunk_hash in chunk_hashes:
            entries.setdefault(trashed.chunk_hash, trashed)
    return list(entries.values())


def _bring_back(topology: Topology, chunk_hash: str, entries: Sequence[Entry]) -> bool:
    """Restore as many copies as the chunk is short of; False if it is not short, or no copy could be restored."""
    with transaction.atomic():
        chunk = Chunk.objects.select_for_update().filter(hash=chunk_hash).first()
        short, good = _shortage(topology, chunk) if chunk is not None else (0, [])
    if chunk is None:
        return False
    restored = False
    for member, trashed in entries:
        if short <= 0:
            break
        if member in good:
            continue
        try:
            member.lane.call(rescue_verified, member.lane.volume, chunk_hash)
            # The copy is restored after the transaction: if the copy cannot be counted, a sketch epoch is raised, and
            # the new epoch must be committed before the copy is back.
            back = restore(topology, member, trashed, chunk.size)
        except VolumeError as error:
            event = "replica.not_restored" if isinstance(error, ReplicaCorrupt) else "restore.failed"
            log.warning(event, chunk=chunk_hash, node=member.node_id, error=str(error))
            continue
        restored |= back
        short -= back and member.counts
    return restored


def is_needed(topology: Topology, chunk: Chunk, node_id: str) -> bool:
    """True if the chunk is short of good copies and has none on this node. The caller has locked the chunk's row."""
    short, good = _shortage(topology, chunk)
    return short > 0 and node_id not in [member.node_id for member in good]


def restore(topology: Topology, member: Member, trashed: Trashed, size: int) -> bool:
    """Count a copy and put it back from the trash; False if it is no longer in the trash."""
    with batches.batch_in_flight():
        counting.count(topology, {member.node_id: [trashed.chunk_hash]})
        if not member.lane.call(member.lane.volume.restore, trashed):
            return False
        Node.tally({member.node_id: (1, size)})
    log.warning("replica.restored", chunk=trashed.chunk_hash, node=member.node_id)
    return True


def _shortage(topology: Topology, chunk: Chunk) -> tuple[int, list[Member]]:
    """The number of good copies that a chunk lacks on nodes whose copies count, and all nodes with a good copy."""
    target = Chunk.objects.targets([chunk.pk])[chunk.pk]
    if not target:
        return 0, []
    holders = ask(topology, {chunk.hash: chunk.size}).holders[chunk.hash]
    good = verified({chunk.hash: holders})[0][chunk.hash]
    return target - sum(member.counts for member in good), good
