from __future__ import annotations

import pytest
import redis
from django.db.models import Sum

from storage.cluster.topology import Topology
from storage.exceptions import ContentGone, ContentUnavailable, NoSuchFile
from storage.models import Holding, Job, Node
from storage.replicas.judging import judge
from storage.services import catalogue, retrieve, verify
from storage.volumes import FilesystemVolume
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of


def test_a_corrupt_copy_is_passed_over_reported_and_mended(cluster: ClusterUnderTest) -> None:
    """Invariant 8: every byte is verified; readers report bad copies, and workers judge them."""
    data = content_of(4)
    file = cluster.upload(data)
    for chunk_hash, _ in file.content.manifest():
        node_id = cluster.holders(chunk_hash)[0]
        path = cluster.replica_path(node_id, chunk_hash)
        corrupt = bytearray(path.read_bytes())
        corrupt[100] ^= 1
        path.write_bytes(corrupt)
    for _ in range(2):
        assert cluster.download(file) == data
    # The downloads may have met only some of the bad copies. A repair of each chunk looks at every copy.
    for chunk_hash, _ in file.content.manifest():
        Job.request(Job.Kind.REPAIR, chunk_hash)
    repairs = [job for job in cluster.maintain() if job.kind == Job.Kind.REPAIR]
    assert len(repairs) == 4
    assert sum(job.result["quarantined"] for job in repairs if job.result) == 4
    for chunk_hash, _ in file.content.manifest():
        assert len(cluster.holders(chunk_hash)) == 3
        assert len(list(cluster.configuration.nodes_dir.glob(f"*/quarantine/{chunk_hash}~*"))) == 1
    assert cluster.false_negatives() == []


def test_a_reader_that_meets_a_corrupt_copy_queues_its_repair(cluster: ClusterUnderTest) -> None:
    data = content_of(1)
    file = cluster.upload(data)
    chunk_hash, size = file.content.manifest()[0]
    first, second, third = cluster.holders(chunk_hash)
    for node_id in (first, second):
        cluster.replica_path(node_id, chunk_hash).write_bytes(b"\0" * size)
    cluster.take_offline(third)
    with pytest.raises(ContentUnavailable):
        cluster.download(file)
    assert Job.objects.filter(kind=Job.Kind.REPAIR, subject=chunk_hash).exists()
    cluster.bring_back(third)
    assert cluster.download(file) == data


def test_the_last_copies_are_never_quarantined(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(1))
    chunk_hash, size = file.content.manifest()[0]
    for node_id in cluster.holders(chunk_hash):
        cluster.replica_path(node_id, chunk_hash).write_bytes(b"\0" * size)
    Job.request(Job.Kind.REPAIR, chunk_hash)
    cluster.maintain()
    assert len(cluster.holders(chunk_hash)) == 3


