"""Every search among millions of rows has an index that PostgreSQL can use for the statement as it is written."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from django.contrib.admin import site
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpRequest
from django.test import Client, RequestFactory

from storage.cluster.topology import Topology
from storage.models import Chunk, Content, File, Job, Sort, nobody
from storage.services import catalogue, probe, reclaim, sweep
from tests.support.cluster import ClusterUnderTest, content_of


def plans_of(operation: Callable[[], Any]) -> str:
    """The plans of the statements of ``operation``.

    Sequential scans are made costly, as they are on large tables. The tables here are small.
    """
    plans: list[str] = []

    def explain(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if sql.lstrip().split()[0] in ("SELECT", "WITH", "UPDATE", "DELETE") and "pg_" not in sql:
            execute("EXPLAIN " + sql, params, False, context)
            plans.extend(row[0] for row in context["cursor"].fetchall())
        return execute(sql, params, many, context)

    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        with connection.execute_wrapper(explain):
            operation()
        cursor.execute("RESET enable_seqscan")
    return "\n".join(plans)


def searched(model: type[File | Job], term: str) -> list[Any]:
    request: HttpRequest = RequestFactory().get("/")
    page = site.get_model_admin(model)
    return list(page.get_search_results(request, page.get_queryset(request), term)[0].order_by())


def listed(path: str) -> None:
    client = Client()
    client.force_login(User.objects.get_or_create(username="admin", is_staff=True, is_superuser=True)[0])
    assert client.get(path).status_code == 200


def pages(sort: Sort, prefix: str = "") -> None:
    first = catalogue.page(nobody(), limit=100, sort=sort, prefix=prefix)
    catalogue.page(nobody(), limit=100, sort=sort, prefix=prefix, after=first.last)


ROWS = """
INSERT INTO storage_content (file_hash, size, chunk_size, chunk_count, state, created_at, retrievable, min_replication,
       avg_replication, max_replication, health_epoch)
SELECT sha256(int4send(i)), 1, 1, 1, 'ready', now(), true, 3, 3, 3, (SELECT topology_epoch FROM storage_cluster)
  FROM generate_series(1, 3000) AS i;
INSERT INTO storage_file (owner_id, content_id, name, size, replication_factor, created_at)
SELECT (SELECT min(id) FROM auth_user), id, md5(id::text), 1, 3, now() FROM storage_content WHERE chunk_size = 1;
INSERT INTO storage_chunk (hash, size) SELECT sha256(int4send(i)), 1 FROM generate_series(1, 3000) AS i;
INSERT INTO storage_job (id, kind, queue, priority, size, state, done, total, waiting_for, attempts, fence, finished_at)
SELECT gen_random_uuid(), 'ingest', 'ingest', 0, 1, 'succeeded', 1, 1, '', 1, 1, now() FROM generate_series(1, 3000);
ANALYZE
"""

INDEXED: tuple[tuple[Callable[[], Any], str], ...] = (
    (sweep.sweep, "Index Scan using content_short"),
    (sweep.sweep, "using job_created … Index Cond: (created_at <"),
    (probe.probe, "using content_health … Index Cond: (health_epoch <"),
    (probe.probe, "job_subject … Index Cond: "),
    (lambda: Content.objects.outdated(1000, 500), "Index Scan using content_health … Index Cond: (health_epoch = "),
    (File.count_ready, "content_unreadable … Index Cond: ((state)::text = 'ingesting'::text)"),
    (Content.objects.filter(state="ready", retrievable=False).count, "content_unreadable"),
    (
        lambda: Content.objects.look_again_at_lost(500),
        "content_unreadable … Index Cond: ((state)::text = 'ready'::text)",
    ),
    (lambda: reclaim.plan(Topology.load(), 60), "chunk_condemned"),
    (lambda: searched(File, "annual"), "file_name_trigrams … Index Cond: "),
    (lambda: searched(File, "0123456789"), "storage_content_file_hash_key … Index Cond: "),
    (lambda: pages(Sort("file_name")), "using file_by_name … Index Cond: … (ROW("),
    (lambda: pages(Sort("file_name", descending=True)), "Backward using file_by_name … Index Cond: … (ROW("),
    (lambda: pages(Sort("file_size")), "using file_by_size … Index Cond: … (ROW("),
    (lambda: pages(Sort("file_name"), prefix="7f"), "using file_by_name … Index Cond: … >= '7f'"),
    (lambda: searched(Job, "content 7"), "job_subject"),
    (lambda: listed("/admin/storage/job/"), "using job_subject on storage_job"),
    (lambda: listed("/admin/storage/job/?work=uploads"), "Index Scan Backward using job_created"),
    (lambda: listed("/admin/storage/job/?work=uploads"), "SubPlan … storage_content_file_hash_key … Index Cond: "),
    (lambda: searched(Job, "0123abcd"), "storage_job_pkey … Index Cond: "),
    (lambda: list(Chunk.objects.wanted("7f")), "storage_chunk_hash_key … Index Cond: "),
)


def test_what_is_looked_for_has_an_index(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(2), "annual report")
    with connection.cursor() as cursor:
        cursor.execute(ROWS)
    for operation, expected in INDEXED:
        plan = plans_of(operation)
        rest = " ".join(plan.split())
        for part in expected.split(" … "):
            assert part in rest, f"{expected}:\n{plan}"
            rest = rest.partition(part)[2]


def test_who_may_not_have_the_extension_has_a_search_without_it(db: None) -> None:
    trigrams = import_module("storage.migrations.0005_tallies").TRIGRAMS
    with connection.cursor() as cursor:
        cursor.execute("DROP EXTENSION pg_trgm CASCADE; CREATE ROLE weak; SET LOCAL ROLE weak")
        cursor.execute(trigrams)
        cursor.execute("RESET ROLE")
        cursor.execute("SELECT to_regclass('file_name_trigrams')")
        assert cursor.fetchone()[0] is None
        cursor.execute(trigrams)
        cursor.execute("SELECT to_regclass('file_name_trigrams')")
        assert cursor.fetchone()[0] == "file_name_trigrams"
    assert searched(File, "annual") == []
