"""RACES 12: a restored older database never treats copies that it does not know as garbage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from storage.cluster import generations
from storage.cluster.topology import Topology
from storage.exceptions import ForeignDatabase
from storage.models import Chunk, File, Generation, Job, Node, nobody
from storage.models.clock import Clock
from storage.services import adopt, audit, catalogue, drain, health, probe, reclaim, sweep
from storage.services.adopt import Unknown
from storage.volumes import GENERATIONS, MANY
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.database import DatabaseCopy


@pytest.fixture(autouse=True)
def a_minute_passes_at_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "SPAN", timedelta(0))
    monkeypatch.setattr(generations, "GOOD_SECONDS", 0.0)
    monkeypatch.setattr(generations, "_good_until", 0.0)


def upload(cluster: ClusterUnderTest, name: str) -> bytes:
    data = content_of(3, name)
    cluster.upload(data, name)
    return data


def read(cluster: ClusterUnderTest) -> dict[str, bytes]:
    """Name → content of every file in the database that is used now."""
    return {file.name: cluster.download(file) for file in File.objects.select_related("content")}


def tidy(cluster: ClusterUnderTest) -> None:
    """Run everything that removes copies: a census of all nodes, and reclaim without a grace period."""
    audit.request_census()
    cluster.maintain()
    for _ in range(3):
        try:
            reclaim.reclaim(0)
        except ForeignDatabase:
            continue


def nothing(cluster: ClusterUnderTest) -> None:
    pass


def deletion(cluster: ClusterUnderTest) -> None:
    catalogue.delete(File.objects.get(name="first"))


def deletion_and_reclaim(cluster: ClusterUnderTest) -> None:
    deletion(cluster)
    tidy(cluster)


@pytest.mark.parametrize("after", [nothing, deletion, deletion_and_reclaim])
def test_what_was_acknowledged_under_either_of_two_databases_stays(
    cluster: ClusterUnderTest, after: Callable[[ClusterUnderTest], None]
) -> None:
    """The older database takes an upload, deletes a file, audits and reclaims. Then the newer database is put back.

    Finally the older database is put back again, as it was after its upload and deletion.
    """
    first = upload(cluster, "first")
    both = upload(cluster, "both")
    older = DatabaseCopy()
    late = upload(cluster, "late")
    after(cluster)
    newer = DatabaseCopy()
    known = set(File.objects.values_list("name", flat=True))
    needed = list(Chunk.objects.filter(condemned_at=None).values_list("hash", flat=True))

    older.put_back()
    diverged = upload(cluster, "diverged")
    catalogue.delete(File.objects.get(name="both"))
    tidy(cluster)
    removed = [chunk_hash for chunk_hash in needed if not cluster.holders(chunk_hash)]
    assert not removed, "an older database has removed what the newer one needs"
    older_later = DatabaseCopy()

    newer.put_back()
    tidy(cluster)
    expected = {"first": first, "both": both, "late": late}
    assert read(cluster) == {name: data for name, data in expected.items() if name in known}

    older_later.put_back()
    tidy(cluster)
    assert cluster.download(File.objects.get(name="diverged")) == diverged
    if "first" in known:  # If the newer database knows the file, it has not reclaimed the file's bytes.
        assert cluster.download(File.objects.get(name="first")) == first


def test_an_older_database_is_told_of_and_refused(cluster: ClusterUnderTest) -> None:
    upload(cluster, "first")
    older = DatabaseCopy()
    upload(cluster, "late")
    older.put_back()
    known = not generations.strangers(generations.look(Topology.load().members))
    assert not known, "the older database is not recognised"
    with pytest.raises(ForeignDatabase):
        reclaim.reclaim(0)
    probe.probe()
    assert set(Node.objects.values_list("foreign_writes", flat=True)) == {True}
    assert "manage.py adopt" in health.examine().degraded["database"]
    tidy(cluster)
    condemned = Chunk.objects.filter(condemned_at__isnull=False).exists()
    assert not condemned, "an older database has condemned what it does not know"


def test_a_drain_waits_for_what_an_older_database_does_not_know(cluster: ClusterUnderTest) -> None:
    older = DatabaseCopy()
    file = cluster.upload(content_of(1))
    (chunk_hash, _), *_ = file.content.manifest()
    node_id = cluster.holders(chunk_hash)[0]
    older.put_back()
    drain.request(node_id)
    job = Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)[0]
    with pytest.raises(Exception, match="not empty"):
        drain.drain(job)
    assert node_id in cluster.holders(chunk_hash)


def test_a_node_whose_writes_are_unknown_is_enough(cluster: ClusterUnderTest) -> None:
    """The other nodes were offline when the newer database wrote."""
    for member in cluster.members()[3:]:
        cluster.take_offline(member.node_id)
    older = DatabaseCopy()
    upload(cluster, "late")
    older.put_back()
    for member in cluster.members()[3:]:
        cluster.bring_back(member.node_id)
    found = generations.strangers(generations.look(Topology.load().members))
    assert [member.node_id for member in found] == ["node_000", "node_001", "node_002"]
    with pytest.raises(ForeignDatabase):
        reclaim.reclaim(0)


def test_what_was_written_last_is_followed_by_another_generation(cluster: ClusterUnderTest) -> None:
    """If a copy of the database was made just before the last write, the service recognises it as older too, after one
    more round of the probe.
    """
    generations.before_writing(Topology.load())
    older = DatabaseCopy()
    upload(cluster, "late")
    probe.probe()
    older.put_back()
    with pytest.raises(ForeignDatabase):
        reclaim.reclaim(0)


def test_a_start_and_a_stop_are_followed_by_another_generation(cluster: ClusterUnderTest) -> None:
    older = DatabaseCopy()
    generations.begin(Topology.load())
    newer = DatabaseCopy()
    older.put_back()
    with pytest.raises(ForeignDatabase):
        reclaim.reclaim(0)
    newer.put_back()
    reclaim.reclaim(0)


def test_its_own_volumes_are_known_whatever_became_of_nodes_and_clocks(cluster: ClusterUnderTest) -> None:
    upload(cluster, "first")
    cluster.take_offline("node_000")
    for _ in range(3):
        probe.probe()
    cluster.bring_back("node_000")
    Generation.objects.update(begun_at="2100-01-01T00:00Z")  # A fast clock that was set back leaves times like this.
    probe.probe()
    upload(cluster, "second")
    reclaim.reclaim(0)
    assert not Node.objects.filter(foreign_writes=True).exists()


@pytest.fixture
def put_back(cluster: ClusterUnderTest) -> Iterator[bytes]:
    """Put back an older database, which does not know the file "late". Yields the bytes of the file "late"."""
    upload(cluster, "first")
    older = DatabaseCopy()
    late = upload(cluster, "late")
    older.put_back()
    probe.probe()
    yield late


def test_an_operator_adopts_and_keeps(cluster: ClusterUnderTest, put_back: bytes) -> None:
    listed: list[tuple[str, int]] = []
    plan = adopt.plan(lambda chunk_hash, size: listed.append((chunk_hash, size)))
    assert (len(plan.foreign), plan.unknown, plan.unknown_bytes) == (5, 3, len(put_back))
    assert sorted(size for _, size in listed) == [2048, 4096, 4096]
    assert (plan.lost, plan.short, plan.kept, plan.silent) == (0, 0, 0, [])
    job = adopt.request(Unknown.KEEP)
    assert cluster.result_of(job)["unknown"] == 3
    assert not Node.objects.filter(foreign_writes=True).exists()
    tidy(cluster)
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in listed)
    assert adopt.plan().kept == 3
    cluster.result_of(adopt.request(Unknown.CONDEMN))
    tidy(cluster)
    assert all(cluster.holders(chunk_hash) == [] for chunk_hash, _ in listed)
    assert set(read(cluster)) == {"first"}


def test_an_operator_adopts_and_condemns(cluster: ClusterUnderTest, put_back: bytes) -> None:
    assert cluster.result_of(adopt.request(Unknown.CONDEMN))["unknown"] == 3
    assert Chunk.objects.filter(condemned_at__isnull=False).count() == 3, "the grace has begun"
    reclaim.reclaim(3600)
    assert Chunk.objects.count() == 6
    tidy(cluster)
    assert Chunk.objects.count() == 3
    assert set(read(cluster)) == {"first"}


def test_a_node_that_was_away_is_not_adopted(cluster: ClusterUnderTest, put_back: bytes) -> None:
    cluster.take_offline("node_004")
    result = cluster.result_of(adopt.request(Unknown.KEEP))
    assert result["silent"] == ["node_004"]
    assert len(result["adopted"]) == 4
    cluster.bring_back("node_004")
    with pytest.raises(ForeignDatabase):
        reclaim.reclaim(0)
    cluster.result_of(adopt.request(Unknown.KEEP))
    reclaim.reclaim(0)


def test_an_adoption_finds_what_the_database_has_and_the_volumes_lack(cluster: ClusterUnderTest) -> None:
    upload(cluster, "first")
    older = DatabaseCopy()
    deletion_and_reclaim(cluster)
    older.put_back()
    assert adopt.plan().lost == 3
    cluster.result_of(adopt.request(Unknown.KEEP))
    cluster.maintain()
    assert not File.objects.get(owner=nobody()).content.retrievable


def test_more_databases_than_a_volume_has_room_for_stay_unknown(cluster: ClusterUnderTest) -> None:
    older = DatabaseCopy()
    for number in range(GENERATIONS + 2):
        older.put_back()
        upload(cluster, f"branch {number}")
    carried = cluster.members()[0].lane.volume.identity().generations
    assert len(carried) <= GENERATIONS
    assert MANY in carried
    with pytest.raises(ForeignDatabase):
        reclaim.reclaim(0)


def test_a_volume_that_is_older_than_it_was_left_is_reconciled(cluster: ClusterUnderTest) -> None:
    """While the cluster runs, a volume is replaced by an older snapshot, which lacks the newest copies."""
    upload(cluster, "first")
    shutil.copytree(cluster.folder("node_000"), cluster.folder("node_000").with_suffix(".old"))
    data = {name: upload(cluster, name) for name in ("one", "two", "three")}
    shutil.rmtree(cluster.folder("node_000"))
    cluster.folder("node_000").with_suffix(".old").rename(cluster.folder("node_000"))
    probe.probe()
    assert Job.objects.filter(kind=Job.Kind.RECONCILE, subject="node_000").exists()
    cluster.maintain()
    for name in data:
        File.objects.get(name=name).content.refresh_from_db()
    assert File.objects.filter(content__min_replication__lt=3).exists(), "what is short is known"
    probe.probe()
    assert Job.objects.filter(kind=Job.Kind.RECONCILE).count() == 1, "once is enough"


def test_generations_are_forgotten_after_a_year_but_for_the_last(cluster: ClusterUnderTest) -> None:
    for _ in range(3):
        generations.begin(Topology.load())
    Generation.objects.update(begun_at=Clock() - timedelta(days=500))
    sweep.sweep()
    assert [generation.pk for generation in Generation.objects.all()] == [Generation.latest()]
    reclaim.reclaim(0)
