"""One batch of chunks: pin them, store them on the nodes, record them, and close the uploads that are then complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from django.db import transaction

from storage import phases
from storage.cluster.placement import acknowledgeable
from storage.cluster.topology import Topology
from storage.exceptions import IngestFailed, LeaseLost, TooFewReplicas
from storage.jobs import wakeups
from storage.models import Chunk, Content, Job, ManifestEntry, Upload
from storage.replicas.writing import Stored, store
from storage.services.ingest.work import Piece, Work, sparing_others, works_of
from storage.staging import files

log = structlog.get_logger(__name__)


def store_batch(batch: Sequence[Piece]) -> None:
    phases.enter("ingest.pin")
    data = {piece.chunk_hash: piece.data for piece in batch}
    wanted = {(p.work.upload.pk, p.chunk_hash): p.work.upload.replication_factor for p in batch}
    ids = Upload.objects.pin(wanted, {chunk_hash: len(chunk) for chunk_hash, chunk in data.items()})
    data = {chunk_hash: chunk for chunk_hash, chunk in data.items() if chunk_hash in ids}
    targets: dict[str, int] = {}
    for (_, chunk_hash), factor in wanted.items():
        targets[chunk_hash] = max(factor, targets.get(chunk_hash, 0))
    topology = Topology.recent()
    stored = store(topology, data, targets, operation="ingest")
    phases.enter("ingest.record")
    for work in works_of(batch):
        with sparing_others(work.job, work):
            _judge(work, [piece for piece in batch if piece.work is work], stored, topology)
    _record(batch, ids)
    for chunk_hash in sorted(stored.suspects):
        Job.request(Job.Kind.REPAIR, chunk_hash)


def _judge(work: Work, pieces: Sequence[Piece], stored: Stored, topology: Topology) -> None:
    """Note in ``work`` how many replicas its chunks have, or raise an error if the upload cannot be acknowledged.

    Raises:
        TooFewReplicas: a chunk has fewer replicas than an acknowledgement needs.
        LeaseLost: the upload was dropped before its chunks could be pinned.
    """
    if work.epoch < 0:
        work.epoch = topology.cluster.topology_epoch
    for piece in pieces:
        if piece.chunk_hash not in stored.holders:
            raise LeaseLost("the upload has been dropped")
        count = stored.counted(piece.chunk_hash)
        if count < acknowledgeable(work.upload.replication_factor):
            raise TooFewReplicas(stored.lack or Job.Lack.NODES)
        work.replications.append(count)
        if work.is_distribution_whole:
            work.distribution[piece.chunk_hash] = [member.node_id for member in stored.holders[piece.chunk_hash]]


def _record(batch: Sequence[Piece], ids: dict[str, int]) -> None:
    """Record manifest rows and progress, and close the uploads that are complete now, in one commit.

    The commit carries every job's fencing token. The staged bytes are removed after the commit (RACES 4).
    """
    works = [work for work in works_of(batch) if not work.over]
    if any(work.is_done for work in works):
        phases.enter("ingest.close")
    with transaction.atomic():
        # Every transaction locks contents before jobs. So a concurrent deletion of one of these contents has either
        # ended, or waits for this transaction.
        contents = Content.objects.locked({work.content.pk for work in works if work.content})
        mine = Job.objects.heartbeat({work.job: len(work.replications) for work in works})
        for work in works:
            if work.job.pk not in mine or (work.content and work.content.pk not in contents):
                work.over = True
                log.info("ingest.lease_lost", job=str(work.job.pk))
        rows = []
        for piece in (piece for piece in batch if not piece.work.over):
            if piece.work.content:
                rows.append((piece.work.content.pk, piece.position, ids[piece.chunk_hash]))
            else:
                piece.work.ids.append(ids[piece.chunk_hash])
        ManifestEntry.record(rows)
        done = [work for work in works if work.is_done]
        _end_segments([work for work in done if not work.content])
        closed = close({work: work.content for work in done if work.content and not work.segments})
    end(closed)


def _end_segments(works: Sequence[Work]) -> None:
    """End the jobs of segments.

    The results of these jobs have the row ids and the replica counts of chunks, for the job of the whole upload.
    """
    results = {
        work.job: {
            "chunks": work.ids,
            "replications": work.replications,
            "factor": work.upload.replication_factor,
            "epoch": work.epoch,
        }
        for work in works
    }
    if results:
        Job.objects.succeed(results)
    for work in works:
        work.over = True


def close(works: Mapping[Work, Content]) -> list[Work]:
    """Make contents ready. The caller has locked the rows of these contents.

    Returns the works whose uploads were closed. An upload is closed if its manifest is whole and its job is still this
    worker's.
    """
    if not works:
        return []
    whole = Content.objects.whole({content.pk for content in works.values()})
    for work, content in works.items():
        if content.pk not in whole:
            with sparing_others(work.job, work):
                raise IngestFailed("the manifest has a gap")
    sound = {work: content for work, content in works.items() if content.pk in whole}
    mine = Job.objects.succeed({work.job: _result(content) for work, content in sound.items()})
    closed = {work: content for work, content in sound.items() if work.job.pk in mine}
    Content.objects.become_ready({content.pk: work.health for work, content in closed.items()})
    pinned = Upload.objects.release(work.upload.pk for work in closed)
    if any(content.chunk_size != work.upload.piece_size for work, content in closed.items()):
        # Segments of the upload may have been stored in chunks of another size than the content's. The content does not
        # use chunks of another size, so perhaps nothing refers to these chunks now.
        Chunk.objects.condemn_unreferenced(pinned)
    for work in works:
        work.over = True
    return list(closed)


def _result(content: Content) -> dict[str, Any]:
    return {"file_hash": content.file_hash, "size": content.size, "chunks": content.chunk_count}


def end(works: Sequence[Work]) -> None:
    """After the commit, tell waiting API threads on which nodes the chunks are, and remove the staged bytes."""
    if not works:
        return
    wakeups.announce_with(
        {work.job: {"distribution": work.distribution} if work.is_distribution_whole else {} for work in works}
    )
    for work in works:
        files.discard(work.upload.pk)
    log.info("ingest.succeeded", files={str(work.job.pk): work.job.file_hash for work in works})
