"""Ask the volumes exactly where the chunks of a content lie, and keep the answers as health summaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from storage.cluster.topology import Member, Topology
from storage.models import Cluster, Content, Holding, Job, ManifestEntry
from storage.models.content import Health
from storage.replicas.finding import ASKED_CHUNKS, ask, health_of, holders_of, verified
from storage.replicas.restoring import bring_back

log = structlog.get_logger(__name__)

REFRESH_CONTENTS = 500
MISSING_REPORTED = 100  # One verify queues the repair of at most this many missing chunks.


@dataclass(frozen=True)
class ChunkReport:
    """One position of a manifest, and the nodes that hold its chunk."""

    index: int
    chunk_hash: str
    size: int
    nodes: list[str]


@dataclass(frozen=True)
class Report:
    """The chunks of a content and how well they are replicated."""

    held: Holding
    chunks: list[ChunkReport]
    health: Health

    @property
    def missing(self) -> list[str]:
        """The hashes of the chunks without a copy, each once."""
        return list(dict.fromkeys(chunk.chunk_hash for chunk in self.chunks if not chunk.nodes))


def verify(held: Holding, *, deep: bool = False) -> Report:
    """Ask every volume for every chunk of a content, and keep the result as its health summary.

    Args:
        held: the content, as an owner has it.
        deep: True to read and hash every copy. A bad copy is not counted, and a worker judges it.
    """
    topology = Topology.load()
    content = held.content
    manifest = content.manifest()
    holders = holders_of(topology, manifest)
    if deep:
        holders = _verified(holders)
    chunks = [
        ChunkReport(i, chunk_hash, size, [member.node_id for member in holders[chunk_hash]])
        for i, (chunk_hash, size) in enumerate(manifest)
    ]
    health = health_of(topology, manifest, holders, content.target)
    content.record_health(health)
    report = Report(held, chunks, health)
    for chunk_hash in report.missing[:MISSING_REPORTED]:
        Job.request(Job.Kind.REPAIR, chunk_hash)  # The repair also looks into the trash.
    return report


def distribution(content: Content) -> dict[str, list[str]]:
    """Ask the volumes where the chunks of a content lie: chunk hash → ids of the nodes that hold it (RACES 29)."""
    topology, count = Topology.load(), content.chunk_count
    where: dict[str, list[str]] = {}
    lists: dict[tuple[str, ...], list[str]] = {}  # Chunks on the same nodes share one list.
    for start in range(0, count, ASKED_CHUNKS):
        manifest = content.manifest(range(start, min(start + ASKED_CHUNKS, count)))
        for chunk_hash, members in ask(topology, dict(manifest)).holders.items():
            node_ids = tuple(member.node_id for member in members)
            where[chunk_hash] = lists.setdefault(node_ids, list(node_ids))
    return where


def refresh_health(job: Job) -> int:
    """Ask the volumes again about contents whose summaries are older than the present topology, the worst first.

    Returns how many summaries were made.
    """
    epoch = Cluster.load().topology_epoch
    refreshed = 0
    while True:
        done = 0
        for together in _groups(Content.objects.outdated(epoch, REFRESH_CONTENTS)):
            done += _refresh(job, together)
            job.progress(done=refreshed + done)
        if not done:
            return refreshed
        refreshed += done


def _groups(contents: Sequence[Content]) -> Iterator[list[Content]]:
    """Group contents so that each group's chunks fit one request to the volumes; a larger content is a group alone."""
    group: list[Content] = []
    for content in contents:
        if group and sum(one.chunk_count for one in group) + content.chunk_count > ASKED_CHUNKS:
            yield group
            group = []
        group.append(content)
    if group:
        yield group


def _refresh(job: Job, contents: Sequence[Content]) -> int:
    manifests = ManifestEntry.of(contents)
    topology = Topology.load()
    sizes = {chunk_hash: size for manifest in manifests.values() for chunk_hash, size in manifest}
    holders = holders_of(topology, list(sizes.items()))
    # A chunk in the trash is not lost. So the trash is searched before a content is called unretrievable.
    missing = [chunk_hash for chunk_hash, members in holders.items() if not members]
    if restored := bring_back(topology, missing, job.progress):
        holders |= holders_of(topology, [(chunk_hash, sizes[chunk_hash]) for chunk_hash in restored])
    # A content that was just deleted has no manifest any more, and gets no summary.
    whole = [content for content in contents if len(manifests[content.pk]) == content.chunk_count]
    for content in whole:
        content.record_health(health_of(topology, manifests[content.pk], holders, content.target))
    return len(whole)


def _verified(holders: dict[str, list[Member]]) -> dict[str, list[Member]]:
    """Read all copies and return the good copies. A worker judges the bad copies."""
    good, bad = verified(holders)
    for chunk_hash in sorted(bad):
        Job.request(Job.Kind.REPAIR, chunk_hash)
    return good
