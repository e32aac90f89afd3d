"""The totals that PostgreSQL keeps are equal to a count of the rows, whatever statement changed the rows (ADR 12)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Count, Max, Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.models import Chunk, Content, File, Tally, tally

# Statements that change one row or many. Hypothesis draws `$n` and `$m`. The numbers are small, so that statements
# often change the same rows.
CHUNKS_ARRIVE = (
    "INSERT INTO storage_chunk (hash, size) SELECT sha256(int4send(i)), 1 FROM generate_series($n, $n + $m) AS i"
    " ON CONFLICT (hash) DO UPDATE SET condemned_at = NULL"
)
CONTENTS_ARRIVE = (
    "INSERT INTO storage_content (file_hash, size, chunk_size, chunk_count, state, created_at, retrievable,"
    " min_replication, avg_replication, max_replication, health_epoch)"
    " SELECT sha256(int4send(i)), i, 1, i, (ARRAY['ready', 'ingesting'])[1 + i % 2], now(), false, 0, 0, 0, -1"
    " FROM generate_series($n, $n + $m) AS i ON CONFLICT (file_hash) DO UPDATE SET file_hash = EXCLUDED.file_hash"
)
FILES_ARRIVE = (
    "INSERT INTO storage_file AS f (owner_id, content_id, name, size, replication_factor, created_at)"
    " SELECT u.id, c.id, chr(97 + $n % 2), c.size, 1 + $m % 5, now() FROM auth_user u, storage_content c"
    " WHERE (u.id + c.id) % 5 <> $n % 5"
    " ON CONFLICT (owner_id, content_id, name) DO UPDATE"
    " SET replication_factor = greatest(f.replication_factor, EXCLUDED.replication_factor)"
)
STATEMENTS = (
    CHUNKS_ARRIVE,
    "INSERT INTO storage_chunk (hash, size) SELECT sha256(int4send(i)), 1 FROM generate_series($n, $n + $m) AS i"
    " ON CONFLICT DO NOTHING",
    "DELETE FROM storage_chunk WHERE id % 7 = $m",
    CONTENTS_ARRIVE,
    FILES_ARRIVE,
    "UPDATE storage_file SET replication_factor = 1 + (id + $n) % 5 WHERE id % 3 = $m % 3",
    "UPDATE storage_file SET name = md5(name || id)",
    "UPDATE storage_file f SET owner_id = (SELECT id FROM auth_user u ORDER BY id LIMIT 1) WHERE id % 4 = $m % 4"
    " AND NOT EXISTS (SELECT FROM storage_file g WHERE g.content_id = f.content_id AND g.id <> f.id)",
    "UPDATE storage_file f SET content_id = (SELECT max(id) FROM storage_content) WHERE id = (SELECT min(id) FROM"
    " storage_file g WHERE NOT EXISTS (SELECT FROM storage_file h WHERE h.owner_id = g.owner_id"
    " AND h.content_id = (SELECT max(id) FROM storage_content)))",
    "DELETE FROM storage_file WHERE id % 7 = $m",
    "WITH gone AS (DELETE FROM storage_file WHERE content_id % 5 = $m % 5 RETURNING content_id)"
    " UPDATE storage_content c SET chunk_count = chunk_count + $n FROM gone WHERE gone.content_id = c.id",
    "UPDATE storage_content SET chunk_count = chunk_count + $n WHERE id % 3 = $m % 3",
    "UPDATE storage_content SET state = (ARRAY['ready', 'ingesting'])[1 + (id + $n) % 2], health_epoch = $m",
    # Foreign keys are checked when the transaction ends, so contents may be deleted before their files.
    "DELETE FROM storage_content WHERE id % 7 = $m; DELETE FROM storage_file f"
    " WHERE NOT EXISTS (SELECT FROM storage_content c WHERE c.id = f.content_id)",
    "FOLD",
)
DRAWN = st.tuples(st.sampled_from(STATEMENTS), st.integers(0, 12), st.integers(0, 6), st.booleans())


def carry_out(statement: str, n: int, m: int) -> None:
    if statement == "FOLD":
        Tally.fold()
        return
    with connection.cursor() as cursor:
        cursor.execute(statement.replace("$n", str(n)).replace("$m", str(m)))


def require_exact() -> None:
    """Compare every total with a count of its rows."""
    files = dict(File.objects.order_by().values_list("owner").annotate(n=Count("pk")))
    assert Tally.totals(Tally.What.FILES) == files
    sizes = dict(File.objects.order_by().values_list("owner").annotate(n=Sum("size")))
    assert Tally.totals(Tally.What.BYTES) == {owner: size for owner, size in sizes.items() if size}
    assert sum(Tally.totals(Tally.What.CHUNKS).values()) == Chunk.objects.count()
    largest = dict(File.objects.order_by().values_list("content").annotate(most=Max("replication_factor")))
    assert dict(Content.objects.values_list("pk", "target")) == {
        pk: largest.get(pk, 0) for pk in Content.objects.values_list("pk", flat=True)
    }
    wanted = (
        Content.objects.filter(target__gt=0, chunk_count__gt=0).values_list("target").annotate(n=Sum("chunk_count"))
    )
    assert Content.chunks_by_target() == dict(wanted)
    assert File.count_ready() == File.objects.filter(content__state=Content.State.READY).count()
    for owner in User.objects.all():
        assert File.count_ready(owner) == owner.files.filter(content__state=Content.State.READY).count()


@pytest.fixture
def always_folding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "FOLD_FROM", 0)


@pytest.mark.usefixtures("always_folding")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(STATEMENTS), st.integers(0, 12), st.integers(0, 6), st.booleans()),
        min_size=3,
        max_size=15,
    )
)
def test_totals_are_exact_after_any_statements(db: None, drawn: list[tuple[str, int, int, bool]]) -> None:
    with transaction.atomic():
        for name in ("ann", "bob"):
            User.objects.create(username=name)
        for statement in (CHUNKS_ARRIVE, CONTENTS_ARRIVE, FILES_ARRIVE):
            carry_out(statement, 1, 6)
        require_exact()
        for statement, n, m, kept in drawn:
            with transaction.atomic():
                carry_out(statement, n, m)
                transaction.set_rollback(not kept)
            require_exact()
        transaction.set_rollback(True)


NEW_CHUNK = "INSERT INTO storage_chunk (hash, size) VALUES (sha256(%s::text::bytea), 1)"
NEW_FILE = (
    "INSERT INTO storage_file (owner_id, content_id, name, size, replication_factor, created_at)"
    " VALUES (%s, %s, 'a', 1, %s, now())"
)


def execute(statement: str, *params: str | int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Run the ``with`` block in a transaction, and then ``act`` in another session.

    The transaction is committed when ``act`` waits for one of its locks. After the commit, this function waits for the
    end of ``act``.
    """

    def in_session() -> None:
        try:
            act()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            yield
            acting = pool.submit(in_session)
            deadline = time.monotonic() + 10
            with connection.cursor() as cursor:
                while True:
                    cursor.execute("SELECT FROM pg_locks WHERE NOT granted")
                    if cursor.rowcount:
                        break
                    assert time.monotonic() < deadline, "it does not wait"
                    time.sleep(0.01)
        acting.result(timeout=10)