def test_a_bad_copy_that_another_hand_has_removed_does_not_count_as_quarantined(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 16: two repairs of a chunk may meet, and the second one finds the copy gone."""
    file = cluster.upload(content_of(1))
    chunk_hash, size = file.content.manifest()[0]
    held = Node.objects.aggregate(Sum("chunks"), Sum("bytes"))
    bad, *rest = cluster.holders(chunk_hash)
    cluster.replica_path(bad, chunk_hash).write_bytes(b"\0" * size)
    quarantine = FilesystemVolume.quarantine

    def late(volume: FilesystemVolume, name: str, token: str) -> bytes | None:
        cluster.replica_path(bad, name).unlink()
        return quarantine(volume, name, token)

    monkeypatch.setattr(FilesystemVolume, "quarantine", late)
    good, data, quarantined = judge(Topology.load(), chunk_hash, size)
    assert ({member.node_id for member in good}, quarantined) == (set(rest), 0)
    assert data is not None
    assert Node.objects.aggregate(Sum("chunks"), Sum("bytes")) == held


def test_one_good_copy_is_enough_whichever_nodes_are_away(cluster: ClusterUnderTest) -> None:
    data = content_of(3)
    file = cluster.upload(data)
    for node_id in ("node_000", "node_003"):
        cluster.take_offline(node_id)
    assert cluster.download(file) == data


def test_what_only_absent_nodes_may_have_is_unavailable_not_gone(cluster: ClusterUnderTest) -> None:
    """RACES 14: the answer is 410 only if every node has answered."""
    file = cluster.upload(content_of(1))
    for node_id in cluster.holders(file.content.manifest()[0][0]):
        cluster.take_offline(node_id)
    with pytest.raises(ContentUnavailable):
        cluster.read(file)


def test_an_empty_mount_point_does_not_say_gone(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(1))
    for node_id in cluster.holders(file.content.manifest()[0][0]):
        folder = cluster.folder(node_id)
        folder.rename(folder.with_suffix(".away"))
        (folder / "chunks" / "00").mkdir(parents=True)
    with pytest.raises(ContentUnavailable):
        cluster.read(file)


def test_what_every_node_says_is_absent_is_gone(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(1))
    chunk_hash, _ = file.content.manifest()[0]
    for node_id in cluster.holders(chunk_hash):
        cluster.replica_path(node_id, chunk_hash).unlink()
    with pytest.raises(ContentGone):
        cluster.read(file)


def test_a_flush_of_redis_breaks_no_download(cluster: ClusterUnderTest, redis_client: redis.Redis) -> None:
    """Invariant 5: Redis is only a hint."""
    data = content_of(20)
    file = cluster.upload(data)
    redis_client.flushall()
    assert cluster.download(file) == data


def test_a_wrong_sketch_breaks_no_download(cluster: ClusterUnderTest, redis_client: redis.Redis) -> None:
    """RACES 14: a zero register only orders reads. Here all registers are zero, and all of them are wrong."""
    data = content_of(20)
    file = cluster.upload(data)
    for key in redis_client.keys("*:sketch:*"):
        redis_client.setrange(key, redis_client.strlen(key) - 10_000, b"\0" * 10_000)
    assert len(cluster.false_negatives()) == 60
    assert cluster.download(file) == data


def test_a_file_that_is_deleted_between_being_found_and_being_read_is_not_an_empty_one(
    cluster: ClusterUnderTest,
) -> None:
    file = cluster.upload(content_of(2))
    catalogue.delete(catalogue.find(file.owner, file.content.file_hash))
    held = Holding.of_file(file)
    for use in (
        lambda: verify.verify(held),
        lambda: verify.distribution(held.content),
        lambda: cluster.read(file),
    ):
        with pytest.raises(NoSuchFile):
            use()


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the first three entries of a manifest together with the file, and the rest two at a time."""
    monkeypatch.setattr("storage.models.statements.open_content.HEAD", 3)
    monkeypatch.setattr("storage.models.statements.open_content.WINDOW", 2)
    monkeypatch.setattr("storage.replicas.reading.LOCATE_CHUNKS", 1)
    monkeypatch.setattr("storage.replicas.reading.READ_AHEAD_CHUNKS", 1)


@pytest.mark.usefixtures("small_windows")
def test_a_long_manifest_is_read_in_windows(cluster: ClusterUnderTest) -> None:
    data = content_of(12)
    file = cluster.upload(data)
    assert cluster.download(file) == data
    found = retrieve.open_file(file.owner, file.content.file_hash)
    for first, last in ((0, 0), (2, 3), (3, 3), (4, 11), (7, 8)):
        wanted = range(first * CHUNK_SIZE + 1, last * CHUNK_SIZE + 2)
        assert b"".join(retrieve.retrieve(found, [wanted])) == data[wanted.start : wanted.stop]
    apart = [range(1), range(5 * CHUNK_SIZE, 5 * CHUNK_SIZE + 2), range(5 * CHUNK_SIZE + 4, 11 * CHUNK_SIZE)]
    assert b"".join(retrieve.retrieve(found, apart)) == b"".join(data[wanted.start : wanted.stop] for wanted in apart)


@pytest.mark.usefixtures("small_windows")
def test_a_file_that_is_deleted_while_it_is_read_breaks_off(cluster: ClusterUnderTest) -> None:
    """RACES 15: a download that has begun gives the whole file or ends with an error.

    A download never ends early without an error.
    """
    data = content_of(12)
    file = cluster.upload(data)
    stream = cluster.read(file)
    assert next(stream) == data[:CHUNK_SIZE]
    catalogue.delete(catalogue.find(file.owner, file.content.file_hash))
    with pytest.raises(NoSuchFile):
        list(stream)
