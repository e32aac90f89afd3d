"""Uploads that arrive in several requests: who may write, what is kept, and what happens when something breaks."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from storage.conf import configuration
from storage.exceptions import (
    BodyTruncated,
    NoSuchUpload,
    OffsetMismatch,
    OutOfSpace,
    StorageError,
    UploadTakenOver,
)
from storage.models import File, Job, Resumable, Segment, Upload, nobody, segment
from storage.models.clock import Clock
from storage.services import resumable
from storage.services.ingest import hashing
from storage.services.resumable import arrival
from storage.staging import files
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest

DATA = os.urandom(3 * CHUNK_SIZE + 5)


def begun(length: int | None = len(DATA), **more: Any) -> Resumable:
    return resumable.begin(nobody(), resumable.Plan("file.bin", 3, length=length, **more))


def again(upload: Resumable) -> Resumable:
    """Take the upload over, as a newer request does."""
    return resumable.take_over(nobody(), str(upload.pk))


def send(upload: Resumable, offset: int, *pieces: bytes, **more: Any) -> None:
    resumable.receive(upload, offset, pieces, **more)


def stored(cluster: ClusterUnderTest) -> bytes:
    cluster.ingest()
    return cluster.download(File.objects.get())


def test_a_newer_request_stops_the_one_that_still_sends(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 41: the bytes that the older request has kept stay, and the older request writes nothing more."""
    monkeypatch.setattr(arrival, "KEEP_SECONDS", 0)
    older = begun()

    def hanging() -> Iterator[bytes]:
        yield DATA[:100]
        newer = again(older)
        assert newer.offset == 100
        send(newer, 100, DATA[100:300])
        yield b"?" * 100

    with pytest.raises(UploadTakenOver):
        resumable.receive(older, 0, hanging())
    assert again(older).offset == 300
    send(again(older), 300, DATA[300:])
    assert stored(cluster) == DATA