def test_nobody_waits_for_anothers_commit(transactional_db: None, always_folding: None) -> None:
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute(NEW_CHUNK, ["a"])
        with transaction.atomic():
            execute("SET LOCAL lock_timeout = '2s'")
            execute(NEW_CHUNK, "b")
            Tally.fold()
        assert Tally.totals(Tally.What.CHUNKS) == {0: 1}
    assert Tally.totals(Tally.What.CHUNKS) == {0: 2}
    Tally.fold()
    assert Tally.totals(Tally.What.CHUNKS) == {0: 2}
    assert Tally.objects.count() == 1


def test_two_who_fold_at_once_lose_nothing(transactional_db: None, always_folding: None) -> None:
    for name in "abc":
        execute(NEW_CHUNK, name)
    with meanwhile(Tally.fold):
        Tally.fold()
        execute(NEW_CHUNK, "d")
    assert Tally.totals(Tally.What.CHUNKS) == {0: 4}


def test_the_target_is_the_largest_of_factors_that_came_at_once(transactional_db: None) -> None:
    ann, bob = (User.objects.create(username=name) for name in ("ann", "bob"))
    carry_out(CONTENTS_ARRIVE, 4, 0)
    content = Content.objects.get()
    with meanwhile(lambda: execute(NEW_FILE, bob.pk, content.pk, 2)):
        execute(NEW_FILE, ann.pk, content.pk, 4)
    with meanwhile(lambda: execute("DELETE FROM storage_file WHERE owner_id = %s", ann.pk)):
        execute("UPDATE storage_file SET replication_factor = 3 WHERE owner_id = %s", bob.pk)
    content.refresh_from_db()
    assert content.target == 3
    require_exact()


def test_files_from_before_quotas_are_counted_by_the_migration(transactional_db: None) -> None:
    ann, bob = (User.objects.create(username=name) for name in ("ann", "bob"))
    try:
        call_command("migrate", "storage", "0018", verbosity=0)
        carry_out(CONTENTS_ARRIVE, 4, 2)
        for content in Content.objects.all():
            execute(NEW_FILE, ann.pk, content.pk, 2)
        execute("DELETE FROM storage_file WHERE id = (SELECT min(id) FROM storage_file)")
        assert Tally.totals(Tally.What.FILES) == {ann.pk: 2}
        assert Tally.totals(Tally.What.BYTES) == {}
    finally:
        call_command("migrate", "storage", verbosity=0)
    require_exact()
    execute("UPDATE storage_file SET owner_id = %s WHERE id = (SELECT max(id) FROM storage_file)", bob.pk)
    require_exact()
