"""What /metrics shows. If a part of the system does not answer, the figures of the other parts are still shown."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from threading import Event as Signal
from typing import Any

import pytest
import redis
from django.db import OperationalError, transaction

from storage import counters
from storage.api.metrics import cluster as parts
from storage.api.metrics.cluster import Cluster, Part
from storage.api.metrics.routes import OTHER, route_of
from storage.cluster.topology import Topology
from storage.counters import Event, Outcome
from storage.models import Job, Key, Scope
from storage.models.job_queue import MAX_ATTEMPTS
from storage.recent import Recent
from storage.services import audit, figures, survey
from tests.support.api import WholeClient, assert_problem
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.keys import bearer, keys_on
from tests.support.metrics import Scrape, scrape

__all__ = ["keys_on"]


def grown(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
    return (after(name, **labels) or 0.0) - (before(name, **labels) or 0.0)


# -- requests -------------------------------------------------------------------------------------------------------


def test_every_request_is_counted_whichever_way_it_goes(cluster: ClusterUnderTest) -> None:
    data = content_of(3)
    file_hash = cluster.upload(data).content.file_hash
    before = scrape()
    client = WholeClient()
    assert b"".join(client.get(f"/download/{file_hash}").streaming_content) == data  # type: ignore[attr-defined]
    client.head(f"/download/{file_hash}")
    client.get(f"/files/{file_hash}")
    client.get("/files/nonsense")
    client.put("/upload/a.bin", b"x" * 1000, content_type="text/plain", headers={"Prefer": "respond-async"})
    after = scrape()
    for route, method, status in (
        ("/download/*", "GET", "2xx"),
        ("/download/*", "HEAD", "2xx"),
        ("/files/*", "GET", "2xx"),
        ("/files/*", "GET", "4xx"),
    ):
        assert grown(before, after, "occ_http_requests_total", route=route, method=method, status=status) == 1
    assert grown(before, after, "occ_http_request_duration_seconds_count", route="/files/*") == 2
    assert grown(before, after, "occ_download_wait_seconds_count") == 2
    assert grown(before, after, "occ_http_sent_bytes_total", route="/download/*") == len(data)
    assert grown(before, after, "occ_http_received_bytes_total") == 1000
    assert grown(before, after, "occ_http_problems_total", code="invalid_request") == 1


def test_labels_have_few_values_whatever_clients_send(cluster: ClusterUnderTest) -> None:
    client = WholeClient()
    before = len(scrape().samples)
    for number in range(20):
        client.get(f"/nothing{number}/there")
        client.get(f"/files/{number:064x}")
        client.generic(f"METHOD{number}", "/files")
    after = scrape()
    assert len(after.samples) - before < 80
    assert OTHER in after.labels("occ_http_requests_total", "route")
    assert OTHER in after.labels("occ_http_requests_total", "method")
    for _, labels in after.samples:
        assert not any(re.search(r"[0-9a-f]{16}", value) for _, value in labels)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("", "/"),
        ("/upload", "/upload"),
        ("/upload/", "/upload"),
        ("/upload/a/b/c", "/upload/*"),
        ("/files/0", "/files/*"),
        ("/share/token/name", "/share/*"),
        ("/admin/storage/node/", "/admin/*"),
        ("/static/occ/pages.css", "/static/*"),
        ("/metrics", "/metrics"),
        ("/filesystem", OTHER),
        ("/../etc", OTHER),
    ],
)
def test_a_route_is_the_first_part_of_a_known_path(path: str, route: str) -> None:
    assert route_of(path) == route


# -- the cluster ----------------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_cluster(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(30))
    survey.survey()
    cluster.result_of(audit.request_census())
    cluster.accept(content_of(2, "waits"))
    found = scrape()
    assert [found(f"occ_{part}_up") for part in ("postgresql", "redis", "health")] == [1, 1, 1]
    assert (found("occ_ready"), found("occ_files"), found("occ_chunks")) == (1, 1, 30)
    assert found("occ_chunks_by_copies", copies="3") == 30
    assert found("occ_chunks_by_copies_lower_bound", copies="3") == 30
    assert found("occ_census_chunks", found="lost") == 0
    assert found("occ_census_copies") == 90
    assert found("occ_census_on_disk_bytes") == found("occ_census_bytes") == 3 * len(content_of(30))
    assert found("occ_jobs_waiting", queue="ingest", waiting_for="worker") == 1
    assert found("occ_jobs_waiting", queue="maintenance", waiting_for="worker") == 0
    assert found("occ_staging_uploads") == 1
    assert sum(found("occ_node_copies", node=f"node_{n:03}") or 0 for n in range(5)) == 90
    free, size = (found(name, node="node_000") for name in ("occ_node_disk_free_bytes", "occ_node_disk_bytes"))
    assert free is not None
    assert size is not None
    assert 0 < free < size


def test_a_lost_node_shows_in_its_state_and_in_the_troubles(cluster: ClusterUnderTest) -> None:
    cluster.take_offline("node_003")
    found = scrape()
    assert found("occ_node_up", node="node_003") == 0
    assert found("occ_node_state", node="node_003", state="offline") == 1
    assert found("occ_troubles", severity="degraded", trouble="node") == 1
    assert found("occ_ready") == 1


def test_a_survey_and_an_age_cost_nothing_and_are_those_of_the_last_survey(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.upload(content_of(10))
    assert scrape()("occ_survey_timestamp_seconds") is None
    survey.survey()
    taken = scrape()("occ_survey_timestamp_seconds")
    cluster.upload(content_of(10, "more"))
    again = scrape()
    assert again("occ_survey_timestamp_seconds") == taken
    assert again("occ_chunks_by_copies", copies="3") == 10


@pytest.mark.parametrize(
    ("part", "gone", "left"),
    [
        ("postgresql", "occ_files", "occ_failovers_total"),
        ("redis", "occ_failovers_total", "occ_files"),
        ("health", "occ_staging_disk_bytes", "occ_files"),
    ],
)
def test_a_part_that_is_away_costs_its_own_figures(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch, part: str, gone: str, left: str
) -> None:
    def refuse() -> Any:
        raise redis.ConnectionError("away") if part == "redis" else OperationalError("away")

    broken = tuple(Part(p.name, refuse, p.figures) if p.name == part else p for p in parts.PARTS)
    monkeypatch.setattr(Cluster.__init__, "__defaults__", (broken,))
    found = scrape()
    assert found(f"occ_{part}_up") == 0
    assert found(gone) is None
    assert found(left) is not None
    assert gone in found.names
    assert found("occ_http_request_duration_seconds_count", route="/metrics") is not None


@pytest.fixture
def hanging() -> Iterator[tuple[Part, list[float], Signal]]:
    """A part that hangs until a signal is set, and the times at which it was asked."""
    released, times = Signal(), list[float]()

    def hang() -> None:
        times.append(time.monotonic())
        released.wait(60)

    yield Part("redis", hang, ()), times, released
    released.set()


def test_a_part_that_hangs_is_not_waited_for_and_not_asked_again(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch, hanging: tuple[Part, list[float], Signal]
) -> None:
    part, times, _ = hanging
    monkeypatch.setattr(parts, "PATIENCE", 0.5)
    watched = Cluster((part, Part("postgresql", figures.stored, ())))
    watched._recent = Recent(0.0)
    for _ in range(3):
        begun = time.monotonic()
        found = {sample.name: sample.value for metric in watched.collect() for sample in metric.samples}
        assert time.monotonic() - begun < 5
        assert (found["occ_redis_up"], found["occ_postgresql_up"]) == (0, 1)
    assert len(times) == 1


def test_scrapes_in_a_row_ask_once(cluster: ClusterUnderTest) -> None:
    asked: list[int] = []

    def ask() -> int:
        asked.append(1)
        return 1

    watched = Cluster((Part("redis", ask, ()),))
    for _ in range(5):
        list(watched.collect())
    assert len(asked) == 1


# -- jobs -----------------------------------------------------------------------------------------------------------


def ended(kind: Job.Kind, outcome: Outcome) -> int:
    counters.flush()
    return counters.read().jobs.get((kind.value, outcome.value), 0)


def test_a_job_is_counted_when_its_end_is_committed(cluster: ClusterUnderTest) -> None:
    before = ended(Job.Kind.INGEST, Outcome.SUCCEEDED)
    size = counters.read().sizes.get(Job.Kind.INGEST.value, 0)
    data = content_of(3)
    cluster.upload(data)
    assert ended(Job.Kind.INGEST, Outcome.SUCCEEDED) == before + 1
    assert counters.read().sizes[Job.Kind.INGEST.value] == size + len(data)
    job = cluster.accept(content_of(2, "cancelled")).job
    with pytest.raises(RuntimeError), transaction.atomic():
        Job.cancel([job.pk])
        raise RuntimeError("the transaction is undone")
    assert ended(Job.Kind.INGEST, Outcome.CANCELLED) == 0
    Job.cancel([job.pk])
    Job.cancel([job.pk])
    assert ended(Job.Kind.INGEST, Outcome.CANCELLED) == 1


def test_failed_attempts_and_failed_jobs_are_told_apart(cluster: ClusterUnderTest) -> None:
    Job.request(Job.Kind.TRACE, "cluster")
    for _ in range(MAX_ATTEMPTS):
        Job.objects.update(not_before=Job.objects.get().created_at)
        (job,) = Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
        job.retry("Failed", "on purpose")
    assert ended(Job.Kind.TRACE, Outcome.RETRIED) == MAX_ATTEMPTS - 1
    assert ended(Job.Kind.TRACE, Outcome.FAILED) == 1


def test_a_job_whose_workers_die_is_counted_as_failed(cluster: ClusterUnderTest) -> None:
    job = Job.request(Job.Kind.TRACE, "cluster")
    Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
    Job.objects.update(attempts=MAX_ATTEMPTS, lease_expires_at=job.created_at)
    assert Job.objects.requeue_stale() == 0
    assert ended(Job.Kind.TRACE, Outcome.FAILED) == 1


def test_counts_of_events_and_jobs_begin_with_zero(cluster: ClusterUnderTest) -> None:
    found = scrape()
    assert found("occ_jobs_total", kind="drain", outcome="failed") == 0
    assert all(name.endswith("_total") for name in found.names if name.startswith("occ_failovers"))
    assert found("occ_reclaimed_bytes_total") == counters.totals()[Event.BYTES_RECLAIMED]


# -- who may see the metrics ----------------------------------------------------------------------------------------


def test_metrics_are_for_admins_where_keys_are_on(keys_on: ClusterUnderTest) -> None:
    client = WholeClient()
    assert_problem(client.get("/metrics"), 401)
    assert_problem(client.get("/metrics", headers=bearer("reader")), 403)
    assert scrape(bearer("watcher", [Scope.ADMIN]))("occ_ready") == 1


def test_metrics_take_any_accept(cluster: ClusterUnderTest) -> None:
    for accepted in ("text/plain", "application/openmetrics-text;version=1.0.0", "text/html"):
        answer = WholeClient().get("/metrics", headers={"Accept": accepted})
        assert answer.headers["Content-Type"].startswith("text/plain")


def test_a_key_that_was_good_opens_the_metrics_while_postgresql_is_away(
    keys_on: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = bearer("watcher", [Scope.ADMIN]), bearer("other", [Scope.ADMIN])
    reader = bearer("reader", [Scope.READ])
    client = WholeClient()
    assert client.get("/metrics", headers=known).status_code == 200
    assert client.get("/files", headers=reader).status_code == 200
    monkeypatch.setattr("storage.accounts.principals.GOOD_SECONDS", 0.0)

    def refuse(_: str) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(Key, "find_good", refuse)
    assert client.get("/metrics", headers=known).status_code == 200
    assert_problem(client.get("/metrics", headers=unknown), 503)
    assert client.get("/metrics", headers=reader).status_code in (403, 503)
    assert_problem(client.get("/status", headers=known), 503)
    wrong = {"Authorization": known["Authorization"][:-1] + ("a" if known["Authorization"][-1] != "a" else "b")}
    assert_problem(client.get("/metrics", headers=wrong), 503)


def test_the_probes_are_open_and_the_version_is_not(keys_on: ClusterUnderTest) -> None:
    client = WholeClient()
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == client.get("/health").json()
    assert_problem(client.get("/version"), 401)
    assert client.get("/version", headers=bearer("reader", [Scope.READ])).json() == {"version": "0.1.0"}


def test_livez_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test without the mark ``django_db`` may not use a database, so this test shows that /livez asks none."""
    monkeypatch.setattr(Topology, "recent", None)
    assert WholeClient().get("/livez").status_code == 200
