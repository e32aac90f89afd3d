"""Receive the bytes of one request: stage them, and now and then make them durable and raise the offset (RACES 41)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from django.db import connection, transaction

from storage.conf import configuration
from storage.exceptions import (
    BodyStalled,
    BodyTooLarge,
    BodyTruncated,
    ChecksumMismatch,
    InvalidRequest,
    NoSuchUpload,
    OffsetMismatch,
    StagingDamaged,
)
from storage.jobs import wakeups
from storage.models import Job, Resumable, Segment, Upload, segment
from storage.services.resumable.rows import change, missing, queue_ingest, refuse, require_quota, require_room
from storage.staging import files
from storage.staging.pieces import PieceChecksums

log = structlog.get_logger(__name__)

KEEP_SECONDS = 2.0  # If its connection breaks, a client sends again at most the bytes of this many seconds.
KEEP_BYTES = segment.SEGMENT_BYTES


@dataclass(frozen=True)
class Proof:
    """The digest that the bytes of one request must have. ``algorithm`` is a name that hashlib knows."""

    algorithm: str
    digest: bytes


def receive(
    upload: Resumable,
    offset: int,
    pieces: Iterable[bytes],
    *,
    announced: int = 0,
    proof: Proof | None = None,
    ends: bool = False,
) -> None:
    """Append the bytes of one request. When the last byte of the upload has come, a worker is woken.

    If the client goes away, the bytes that have come are kept. Bytes that need a proof are kept all together or not at
    all.

    Args:
        upload: the upload, whose writer is the caller. This function updates the attributes of the object.
        offset: the position at which the bytes belong, as the client says.
        pieces: the bytes.
        announced: the number of bytes that the client has announced; 0 if it has announced none.
        proof: the digest that the bytes must have.
        ends: True if the client says that the body ends with these bytes.

    Raises:
        OffsetMismatch: the bytes belong at another position.
        BodyTooLarge: the body would be longer than the client has declared, or than MAX_UPLOAD_SIZE.
        InvalidRequest: the body would be shorter than the client has declared.
        ChecksumMismatch: the bytes do not have the digest.
        UploadTakenOver: a newer request sends the bytes of this upload.
        NoSuchUpload: the upload was ended, or its staged bytes are gone.
        StorageError: one of the errors of ``require_room``.
    """
    if offset != upload.offset:
        raise OffsetMismatch(upload.offset)
    limit = configuration().max_upload_size if upload.length is None else upload.length
    if offset + announced > limit:
        raise BodyTooLarge(f"the upload has at most {limit} bytes")
    if upload.job_id is not None:  # All bytes are there, but no answer has told the client so.
        if any(pieces):
            raise BodyTooLarge(f"the upload has {limit} bytes")
        return
    with _Arrival(upload, limit, announced) as arrival:
        if proof is None:
            _take(arrival, pieces)
        else:
            _take_proven(arrival, pieces, proof)
        arrival.keep(ends=ends)


def declare_length(upload: Resumable, length: int) -> None:
    """Record the length of a body that was begun without a length. The caller is the upload's writer.

    Raises:
        InvalidRequest: the upload has another length, or more bytes.
        UploadTakenOver, NoSuchUpload: as for ``receive``.
        StorageError: one of the errors of ``require_room``.
    """
    if upload.length == length:
        return
    if upload.length is not None or length < upload.offset:
        raise InvalidRequest("the upload has another length", {"Upload-Length": ["It cannot be changed."]})
    row = Upload.objects.filter(pk=upload.pk).first() or refuse(upload)
    require_room(upload, length, row.replication_factor)
    with transaction.atomic():
        change(upload, length=length)
        Upload.objects.filter(pk=upload.pk).update(reserved=length * row.replication_factor)


def _take(arrival: _Arrival, pieces: Iterable[bytes]) -> None:
    try:
        for data in pieces:
            arrival.write(data)
            arrival.keep_at_times()
    except (BodyStalled, BodyTruncated):
        arrival.keep()
        raise


def _take_proven(arrival: _Arrival, pieces: Iterable[bytes], proof: Proof) -> None:
    digest = hashlib.new(proof.algorithm, usedforsecurity=False)
    for data in pieces:
        arrival.write(data)
        digest.update(data)
        arrival.beat_at_times()
    if digest.digest() != proof.digest:
        raise ChecksumMismatch("the bytes do not have the Upload-Checksum")


class _Arrival:
    """The bytes of one request on their way into staging."""

    def __init__(self, upload: Resumable, limit: int, announced: int) -> None:
        row = Upload.objects.filter(pk=upload.pk, state=Upload.State.RESUMABLE).first() or refuse(upload)
        if upload.length is None and announced:
            size = upload.offset + announced
            require_room(upload, size, row.replication_factor, is_whole=False)
            Upload.objects.filter(pk=upload.pk).update(reserved=size * row.replication_factor)
        connection.close()  # The connection goes back to the pool: this thread may now wait long for its client.
        self._upload = upload
        self._row = row
        self._limit = limit
        self._offset = upload.offset
        self._checksums = PieceChecksums.resumed(
            row.piece_size, bytes(upload.checksums), upload.checksum, upload.offset % row.piece_size
        )
        self._segment_chunks = max(1, segment.SEGMENT_BYTES // row.piece_size)
        self._kept_at = time.monotonic()

    def __enter__(self) -> _Arrival:
        try:
            with files.explaining():
                self._staged = files.reopen(self._upload.pk, self._offset)
                with self._alone():
                    # Behind the offset, an earlier request may have left bytes that do not count.
                    self._staged.truncate(self._offset)
        except StagingDamaged as error:
            if not self._upload.has_writer():
                # A newer request may have sent the last byte, and a worker may have stored the upload.
                refuse(self._upload)
            log.error("upload.damaged", upload=str(self._upload.pk), error=str(error))
            raise NoSuchUpload(f"{error}: begin the upload again") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._staged.close()

    def write(self, data: bytes) -> None:
        """Stage the next bytes. The bytes do not count before ``keep``."""
        if self._offset + len(data) > self._limit:
            raise BodyTooLarge(f"the upload has at most {self._limit} bytes")
        with files.explaining(), self._alone():
            files.append(self._staged, data)
        self._checksums.update(data)
        self._offset += len(data)

    def keep_at_times(self) -> None:
        """Call ``keep`` if many bytes have arrived since the last call, or if that call was a while ago."""
        much = self._offset - self._upload.offset >= KEEP_BYTES
        if much or time.monotonic() - self._kept_at >= KEEP_SECONDS:
            self.keep()

    def beat_at_times(self) -> None:
        """Postpone the upload's expiry while bytes arrive that ``keep`` has not made durable yet."""
        if time.monotonic() - self._kept_at >= KEEP_SECONDS:
            change(self._upload)
            connection.close()  # The connection goes back to the pool.
            self._kept_at = time.monotonic()

    def keep(self, *, ends: bool = False) -> None:
        """Make the bytes that have arrived durable, and then their offset. With the last byte, queue the ingest.

        Args:
            ends: True if the body ends here.
        """
        upload = self._upload
        length = self._offset if ends and upload.length is None else upload.length
        if ends and length != self._offset:
            raise InvalidRequest("the body ends before its length", {"Upload-Complete": ["Bytes are missing."]})
        if upload.length is None:
            require_quota(upload, self._offset, is_whole=ends)
        with files.explaining():
            files.sync(upload.pk)
        before = upload.segments
        with transaction.atomic():
            change(upload, offset=self._offset, length=length)
            self._cut_off_segments()
            change(upload, checksums=self._checksums.whole(), checksum=self._checksums.current)
            if upload.is_complete:
                self._seal()
            elif length is None:
                Upload.objects.filter(pk=upload.pk).update(reserved=self._offset * self._row.replication_factor)
            with connection.cursor() as cursor:
                # A segment may be lost in a crash of PostgreSQL. An offset must not be lost: its commit waits for the
                # disk.
                cursor.execute("SET LOCAL synchronous_commit TO DEFAULT")
        connection.close()  # The connection goes back to the pool.
        self._kept_at = time.monotonic()
        if upload.job_id is not None or upload.segments > before:
            wakeups.wake(Job.Queue.INGEST)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of the staged file, if this request is still the writer.

        A newer request becomes the writer first, and then waits for this lock. An older request that gets the lock
        later finds that it is not the writer any more, and writes nothing (RACES 41).
        """
        with files.alone(self._staged):
            if not self._upload.has_writer():
                refuse(self._upload)
            yield

    def _cut_off_segments(self) -> None:
        """Queue the segments that are durable. Workers store segments while the rest of the body still arrives."""
        upload, count = self._upload, self._segment_chunks
        size, segments = count * self._row.piece_size, upload.segments
        while not upload.is_partial and self._offset >= max(segment.SEGMENT_BYTES, (segments + 1) * size):
            if not Segment.objects.cut_off(self._row, segments * count, size, self._checksums.of(range(count))):
                missing(upload.pk)
            self._checksums.forget(count)
            segments += 1
        if segments > upload.segments:
            change(upload, segments=segments)

    def _seal(self) -> None:
        """Queue the ingest of an upload whose bytes are all there. A part only waits until it is joined."""
        upload = self._upload
        earlier = Segment.objects.filter(upload=upload.pk).order_by("position").values_list("checksums", flat=True)
        checksums = b"".join(bytes(part) for part in earlier) + self._checksums.packed()
        Upload.objects.filter(pk=upload.pk).update(piece_checksums=checksums)
        if not upload.is_partial:
            change(upload, job=queue_ingest(upload.pk, upload.owner_id, self._offset))
            log.info("upload.arrived", upload=str(upload.pk), job=str(upload.job_id), size=self._offset)