def test_a_writer_in_the_middle_of_a_write_is_waited_for(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 41: the older request is held up after its check and before its write.

    The newer request writes only after the older request has written.
    """
    older = begun()
    writes, goes_on, order = Event(), Event(), []
    append = files.append

    def held_up(staged: Any, data: bytes) -> None:
        if data == b"?" * 200:
            writes.set()
            assert goes_on.wait(20)
        append(staged, data)
        order.append(data[:1])

    monkeypatch.setattr(files, "append", held_up)
    failed = in_thread(lambda: send(older, 0, b"?" * 200))
    assert writes.wait(20)
    newer = again(older)
    done = in_thread(lambda: send(newer, 0, DATA))
    time.sleep(0.2)  # In this time the newer request would write, if nothing held it back.
    assert order == []
    goes_on.set()
    assert isinstance(failed(), UploadTakenOver)
    assert done() is None
    assert order == [b"?", DATA[:1]]
    assert stored(cluster) == DATA


def test_of_many_requests_at_once_each_byte_is_taken_once(cluster: ClusterUnderTest) -> None:
    upload, draw = begun(), random.Random(7)

    def push() -> None:
        while True:
            mine = again(upload)
            if mine.is_complete:
                return
            try:
                send(mine, mine.offset, *(DATA[at : at + 997] for at in range(mine.offset, len(DATA), 997)))
            except (UploadTakenOver, OffsetMismatch):
                # Each client waits for a random time before it tries again. Without random waits, the clients would
                # stop each other again and again, for an unpredictable time.
                time.sleep(draw.uniform(0, 0.2))

    for ended in [in_thread(push) for _ in range(4)]:
        assert ended() is None
    assert Job.objects.filter(kind=Job.Kind.INGEST).count() == 1
    assert stored(cluster) == DATA


@pytest.mark.parametrize("how", ["ended", "expired"])
def test_an_upload_that_goes_away_while_it_arrives_stops_its_writer(cluster: ClusterUnderTest, how: str) -> None:
    upload = begun()

    def pieces() -> Iterator[bytes]:
        yield DATA[:100]
        if how == "ended":
            resumable.end(nobody(), str(upload.pk))
        else:
            with transaction.atomic():
                assert Resumable.objects.locked([upload.pk])[0].drop()
            files.discard(upload.pk)
        yield DATA[100:]

    with pytest.raises(NoSuchUpload):
        resumable.receive(upload, 0, pieces())
    assert not Upload.objects.exists()
    assert cluster.staged() == []


def test_bytes_keep_an_upload_alive(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "KEEP_SECONDS", 0)
    upload = begun()
    Resumable.objects.update(expires_at=Clock())
    send(upload, 0, DATA[:100])
    assert resumable.find(nobody(), str(upload.pk)).offset == 100


def test_a_full_staging_refuses_and_goes_on_later(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begun()
    send(upload, 0, DATA[:100])
    append = files.append

    def full(staged: Any, data: bytes) -> None:
        append(staged, data[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "append", full)
        with pytest.raises(OutOfSpace):
            send(again(upload), 100, DATA[100:])
    assert again(upload).offset == 100
    send(again(upload), 100, DATA[100:])
    assert stored(cluster) == DATA


@pytest.mark.parametrize("call", ["has_writer", "keep"])
def test_without_postgresql_nothing_is_kept_and_nothing_is_lost(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    upload = begun()
    send(upload, 0, DATA[:100])

    def away(*_: object, **__: object) -> None:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        if call == "has_writer":
            patch.setattr(Resumable, call, away)
        else:
            patch.setattr(arrival, "change", away)
        with pytest.raises(OperationalError):
            send(again(upload), 100, DATA[100:])
    assert again(upload).offset == 100
    send(again(upload), 100, DATA[100:])
    assert stored(cluster) == DATA


def test_an_offset_is_told_after_its_bytes_are_durable(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 41: an offset that a client was told survives a power cut.

    The durable commit of the offset follows the sync of its bytes.
    """
    order: list[str] = []
    sync = files.sync

    def syncing(upload_id: Any) -> None:
        sync(upload_id)
        order.append(f"sync at {Resumable.objects.get().offset}")

    def watched(execute: Any, sql: str, *rest: Any) -> Any:
        order.append(sql)
        return execute(sql, *rest)

    monkeypatch.setattr(files, "sync", syncing)
    monkeypatch.setattr(connection, "close", lambda: None)
    monkeypatch.setattr(segment, "SEGMENT_BYTES", CHUNK_SIZE)
    upload = begun()
    with connection.execute_wrapper(watched):
        send(upload, 0, DATA[: 2 * CHUNK_SIZE])
    assert Segment.objects.count() == 2
    changes = [place for place, sql in enumerate(order) if sql.startswith("UPDATE") and '"offset"' in sql]
    assert changes and order.index("sync at 0") < changes[0]
    assert order[-1].startswith("SET LOCAL synchronous_commit"), "the statements of segments would not wait"


def test_a_worker_that_is_late_does_not_record_the_content(cluster: ClusterUnderTest) -> None:
    send(begun(), 0, DATA)
    (job,) = Job.objects.claim(Job.Queue.INGEST, most=1, most_bytes=1)
    late, upload = job, job.upload
    assert upload is not None
    Job.objects.filter(pk=job.pk).update(fence=job.fence + 1)
    with pytest.raises(StorageError):
        hashing.identify(late, upload)
    assert not File.objects.exists()


def test_a_crash_before_the_content_is_recorded_is_made_good(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [begun(length=len(DATA), is_partial=True) for _ in range(2)]
    for part in parts:
        send(part, 0, DATA)
    resumable.join(nobody(), resumable.Plan("both", 3), [str(part.pk) for part in parts])
    (job,) = Job.objects.claim(Job.Queue.INGEST, most=1, most_bytes=1)
    assert job.upload is not None
    with monkeypatch.context() as patch:
        patch.setattr(hashing, "_record", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            hashing.identify(job, job.upload)
    Job.objects.filter(pk=job.pk).update(state=Job.State.QUEUED)
    assert stored(cluster) == DATA + DATA
    assert File.objects.get().content.file_hash == hashlib.sha256(DATA + DATA).hexdigest()
    assert not Resumable.objects.filter(is_partial=True).exists()
    assert cluster.staged() == []


def test_what_has_come_is_kept_when_the_client_goes_away(cluster: ClusterUnderTest) -> None:
    upload = begun()

    def cut() -> Iterator[bytes]:
        yield DATA[:1234]
        raise BodyTruncated("the client hung up")

    with pytest.raises(BodyTruncated):
        resumable.receive(upload, 0, cut())
    assert again(upload).offset == 1234
    (name,) = cluster.staged()
    assert (configuration().staging_dir / name).read_bytes() == DATA[:1234]


def in_thread(work: Callable[[], None]) -> Callable[[], Exception | None]:
    """Begin ``work`` in a thread.

    The function that is returned waits for the end of the thread, and returns its error.
    """
    errors: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  The thread that waits judges it.
            errors.append(error)
        finally:
            connection.close()

    thread = Thread(target=run, daemon=True)
    thread.start()

    def ended() -> Exception | None:
        thread.join(30)
        assert not thread.is_alive(), "it hangs"
        return errors[0] if errors else None

    return ended
