"""Receiving uploads: bytes into staging, then content, file and job in one transaction."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from dataclasses import dataclass

import structlog
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Sum

from storage import wakeups
from storage.chunking import PieceChecksums, chunk_count
from storage.conf import configuration
from storage.exceptions import BodyStalled, BodyTooLarge, ClusterUnavailable, IngestFailed, OutOfSpace, VolumeError
from storage.models import Chunk, Content, File, Job, Upload
from storage.placement import acknowledgeable
from storage.topology import Topology

log = structlog.get_logger(__name__)

HEADROOM = 256 << 20  # kept free on every file system, for PostgreSQL and for what was under way
HEARTBEAT_SECONDS = 5.0


class Reception:
    """One body on its way into staging, hashed as it comes, never in memory and never read twice.

    Used as a context: leaving it without ``accept`` drops the upload, its row and its staged bytes.
    """

    def __init__(self, owner: User, *, declared_size: int) -> None:
        """
        Args:
            owner: whose file it will be.
            declared_size: bytes at most that the client announced; reserves space on the nodes.

        Raises:
            BodyTooLarge: more than MAX_UPLOAD_SIZE.
            ClusterUnavailable: too few nodes are online to acknowledge an upload.
            OutOfSpace: the nodes have no room for it.
        """
        conf = configuration()
        self._limit = conf.max_upload_size
        if declared_size > self._limit + (1 << 20):
            raise BodyTooLarge(f"the body is larger than {self._limit} bytes")
        factor = conf.replication_factor
        admit(Topology.recent(), declared_size, factor)
        self.upload = Upload.objects.create(
            owner=owner,
            replication_factor=factor,
            reserved=declared_size * factor,
            piece_size=conf.chunk_size,
        )
        self.size = 0
        self._hash = hashlib.sha256()
        self._checksums = PieceChecksums(conf.chunk_size)
        self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
        self._accepted = False
        self._staged = self.upload.staged_path.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        """Stage the next bytes.

        Raises:
            BodyTooLarge: the body has grown beyond MAX_UPLOAD_SIZE.
            OutOfSpace: staging is full.
        """
        self.size += len(data)
        if self.size > self._limit:
            raise BodyTooLarge(f"the file is larger than {self._limit} bytes")
        try:
            view = memoryview(data)
            while view:
                view = view[self._staged.write(view) :]
        except OSError as error:
            raise OutOfSpace(f"staging: {error.strerror}") from error
        self._hash.update(data)
        self._checksums.update(data)
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
            self.upload.beat()

    def accept(self, name: str, replication_factor: int, *, durable: bool) -> Accepted:
        """Record content, file and ingest job, and wake a worker.

        Args:
            name: as the client calls the file; metadata only.
            replication_factor: how many replicas the owner wants.
            durable: whether the staged bytes must survive a power cut from here on.

        Raises:
            BodyStalled: the upload was dropped meanwhile, as its client had been silent for too long.
        """
        if durable:
            self.sync()
        self._staged.close()
        with transaction.atomic():
            upload = Upload.objects.select_for_update().filter(pk=self.upload.pk).first()
            if upload is None:
                raise BodyStalled("the upload was silent for too long, and has been dropped")
            accepted = self._record(upload, name, replication_factor)
        self._accepted = True
        log.info(
            "upload.accepted",
            upload=str(upload.pk),
            job=str(accepted.job.pk),
            file_hash=accepted.file.content.file_hash,
            size=self.size,
            created=accepted.created,
        )
        return accepted

    def _record(self, upload: Upload, name: str, factor: int) -> Accepted:
        content = _attach(self._hash.hexdigest(), self.size)
        file, created = File.objects.get_or_create(
            owner_id=upload.owner_id,
            content=content,
            defaults={"name": name, "replication_factor": factor},
        )
        file.content = content  # not to be read again once this has committed: it may be deleted by then
        if file.replication_factor < factor:
            file.replication_factor = factor
            file.save(update_fields=["replication_factor"])
        upload.state = Upload.State.ACCEPTED
        upload.content = content
        upload.replication_factor = file.replication_factor
        upload.reserved = self.size * factor
        upload.piece_checksums = self._checksums.packed()
        upload.save()
        job = Job.objects.create(
            kind=Job.Kind.INGEST,
            queue="ingest",
            file_hash=content.file_hash,
            upload=upload,
            size=self.size,
            total=content.chunk_count,
        )
        wakeups.on_commit("ingest")
        return Accepted(job, file, created, upload)

    def sync(self) -> None:
        """Make the staged bytes durable: a 202 does not vanish either."""
        sync_staged(self.upload)

    def __enter__(self) -> Reception:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Drop the upload unless it was accepted."""
        self._staged.close()
        if not self._accepted:
            self._accepted = True
            self.upload.drop()
            self.upload.discard_staged()


@dataclass(frozen=True)
class Accepted:
    """An upload that the database knows.

    Attributes:
        created: whether the owner had no file on this content before.
    """

    job: Job
    file: File
    created: bool
    upload: Upload


