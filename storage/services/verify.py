"""What the volumes say about a file, exactly; and the health summaries that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from storage.exceptions import NoSuchFile
from storage.models import Cluster, Content, File, Job
from storage.models.content import Health
from storage.replicas.finding import survey, verified
from storage.topology import Member, Topology

log = structlog.get_logger(__name__)

SURVEY_CHUNKS = 2048
REFRESH_CONTENTS = 200


@dataclass(frozen=True)
class ChunkReport:
    """One place of a manifest."""

    index: int
    chunk_hash: str
    size: int
    nodes: list[str]


@dataclass(frozen=True)
class Report:
    """A file's chunks and how well they are replicated."""

    file: File
    chunks: list[ChunkReport]
    health: Health

    @property
    def missing(self) -> list[str]:
        """Chunks without a copy, each once."""
        return list(dict.fromkeys(chunk.chunk_hash for chunk in self.chunks if not chunk.nodes))


def verify(file: File, *, deep: bool = False) -> Report:
    """Ask every volume for every chunk of a file, and keep the result as the content's health summary.

    Args:
        file: which file.
        deep: read and hash every copy; a bad one counts as none, and a worker judges it.
    """
    topology = Topology.load()
    manifest = file.content.manifest()
    holders = _holders(topology, manifest, deep=deep)
    chunks = [
        ChunkReport(i, chunk_hash, size, [member.node_id for member in holders[chunk_hash]])
        for i, (chunk_hash, size) in enumerate(manifest)
    ]
    health = _health(topology, manifest, holders, file.content.target())
    file.content.record_health(health)
    return Report(file, chunks, health)


def distribution(file: File) -> dict[str, list[str]]:
    """Chunk hash → ids of the nodes that hold it, each chunk once, asked of the volumes (RACES 29)."""
    manifest = file.content.manifest()
    holders = _holders(Topology.load(), manifest, deep=False)
    return {chunk_hash: [member.node_id for member in members] for chunk_hash, members in holders.items()}


def refresh_health(job: Job) -> int:
    """Make summaries exact that are older than the present topology, the worst ones first."""
    epoch = Cluster.load().topology_epoch
    refreshed = 0
    while True:
        stale = Content.objects.filter(state=Content.State.READY, health_epoch__lt=epoch)
        done = sum(_refresh(content) for content in stale.order_by("min_replication", "pk")[:REFRESH_CONTENTS])
        if not done:
            return refreshed
        refreshed += done
        job.progress(done=refreshed)


def _refresh(content: Content) -> bool:
    try:
        manifest = content.manifest()
    except NoSuchFile:
        return False
    topology = Topology.load()
    holders = _holders(topology, manifest, deep=False)
    content.record_health(_health(topology, manifest, holders, content.target()))
    return True


def _holders(topology: Topology, manifest: Sequence[tuple[str, int]], *, deep: bool) -> dict[str, list[Member]]:
    sizes = dict(manifest)
    hashes = list(sizes)
    holders: dict[str, list[Member]] = {}
    for start in range(0, len(hashes), SURVEY_CHUNKS):
        found = survey(topology, {h: sizes[h] for h in hashes[start : start + SURVEY_CHUNKS]}).holders
        if deep:
            found, bad = verified(found)
            for chunk_hash in sorted(bad):
                Job.request(Job.Kind.REPAIR, chunk_hash)
        holders.update(found)
    return holders


def _health(
    topology: Topology, manifest: Sequence[tuple[str, int]], holders: dict[str, list[Member]], target: int
) -> Health:
    counts = [len(holders[chunk_hash]) for chunk_hash, _ in manifest]
    return Health.of(counts, target=target, epoch=topology.cluster.topology_epoch)
