from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection

from storage.models.locks import Lock, advisory_lock, free_advisory_lock, shared_advisory_lock

pytestmark = pytest.mark.django_db


@pytest.fixture
def other_session() -> Iterator[psycopg.Connection[tuple[bool]]]:
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as session:
        yield session


def is_free(session: psycopg.Connection[tuple[bool]], lock: Lock, suffix: str = "") -> bool:
    """True if ``session`` can take the lock. The session then releases the lock at once."""
    (taken,) = session.execute(f"SELECT pg_try_advisory_lock{suffix}(%s)", [lock.value]).fetchone() or (False,)
    if taken:
        session.execute(f"SELECT pg_advisory_unlock{suffix}(%s)", [lock.value])
    return taken


def test_no_two_locks_have_one_key() -> None:
    assert len({lock.value for lock in Lock}) == len(Lock.__members__)


def test_a_lock_is_held_while_the_body_runs_whatever_ends_it(other_session: psycopg.Connection[tuple[bool]]) -> None:
    with pytest.raises(ValueError, match="the body"), advisory_lock(Lock.GIVING):
        assert not is_free(other_session, Lock.GIVING)
        assert is_free(other_session, Lock.PROVISIONING)
        raise ValueError("the body")
    assert is_free(other_session, Lock.GIVING)


def test_whoever_only_tries_is_told_whether_it_has_the_lock(
    other_session: psycopg.Connection[tuple[bool]],
) -> None:
    other_session.execute("SELECT pg_advisory_lock(%s)", [Lock.RECLAIMING.value])
    with free_advisory_lock(Lock.RECLAIMING) as is_held:
        assert not is_held
    other_session.execute("SELECT pg_advisory_unlock(%s)", [Lock.RECLAIMING.value])
    with free_advisory_lock(Lock.RECLAIMING) as is_held:
        assert is_held
        assert not is_free(other_session, Lock.RECLAIMING)
    assert is_free(other_session, Lock.RECLAIMING)


def test_a_shared_lock_keeps_only_whoever_wants_it_alone_waiting(
    other_session: psycopg.Connection[tuple[bool]],
) -> None:
    ended = threading.Event()

    def wait_for_the_others() -> None:
        other_session.execute("SELECT pg_advisory_lock(%s)", [Lock.BATCHES_IN_FLIGHT.value])
        ended.set()

    with shared_advisory_lock(Lock.BATCHES_IN_FLIGHT):
        assert is_free(other_session, Lock.BATCHES_IN_FLIGHT, "_shared")
        waiter = threading.Thread(target=wait_for_the_others)
        waiter.start()
        assert not ended.wait(0.2)
    assert ended.wait(20)
    waiter.join()