def sync_staged(upload: Upload) -> None:
    """fsync the staged file and the name it has."""
    for path, flags in ((upload.staged_path, os.O_RDONLY), (upload.staged_path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            continue  # the ingest has ended: there is nothing left to keep
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _attach(file_hash: str, size: int) -> Content:
    """The content of that hash, made if need be, locked: a deletion is over or waits (RACES 30)."""
    chunk_size = configuration().chunk_size
    while True:
        Content.objects.bulk_create(
            [Content(file_hash=file_hash, size=size, chunk_size=chunk_size, chunk_count=chunk_count(size, chunk_size))],
            ignore_conflicts=True,
        )
        content = Content.objects.select_for_update().filter(file_hash=file_hash).first()
        if content is not None:
            return content


def admit(topology: Topology, size: int, factor: int) -> None:
    """Refuse a body that could not be acknowledged, before it is read.

    Raises:
        ClusterUnavailable: too few nodes are online.
        OutOfSpace: too few nodes have room for ``size`` bytes beside what is already promised (RACES 7).
    """
    needed = acknowledgeable(factor)
    if len([member for member in topology.members if member.counts]) < needed:
        raise ClusterUnavailable(f"fewer than {needed} nodes are online")
    promised = Upload.objects.aggregate(Sum("reserved"))["reserved__sum"] or 0
    staging = os.statvfs(configuration().staging_dir)
    if staging.f_bavail * staging.f_frsize < size + HEADROOM:
        raise OutOfSpace("staging has no room for it")
    free, nodes, silent = _free_space(topology)
    answering = nodes.total()
    if answering < needed <= answering + silent:
        raise ClusterUnavailable(f"fewer than {needed} nodes answer")
    if _room(free, nodes, size, factor, promised) < needed:
        raise OutOfSpace("too few nodes have room for it")


def _free_space(topology: Topology) -> tuple[dict[str, int], Counter[str], int]:
    """Free bytes and number of nodes of each file system, and how many nodes did not answer."""
    free: dict[str, int] = {}
    nodes: Counter[str] = Counter()
    silent = 0
    for member in topology.accepting:
        try:
            space = member.lane.call(member.lane.volume.space)
        except VolumeError:
            silent += 1
            continue
        free[space.device] = space.free
        nodes[space.device] += 1
    return free, nodes, silent


def _room(free: dict[str, int], nodes: Counter[str], size: int, factor: int, promised: int) -> int:
    """How many of ``factor`` copies would find room: nodes on one file system share it."""
    share = promised // max(1, len(free))
    copies = 0
    for _ in range(factor):
        roomy = [device for device in free if nodes[device] and free[device] - share - HEADROOM >= size]
        if not roomy:
            break
        best = max(roomy, key=lambda device: free[device])
        free[best] -= size
        nodes[best] -= 1
        copies += 1
    return copies


# -- waiting ---------------------------------------------------------------


def wait(job: Job, seconds: float) -> Job:
    """Wait until the job has ended or waits for nodes or space, for so many seconds at most.

    Redis announces the end; PostgreSQL is asked behind it, at least every second, in case Redis forgets.
    """
    deadline = time.monotonic() + seconds
    pause = 0.0
    while True:
        job = Job.objects.get(pk=job.pk)
        left = deadline - time.monotonic()
        if job.is_terminal or job.waiting_for or left <= 0:
            return job
        connection.close()  # back to the pool: who waits must not keep others from PostgreSQL
        if not wakeups.await_change(job, min(1.0, left)):
            time.sleep(min(pause, left))
        pause = min(0.5, pause + 0.05)


def withdraw(accepted: Accepted) -> bool:
    """Take an upload back that its client was told has failed; false when it has succeeded meanwhile.

    The file goes too, whichever upload made it, unless its content is ready or another upload may still make it so.
    """
    with transaction.atomic():
        content = Content.objects.select_for_update().filter(pk=accepted.file.content_id).first()
        job = Job.objects.select_for_update().get(pk=accepted.job.pk)
        if job.state == Job.State.SUCCEEDED:
            return False
        Job.cancel([job.pk])
        chunk_ids = accepted.upload.release()
        if content is not None:
            chunk_ids |= content.give_up(accepted.upload.owner_id)
        Chunk.objects.condemn_unreferenced(chunk_ids)
    accepted.upload.discard_staged()
    log.info("upload.withdrawn", upload=str(accepted.upload.pk), job=str(accepted.job.pk))
    return True


def raise_for(job: Job) -> None:
    """Turn a job that did not succeed into the error that its client is told.

    Raises:
        ClusterUnavailable: it waits for nodes.
        OutOfSpace: it waits for space.
        IngestFailed: it has failed or was cancelled.
    """
    if job.state == Job.State.SUCCEEDED:
        return
    if job.waiting_for == "space":
        raise OutOfSpace("no node has room left")
    if job.waiting_for:
        raise ClusterUnavailable(f"the upload lacks {job.waiting_for}")
    detail = (job.error or {}).get("detail", "the upload was cancelled")
    raise IngestFailed(str(detail))
