"""Adopt volumes that were written to under another copy of the database, for example after a restore of an older
backup.

Until the operator has decided what happens to the copies that this database does not know, nothing is condemned and
nothing is reclaimed (RACES 12). These unknown copies may belong to files that were acknowledged under the other
database, which can still be restored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog

from storage.cluster import generations
from storage.cluster.topology import Topology
from storage.jobs import maintenance
from storage.models import Chunk, Cluster, Job
from storage.replicas import census, moving
from storage.replicas.census import Census

log = structlog.get_logger(__name__)


class Unknown(StrEnum):
    """The operator's decision about the chunks that the database does not know."""

    KEEP = "keep"  # The copies stay. A later database, or an upload of the same bytes, can use them.
    CONDEMN = "condemn"  # The copies of these chunks are removed when RECLAIM_GRACE is over.


@dataclass
class Plan:
    """The differences between the database and the volumes.

    Attributes:
        foreign: ids of the nodes that were written to under another database.
        silent: ids of the nodes that do not answer. Chunks that only silent nodes hold are not counted here.
        unknown: number of chunks that the database does not know.
        unknown_bytes: the size of the unknown chunks, one copy of each.
        kept: number of chunks that an earlier adoption kept and that nothing refers to.
        lost: number of chunks that files need and that no answering node holds.
        short: number of chunks that files need and that have some copies, but fewer than their targets.
    """

    foreign: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    unknown: int = 0
    unknown_bytes: int = 0
    kept: int = 0
    lost: int = 0
    short: int = 0


def plan(tell: Callable[[str, int], None] = lambda _hash, _size: None) -> Plan:
    """List all nodes and compare them with the database. This function changes nothing.

    Args:
        tell: a function that is called with the hash and the size in bytes of each chunk that the database does not
            know.
    """
    topology = Topology.load()
    differences = Plan(foreign=[m.node_id for m in generations.strangers(generations.look(topology.members))])
    silent: set[str] = set()
    for listing in _ranges(topology):
        silent |= {member.node_id for member in listing.silent}
        sizes = _sizes(listing)
        for chunk_hash, size in sorted(sizes.items()):
            tell(chunk_hash, size)
        differences.unknown += len(sizes)
        differences.unknown_bytes += sum(sizes.values())
        wanted = [entry for entry in listing.entries.values() if entry.target]
        differences.lost += sum(not entry.holders for entry in wanted)
        differences.short += sum(bool(entry.short and entry.holders) for entry in wanted)
        differences.kept += Chunk.objects.kept(listing.prefix).count()
    differences.silent = sorted(silent)
    return differences


def request(unknown: Unknown) -> Job:
    """Queue the adoption of the volumes by this database."""
    return maintenance.ensure(Job.Kind.ADOPT, str(unknown))


def adopt(job: Job) -> dict[str, Any]:
    """Carry out an adoption job, whose subject is a value of ``Unknown``.

    A node that does not answer is not adopted. When such a node is back, the operator has to ask for an adoption again.

    Returns:
        The ids of the nodes ``adopted`` and of the ``silent`` nodes; the number of chunks that were ``unknown``; and
        the number of chunks that are ``short`` of copies, including chunks without any copy.

    Raises:
        LeaseLost: the job is another worker's, or was cancelled.
        TurnEnded: more urgent work waits.
    """
    result: dict[str, Any] = {"silent": [], "unknown": 0, "short": 0} | (job.result or {})
    job.result = result
    prefixes = census.prefixes(Topology.load(), job.total)
    for step in job.steps(len(prefixes)):
        listing = census.take(Topology.load(), prefixes[step])
        result["silent"] = sorted({*result["silent"], *(member.node_id for member in listing.silent)})
        result["unknown"] += _decide(Unknown(str(job.subject)), listing)
        if short := [chunk_hash for chunk_hash, entry in listing.entries.items() if entry.short]:
            result["short"] += len(short)
            moving.outdate_health(short)
    topology = Topology.load()
    listed = [member for member in topology.members if member.node_id not in result["silent"]]
    # The volumes get this database's generation last. If this attempt ends earlier, the next attempt and the other
    # database still find the old generations.
    result["adopted"] = generations.adopt(topology, listed)
    Cluster.bump_topology()
    log.warning("database.adopted", job=str(job.pk), unknown_chunks=job.subject, **result)
    return result


def _decide(unknown: Unknown, listing: Census) -> int:
    """Keep or condemn the orphans of one range of hashes; returns the number of orphans."""
    sizes = _sizes(listing)
    if unknown is Unknown.KEEP:
        Chunk.objects.keep_orphans(sizes)
    else:
        Chunk.objects.condemn_orphans(sizes)
        Chunk.objects.condemn_kept(listing.prefix)
    return len(sizes)


def _ranges(topology: Topology) -> Iterator[Census]:
    for prefix in census.prefixes(topology):
        yield census.take(topology, prefix)


def _sizes(listing: Census) -> dict[str, int]:
    """The sizes of the orphans of a range: chunk hash → size in bytes that most of its copies have."""
    return {
        chunk_hash: Counter(size for _, size in copies).most_common(1)[0][0]
        for chunk_hash, copies in listing.orphans.items()
    }
