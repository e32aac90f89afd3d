from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DatabaseError, connection, transaction

from storage.models import Job
from storage.models.statements import prepared
from tests.support.cluster import ClusterUnderTest


def test_a_statement_takes_part_in_djangos_transaction(cluster: ClusterUnderTest) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        prepared.rows("INSERT INTO storage_tally (what, key, amount) VALUES ('chunks', %s, %s)", [7, 1])
        raise ZeroDivisionError
    assert prepared.rows("SELECT amount FROM storage_tally WHERE key = %s", [7]) == []


def _tallied(key: int) -> list[tuple[int]]:
    return prepared.rows("SELECT amount FROM storage_tally WHERE key = %s", [key])


_TALLY = "INSERT INTO storage_tally (what, key, amount) VALUES ('chunks', %s, 1)"


@pytest.mark.parametrize("is_connected", [True, False])
def test_statements_in_a_transaction_of_their_own(cluster: ClusterUnderTest, is_connected: bool) -> None:
    connection.close()
    if is_connected:
        connection.ensure_connection()
    with pytest.raises(ZeroDivisionError), prepared.atomic():
        prepared.rows(_TALLY, [7])
        assert _tallied(7) == [(1,)]
        raise ZeroDivisionError
    with pytest.raises(DatabaseError), prepared.atomic():
        prepared.rows(_TALLY, [7])
        prepared.rows("SELECT 1 / %s::int", [0])
    assert _tallied(7) == []
    with prepared.atomic():
        prepared.rows(_TALLY, [8])
        with ThreadPoolExecutor(1) as other:
            assert other.submit(_tallied, 8).result() == [], "other threads do not see it before the commit"
    assert _tallied(8) == [(1,)]
    assert (connection.connection is not None) is is_connected


def test_errors_are_djangos(cluster: ClusterUnderTest) -> None:
    with pytest.raises(DatabaseError):
        prepared.rows("SELECT 1 / %s::int", [0])
    assert prepared.rows("SELECT %s::int", [1]) == [(1,)], "the connection is good"


def test_a_lazy_commit_makes_no_later_one_lazy(cluster: ClusterUnderTest) -> None:
    lazily = "SELECT current_setting('synchronous_commit') FROM set_config('synchronous_commit', 'off', true) AS lazily"
    prepared.rows("SET synchronous_commit TO 'local'", [])
    assert prepared.rows(lazily, []) == [("off",)]
    assert prepared.rows("SELECT current_setting('synchronous_commit')", []) == [("local",)]
    prepared.rows("RESET synchronous_commit", [])


def test_a_claimed_job_is_what_the_orm_reads(cluster: ClusterUnderTest) -> None:
    """The claim builds its model instances without the ORM."""
    accepted = cluster.accept(b"some bytes")
    (claimed,) = Job.objects.claim(Job.Queue.INGEST, most=1, most_bytes=0)
    read = Job.objects.select_related("upload__content").get(pk=accepted.job.pk)
    assert claimed.upload is not None and claimed.upload.content is not None
    assert read.upload is not None and read.upload.content is not None
    for mine, theirs in (
        (claimed, read),
        (claimed.upload, read.upload),
        (claimed.upload.content, read.upload.content),
    ):
        for field in theirs._meta.concrete_fields:
            value, expected = getattr(mine, field.attname), getattr(theirs, field.attname)
            assert (bytes(value) if isinstance(value, memoryview) else value) == (
                bytes(expected) if isinstance(expected, memoryview) else expected
            ), field.name
    assert connection.in_atomic_block is False
