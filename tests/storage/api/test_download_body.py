"""The body of a download holds a place for a transfer, and gives back the place and its database connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from storage.api.downloads.body import Body
from storage.api.wsgi.transfers import TRANSFERS
from storage.exceptions import ContentUnavailable, TooManyTransfers
from storage.models import Upload
from tests.support.cluster import ClusterUnderTest


def test_a_body_that_cannot_begin_frees_its_place() -> None:
    def begin() -> Iterator[bytes]:
        raise ContentUnavailable("the first chunk cannot be read")

    for _ in range(TRANSFERS + 1):
        with pytest.raises(ContentUnavailable):
            Body(begin)


def test_a_body_holds_its_place_until_it_is_closed() -> None:
    bodies = [Body(lambda: iter([b"bytes"])) for _ in range(TRANSFERS)]
    with pytest.raises(TooManyTransfers):
        Body(lambda: iter([b"bytes"]))
    for body in bodies:
        body.close()
        body.close()
    Body(lambda: iter([b"bytes"])).close()


def test_a_body_gives_the_connection_of_its_thread_back(cluster: ClusterUnderTest) -> None:
    def pieces() -> Iterator[bytes]:
        Upload.objects.exists()
        yield b"bytes"

    body = Body(pieces)
    assert b"".join(body) == b"bytes"
    assert connection.connection is not None
    body.close()
    assert connection.connection is None
