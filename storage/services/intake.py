"""Receive uploads: write the bytes to staging, then record content, file, upload and job in one statement."""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass
from io import FileIO

import structlog
from django.contrib.auth.models import User
from django.db import connection, transaction

from storage.accounts import quotas
from storage.accounts.quotas import Allowance
from storage.cluster.admission import admit
from storage.conf import configuration
from storage.exceptions import (
    BodyStalled,
    BodyTooLarge,
    ClusterUnavailable,
    NoSuchBucket,
)
from storage.jobs import waiting, wakeups
from storage.jobs.waiting import FORGOTTEN
from storage.models import (
    Accepted,
    AcceptedFile,
    AcceptedPart,
    Body,
    Bucket,
    Chunk,
    Content,
    Destination,
    Job,
    Origin,
    Segment,
    Upload,
    record_acceptance,
    record_part,
    record_reception,
    segment,
)
from storage.models.refusals import UNAVAILABLE
from storage.staging import files
from storage.staging.cutting import chunk_count
from storage.staging.pieces import PieceChecksums

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 5.0
SILENT = "the upload was silent for too long, and has been dropped"
HELD_BYTES = 256 << 10  # A body up to this size is kept in memory until it is complete.


class Reception:
    """One body that is arriving. The body is hashed while it arrives, so it need not be read again for its hash.

    A small body is kept in memory, a larger one in staging. A reception is used as a context manager: leaving it
    without ``accept`` drops the upload, its row and its staged bytes.
    """

    def __init__(
        self,
        owner: User,
        *,
        declared_size: int,
        replication_factor: int | None = None,
        name: str | None = None,
        overhead: int = 0,
        destination: Destination | None = None,
    ) -> None:
        """
        Args:
            owner: the owner of the future file.
            declared_size: the size of the body in bytes, as the client announced it; 0 if the client announced none.
                Space for this size times the replication factor is reserved on the nodes.
            replication_factor: the replicas that the client wants; None if that is not known yet, and then
                REPLICATION_FACTOR is assumed.
            name: the client's name of the file; None if the client gave none.
            overhead: the largest number of bytes in the body, such as the boundaries of a form, that do not become
                bytes of the file.
            destination: the place in a bucket for which the body arrives; None if it becomes a file.

        Raises:
            BodyTooLarge: the body is larger than MAX_UPLOAD_SIZE.
            ByteQuotaExceeded, FileQuotaExceeded: the owner's quota has no room for the body.
            ClusterUnavailable: too few nodes are online to acknowledge an upload.
            OutOfSpace: staging or the nodes have no room for the body.
        """
        conf = configuration()
        self._limit = conf.max_upload_size
        if declared_size > self._limit + (1 << 20):
            raise BodyTooLarge(f"the body is larger than {self._limit} bytes")
        self._factor = replication_factor or conf.replication_factor
        self._owner_id: int = owner.pk
        self._name = name
        self._destination = destination
        self._declared_size = declared_size
        self._allowances = self._read_allowances()
        for allowance in self._allowances:
            least = max(0, declared_size - overhead)
            allowance.require(least, so_far=least < declared_size or not declared_size)
        admit(declared_size, self._factor)
        self.upload_id = uuid.uuid4()
        self.size = 0
        self._hash = hashlib.sha256()
        self._checksums = PieceChecksums(conf.chunk_size)
        self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
        self._accepted = False
        self._held: list[bytes] = []
        self._is_known = False  # True if the upload gets its row while the body arrives, as a large body does.
        self._staged: FileIO | None = None
        self._segment_chunks = max(1, segment.SEGMENT_BYTES // conf.chunk_size)
        self._segments: int | None = 0
        if declared_size > HELD_BYTES:
            self._stage()  # The row reserves the space, so that no other upload is promised this space (RACES 7).

    def _read_allowances(self) -> list[Allowance]:
        if self._destination is not None:
            return quotas.allowances_at(self._owner_id, self._destination)
        lately = self._declared_size <= HELD_BYTES
        allowance = quotas.allowance(self._owner_id, self._name, lately=lately)
        return [] if allowance is None else [allowance]

    @property
    def sha256(self) -> bytes:
        """The digest of the bytes that have arrived so far."""
        return self._hash.digest()

    def write(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            BodyTooLarge: the body has grown beyond MAX_UPLOAD_SIZE.
            ByteQuotaExceeded: the body has grown beyond what is left of the owner's quota.
            OutOfSpace: staging is full.
            StagingUnavailable: staging is missing or cannot be written to.
        """
        self.size += len(data)
        if self.size > self._limit:
            raise BodyTooLarge(f"the file is larger than {self._limit} bytes")
        for allowance in self._allowances:
            allowance.require(self.size, so_far=True)
        self._hash.update(data)
        self._checksums.update(data)
        if not self._is_known:
            if self.size <= HELD_BYTES:
                self._held.append(data)
                return
            self._stage()
        self._write_out(data)
        if self.size >= segment.SEGMENT_BYTES:
            self._cut_off_segments()
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
            Upload(pk=self.upload_id).beat()
            if self._allowances:  # Other uploads of the owner may have been accepted since the last look.
                self._allowances = self._read_allowances()
            # The connection goes back to the pool: a thread that waits for a client must not keep a connection.
            connection.close()

    def _cut_off_segments(self) -> None:
        """Queue the segments that are staged. If PostgreSQL fails, the upload's own job stores the rest of the body."""
        size = self._segment_chunks * self._checksums.piece_size
        while self._segments is not None and self.size >= max(segment.SEGMENT_BYTES, (self._segments + 1) * size):
            position = self._segments * self._segment_chunks
            checksums = self._checksums.of(range(position, position + self._segment_chunks))
            try:
                Segment.objects.cut_off(Upload(pk=self.upload_id), position, size, checksums)
            except UNAVAILABLE as error:
                log.warning("segment.uncut", upload=str(self.upload_id), error=str(error))
                self._segments = None
                return
            finally:
                connection.close()  # The connection goes back to the pool, as in ``write``.
            self._segments += 1
            wakeups.wake(Job.Queue.INGEST)

    def _stage(self) -> None:
        """Begin to stage a body that is too large for memory.

        The row is inserted first, because a row must own the bytes (RACES 1).
        """
        self._is_known = True  # If PostgreSQL fails during the next call, ``abandon`` looks for the row.
        record_reception(
            self.upload_id,
            owner_id=self._owner_id,
            factor=self._factor,
            reserved=self._declared_size * self._factor,
            piece_size=self._checksums.piece_size,
        )
        self._write_out()

    def _write_out(self, data: bytes = b"") -> None:
        """Stage the bytes that were kept in memory, and then ``data``."""
        with files.explaining():
            if self._staged is None:
                self._staged = files.create(self.upload_id)
            for piece in (*self._held, data):
                files.append(self._staged, piece)
        self._held.clear()

    def accept(self, name: str | None, replication_factor: int, *, durable: bool) -> AcceptedFile:
        """Record content, file and ingest job, and wake a worker.

        Args:
            name: the client's name of the file; None if the client gave none.
            replication_factor: how many replicas the owner wants.
            durable: True if the upload must survive a power cut from here on.

        Raises:
            BodyStalled: the sweeper has dropped the upload, because its client had been silent for too long.
            ByteQuotaExceeded, FileQuotaExceeded: the file is new, and does not fit into its owner's quota.
            OutOfSpace: staging is full.
        """
        self._end_staging(durable=durable)
        body, is_limited = self._body(name, replication_factor), bool(self._allowances)
        accepted = record_acceptance(body, durable=durable, is_limited=is_limited)
        if accepted is None:
            raise BodyStalled(SILENT)
        self._hand_over(accepted, created=accepted.created)
        return accepted

    def accept_part(self, *, etag: str, checksums: dict[str, str] | None = None) -> AcceptedPart:
        """Record content, pending part and ingest job of a body of the S3 door, and wake a worker.

        Args:
            etag: the MD5 of the body in hex.
            checksums: algorithm → checksum in base64.

        Raises:
            NoSuchBucket: the bucket of the destination has been deleted.
            BodyStalled, ByteQuotaExceeded, FileQuotaExceeded, OutOfSpace: as for ``accept``.
        """
        assert self._destination is not None
        self._end_staging(durable=False)
        origin = Origin(self._destination, etag, checksums or {})
        body, is_limited = self._body(None, self._factor, origin), bool(self._allowances)
        accepted = record_part(body, durable=False, is_limited=is_limited)
        if accepted is None:
            if not Bucket.objects.filter(pk=self._destination.bucket.pk).exists():
                raise NoSuchBucket("the bucket has been deleted")
            raise BodyStalled(SILENT)
        self._hand_over(accepted, part=accepted.part_id)
        return accepted

    def _end_staging(self, *, durable: bool) -> None:
        self._write_out()
        if durable:
            files.sync(self.upload_id)
        if self._staged is not None:
            self._staged.close()

    def _hand_over(self, accepted: Accepted, **about: object) -> None:
        """Leave the upload to the workers."""
        self._accepted = True
        wakeups.wake(Job.Queue.INGEST)
        log.info(
            "upload.accepted",
            upload=str(accepted.upload_id),
            job=str(accepted.job_id),
            file_hash=accepted.file_hash,
            size=self.size,
            **about,
        )

    def _body(self, name: str | None, factor: int, origin: Origin | None = None) -> Body:
        piece_size = self._checksums.piece_size
        return Body(
            upload_id=self.upload_id,
            is_known=self._is_known,
            owner_id=self._owner_id,
            file_hash=self._hash.hexdigest(),
            name=name,
            size=self.size,
            chunk_size=piece_size,
            chunk_count=chunk_count(self.size, piece_size),
            piece_checksums=self._checksums.packed(),
            replication_factor=factor,
            origin=origin,
        )

    def __enter__(self) -> Reception:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Drop the upload unless it was accepted. An upload that was only in memory leaves nothing to drop."""
        if self._accepted or not (self._is_known or self._staged):
            return
        self._accepted = True
        if self._staged is not None:
            self._staged.close()
        with transaction.atomic():
            # The acceptance may have been committed although its answer was lost. An upload whose acceptance was
            # committed belongs to a worker now.
            mine = Upload.objects.select_for_update().filter(pk=self.upload_id)
            if mine.filter(state=Upload.State.ACCEPTED).exists():
                return
            Chunk.objects.condemn_unreferenced(Upload.objects.release([self.upload_id]))
        files.discard(self.upload_id)


@dataclass(frozen=True)
class Stored:
    """An upload that has been stored.

    Attributes:
        distribution: chunk hash → ids of the nodes that hold the chunk; None if the worker has not announced it.
    """

    distribution: dict[str, list[str]] | None


def finish(accepted: Accepted, seconds: float, *, durable: bool = True) -> Stored | None:
    """Wait until an accepted upload is stored, and withdraw the upload if it cannot be stored.

    Args:
        accepted: the upload.
        seconds: how long to wait at most.
        durable: True if an upload that is not stored in time is made durable, so that its client may be told to ask
            later. False if the caller drops such an upload.

    Returns:
        None if the upload is not stored yet.

    Raises:
        ClusterUnavailable: the upload lacks nodes, or PostgreSQL has crashed and lost the upload.
        OutOfSpace: the upload lacks space.
        IngestFailed: the upload has failed or was cancelled.
    """
    outcome = waiting.wait(accepted.job_id, seconds)
    if not isinstance(outcome, Job):
        return Stored(outcome.get("distribution"))
    if not outcome.is_terminal and not outcome.waiting_for:
        if durable:
            keep(accepted.upload_id, accepted.job_id)
        return None
    if outcome.state != Job.State.SUCCEEDED and withdraw(accepted):
        waiting.raise_for(outcome)
    return Stored(None)


def keep(upload_id: uuid.UUID, job_id: uuid.UUID) -> None:
    """Make an accepted upload durable.

    This call is for uploads whose client is answered before the ingest has ended. The acceptance of an upload does not
    wait until the row is on the disk, because a client that waits for the ingest is promised nothing before its end.

    Raises:
        ClusterUnavailable: PostgreSQL has crashed and lost the upload.
    """
    files.sync(upload_id)
    # This synchronous commit flushes PostgreSQL's log up to here and so makes the acceptance durable. If the upload has
    # no row, either it has finished, or a crash undid its acceptance. Only a crash also removes the job's row.
    if not Upload(upload_id).beat() and not Job.objects.filter(pk=job_id).exists():
        raise ClusterUnavailable(FORGOTTEN)


def withdraw(accepted: Accepted) -> bool:
    """Take back an upload whose client is told that it has failed; False if the upload has succeeded after all.

    The owner's file is deleted too, whichever upload made it, unless its content is ready, or another upload of the
    same owner may still make the content ready. A part is deleted in any case.
    """
    with transaction.atomic():
        content = Content.objects.select_for_update().filter(pk=accepted.content_id).first()
        job = Job.objects.select_for_update().get(pk=accepted.job_id)
        if job.state == Job.State.SUCCEEDED:
            return False
        Job.cancel([job.pk])
        # The row of the upload is read again: a rename may have merged the file into another file since the upload was
        # accepted, and the row then names that other file.
        upload = Upload.objects.filter(pk=accepted.upload_id).first()
        chunk_ids = Upload.objects.release([accepted.upload_id])
        if content is not None and upload is not None:
            chunk_ids |= upload.give_up(content)
        Chunk.objects.condemn_unreferenced(chunk_ids)
    files.discard(accepted.upload_id)
    log.info("upload.withdrawn", upload=str(accepted.upload_id), job=str(accepted.job_id))
    return True
