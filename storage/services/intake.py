"""Receiving uploads: bytes into staging, then content, file, upload and job in one statement."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from io import FileIO
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Sum

from storage import wakeups
from storage.chunking import PieceChecksums, chunk_count
from storage.conf import configuration
from storage.exceptions import BodyStalled, BodyTooLarge, ClusterUnavailable, IngestFailed, OutOfSpace, VolumeError
from storage.models import Chunk, Content, File, Job, Segment, Upload, record_acceptance, segment
from storage.placement import acknowledgeable
from storage.topology import Member, Topology

log = structlog.get_logger(__name__)

HEADROOM = 256 << 20  # kept free on every file system, for PostgreSQL and for what was under way
HEARTBEAT_SECONDS = 5.0
HELD_BYTES = 256 << 10  # of a body that is kept in memory until all of it is there
ROOM_SECONDS = 0.5  # for which a look at the free space is good enough for a body that is held


class Reception:
    """One body on its way in, hashed as it comes: a small one in memory, a larger one in staging, never read twice.

    Used as a context: leaving it without ``accept`` drops the upload, its row and its staged bytes.
    """

    def __init__(self, owner: User, *, declared_size: int, replication_factor: int | None = None) -> None:
        """
        Args:
            owner: whose file it will be.
            declared_size: bytes at most that the client announced; reserves space on the nodes.
            replication_factor: wanted, if that is known yet; otherwise REPLICATION_FACTOR is assumed.

        Raises:
            BodyTooLarge: more than MAX_UPLOAD_SIZE.
            ClusterUnavailable: too few nodes are online to acknowledge an upload.
            OutOfSpace: the nodes have no room for it.
        """
        conf = configuration()
        self._limit = conf.max_upload_size
        if declared_size > self._limit + (1 << 20):
            raise BodyTooLarge(f"the body is larger than {self._limit} bytes")
        factor = replication_factor or conf.replication_factor
        admit(Topology.recent(), declared_size, factor)
        self.upload = Upload(
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
        self._held: list[bytes] = []
        self._staged: FileIO | None = None
        self._segment_chunks = max(1, segment.SEGMENT_BYTES // conf.chunk_size)
        self._segments: int | None = 0
        if declared_size > HELD_BYTES:
            self._stage()  # now, so that what it will need is promised to nobody else (RACES 7)

    @property
    def sha256(self) -> bytes:
        """The digest of what has come so far."""
        return self._hash.digest()

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            BodyTooLarge: the body has grown beyond MAX_UPLOAD_SIZE.
            OutOfSpace: staging is full.
        """
        self.size += len(data)
        if self.size > self._limit:
            raise BodyTooLarge(f"the file is larger than {self._limit} bytes")
        self._hash.update(data)
        self._checksums.update(data)
        if self._staged is None and self.size <= HELD_BYTES:
            self._held.append(data)
            return
        staged = self._staged or self._stage()
        _write_to(staged, data)
        self._cut_off_segments()
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
            self.upload.beat()

    def _cut_off_segments(self) -> None:
        """Have workers begin with what is there. Without PostgreSQL that waits until the body is whole."""
        size = self._segment_chunks * self.upload.piece_size
        while self._segments is not None and self.size >= max(segment.SEGMENT_BYTES, (self._segments + 1) * size):
            position = self._segments * self._segment_chunks
            checksums = self._checksums.of(range(position, position + self._segment_chunks))
            try:
                Segment.objects.cut_off(self.upload, position, size, checksums)
            except (OperationalError, InterfaceError) as error:
                log.warning("segment.uncut", upload=str(self.upload.pk), error=str(error))
                self._segments = None
                return
            finally:
                connection.close()  # back to the pool, as in _stage
            self._segments += 1
            wakeups.wake("ingest")

    def _stage(self) -> FileIO:
        """Begin to stage a body that is too large to hold: its row first, which owns the staged bytes (RACES 1)."""
        self.upload.save(force_insert=True)
        connection.close()  # back to the pool: who waits for a client must not keep others from PostgreSQL
        return self._open_staged()

    def _open_staged(self) -> FileIO:
        self._staged = self.upload.staged_path.open("xb", buffering=0)
        for data in self._held:
            _write_to(self._staged, data)
        self._held.clear()
        return self._staged

    def accept(self, name: str, replication_factor: int, *, durable: bool) -> Accepted:
        """Record content, file and ingest job, and wake a worker.

        Args:
            name: as the client calls the file; metadata only.
            replication_factor: how many replicas the owner wants.
            durable: whether the staged bytes must survive a power cut from here on.

        Raises:
            BodyStalled: the upload was dropped meanwhile, as its client had been silent for too long.
            OutOfSpace: staging is full.
        """
        is_known = self._staged is not None
        staged = self._staged or self._open_staged()
        if durable:
            self.sync()
        staged.close()
        with transaction.atomic() if is_known else nullcontext():
            if is_known and not Upload.objects.select_for_update().filter(pk=self.upload.pk).exists():
                raise BodyStalled("the upload was silent for too long, and has been dropped")
            accepted = self._record(name, replication_factor)
        self._accepted = True
        wakeups.wake("ingest")
        log.info(
            "upload.accepted",
            upload=str(self.upload.pk),
            job=str(accepted.job.pk),
            file_hash=accepted.file.content.file_hash,
            size=self.size,
            created=accepted.created,
        )
        return accepted

    def _record(self, name: str, factor: int) -> Accepted:
        chunk_size = configuration().chunk_size
        content = Content(
            file_hash=self._hash.hexdigest(),
            size=self.size,
            chunk_size=chunk_size,
            chunk_count=chunk_count(self.size, chunk_size),
        )
        file = File(owner_id=self.upload.owner_id, name=name, replication_factor=factor)
        job = Job(kind=Job.Kind.INGEST, queue="ingest", file_hash=content.file_hash, size=self.size)
        self.upload.reserved = self.size * factor
        self.upload.piece_checksums = self._checksums.packed()
        created = record_acceptance(self.upload, content, file, job)
        return Accepted(job, file, created, self.upload)

    def sync(self) -> None:
        """Make the staged bytes durable: a 202 does not vanish either."""
        sync_staged(self.upload)

    def __enter__(self) -> Reception:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Drop the upload unless it was accepted; nothing is left of one that was only held."""
        if self._staged is None or self._accepted:
            return
        self._staged.close()
        self._accepted = True
        with transaction.atomic():
            # A commit whose answer was lost may have happened: then a worker has it now.
            if Upload.objects.select_for_update().filter(pk=self.upload.pk, state=Upload.State.ACCEPTED).exists():
                return
            self.upload.drop()
        self.upload.discard_staged()


def _write_to(staged: FileIO, data: bytes) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[staged.write(view) :]
    except OSError as error:
        raise OutOfSpace(f"staging: {error.strerror}") from error


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


def admit(topology: Topology, size: int, factor: int) -> None:
    """Refuse a body that could not be acknowledged, before it is read.

    Raises:
        ClusterUnavailable: too few nodes are online.
        OutOfSpace: too few nodes have room for ``size`` bytes beside what is already promised (RACES 7).
    """
    needed = acknowledgeable(factor)
    if len([member for member in topology.members if member.counts]) < needed:
        raise ClusterUnavailable(f"fewer than {needed} nodes are online")
    room = _recent_room(topology) if size <= HELD_BYTES else _look_for_room(topology)
    if room.staging < size + HEADROOM:
        raise OutOfSpace("staging has no room for it")
    answering = room.nodes.total()
    if answering < needed <= answering + room.silent:
        raise ClusterUnavailable(f"fewer than {needed} nodes answer")
    if _copies(room, size, factor) < needed:
        raise OutOfSpace("too few nodes have room for it")


@dataclass(frozen=True)
class Room:
    """Where there is room, in bytes.

    Attributes:
        staging: free bytes of staging.
        free: file system → its free bytes.
        nodes: file system → how many nodes share it.
        silent: nodes that did not answer.
        promised: what uploads under way will need.
        members: the nodes that were asked.
        at: when that was, of the monotonic clock.
    """

    staging: int
    free: dict[str, int]
    nodes: Counter[str]
    silent: int
    promised: int
    members: tuple[Member, ...]
    at: float


_last_room: Room | None = None


def _recent_room(topology: Topology) -> Room:
    """What was seen a moment ago: so much as many small bodies need in that time, the headroom has."""
    global _last_room
    seen = _last_room
    if seen is None or seen.members != topology.accepting or time.monotonic() - seen.at > ROOM_SECONDS:
        _last_room = seen = _look_for_room(topology)
    return seen


def _look_for_room(topology: Topology) -> Room:
    promised = Upload.objects.aggregate(Sum("reserved"))["reserved__sum"] or 0
    staging = os.statvfs(configuration().staging_dir)
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
    available = staging.f_bavail * staging.f_frsize
    return Room(available, free, nodes, silent, promised, topology.accepting, time.monotonic())


def _copies(room: Room, size: int, factor: int) -> int:
    """How many of ``factor`` copies would find room: nodes on one file system share it."""
    free, nodes = dict(room.free), Counter(room.nodes)
    share = room.promised // max(1, len(free))
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


def wait(job: Job, seconds: float) -> tuple[Job, Mapping[str, Any]]:
    """Wait until the job has ended or waits for nodes or space, for so many seconds at most.

    Redis announces the end; PostgreSQL is asked behind it, at least every second, in case Redis forgets.

    Returns:
        The job as it is now, and what was announced with its success.
    """
    deadline = time.monotonic() + seconds
    pause = 0.0
    while True:
        connection.close()  # back to the pool: who waits must not keep others from PostgreSQL
        left = max(0.0, deadline - time.monotonic())
        message = wakeups.await_change(job, min(1.0, left)) if left else None
        if message:  # said after the commit, of its success alone
            job.state = Job.State.SUCCEEDED
            return job, message
        job = Job.objects.get(pk=job.pk)
        left = deadline - time.monotonic()
        if job.is_terminal or job.waiting_for or left <= 0:
            return job, {}
        if message is None:
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
