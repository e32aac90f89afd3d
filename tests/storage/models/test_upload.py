from __future__ import annotations

import hashlib
import threading

from django.db import connection, transaction

from storage.models import Chunk, Pin, Upload
from tests.support.cluster import ClusterUnderTest, content_of


def test_an_upload_that_is_released_while_a_worker_pins_takes_those_pins_with_it(cluster: ClusterUnderTest) -> None:
    accepted = cluster.accept(content_of(1))
    chunk_hash = hashlib.sha256(content_of(1)).hexdigest()
    pinned, go_on = threading.Event(), threading.Event()

    def pin() -> None:
        try:
            with transaction.atomic():
                Upload.objects.pin({(accepted.upload.pk, chunk_hash): 3}, {chunk_hash: 2048})
                pinned.set()
                assert go_on.wait(20)
        finally:
            connection.close()

    worker = threading.Thread(target=pin)
    worker.start()
    assert pinned.wait(20)
    # The worker's transaction ends while the release below waits for it.
    threading.Timer(0.3, go_on.set).start()
    accepted.upload.drop()
    worker.join()
    assert not Pin.objects.exists()
    assert not Upload.objects.exists()
    assert Chunk.objects.get().condemned_at is not None


def test_a_worker_that_comes_after_the_release_pins_nothing(cluster: ClusterUnderTest) -> None:
    accepted = cluster.accept(content_of(1))
    accepted.upload.drop()
    assert Upload.objects.pin({(accepted.upload.pk, "0" * 64): 3}, {"0" * 64: 1}) == {}
    assert not Chunk.objects.exists()
