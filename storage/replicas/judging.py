"""Judge suspect copies. Readers only report suspect copies; a worker decides in this module (RACES 16)."""

from __future__ import annotations

import secrets
from enum import Enum, auto

import structlog

from storage import counters
from storage.cluster.topology import Member, Topology
from storage.counters import Event
from storage.exceptions import ReplicaCorrupt, VolumeError
from storage.models import Node
from storage.replicas.finding import read_verified, require_hash
from storage.tracking import batches, counting

log = structlog.get_logger(__name__)


class _Verdict(Enum):
    """What became of a copy that looked bad. GONE means that another process has moved or removed the copy."""

    QUARANTINED = auto()
    GOOD = auto()
    GONE = auto()


def judge(topology: Topology, chunk_hash: str, size: int) -> tuple[list[Member], bytes | None, int]:
    """Read every copy of a chunk, and quarantine the bad copies if there is a good copy.

    Returns:
        The nodes with a good copy, the good bytes if there are any, and how many copies were quarantined.
    """
    good: list[Member] = []
    suspects: list[Member] = []
    data = None
    for member in topology.members:
        try:
            data = member.lane.call(read_verified, member.lane.volume, chunk_hash)
            good.append(member)
        except ReplicaCorrupt:
            suspects.append(member)
        except VolumeError:
            continue
    if not good:
        if suspects:
            # If all copies of a chunk are bad, they stay where they are: a damaged copy may be worth more than none.
            log.error("replica.all_corrupt", chunk=chunk_hash, nodes=[member.node_id for member in suspects])
        return [], None, 0
    quarantined = 0
    for member in suspects:
        try:
            verdict = _quarantine(topology, chunk_hash, size, member)
            if verdict is _Verdict.QUARANTINED:
                quarantined += 1
            elif verdict is _Verdict.GOOD:
                good.append(member)
        except VolumeError as error:
            log.warning("quarantine.failed", chunk=chunk_hash, node=member.node_id, error=str(error))
    return good, data, quarantined


def _quarantine(topology: Topology, chunk_hash: str, size: int, member: Member) -> _Verdict:
    """Move the copy to the quarantine and hash the moved file. If the moved copy is good after all, it goes back to its
    place.
    """
    token = secrets.token_hex(16)
    volume = member.lane.volume
    builds = counting.builds(topology, [member.node_id])
    with batches.batch_in_flight():
        data = member.lane.call(volume.quarantine, chunk_hash, token)
        if data is None:
            return _Verdict.GONE
        try:
            require_hash(data, chunk_hash)
        except ReplicaCorrupt:
            counting.uncount(topology, {member.node_id: [chunk_hash]}, builds)
            Node.tally({member.node_id: (-1, -size)})
            counters.add(Event.CORRUPT_FOUND)
            log.warning("replica.quarantined", chunk=chunk_hash, node=member.node_id)
            return _Verdict.QUARANTINED
        # A rebuild may have listed the node while the copy was away, so the copy is counted once more. The copy is
        # counted even if the register is above zero: the register may count another chunk, which may be removed later.
        counting.count(topology, {member.node_id: [chunk_hash]})
        member.lane.call(volume.acquit, chunk_hash, token)
        return _Verdict.GOOD
