"""Losses that the sketches prove are traced to their chunks and mended.

A chunk that lacks copies is no loss while it is condemned or pinned, or while a job for it or its content is open.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from storage.cluster.topology import Topology
from storage.models import Chunk, Cluster, Content, File, Holding, Job, Node, Upload
from storage.services import catalogue, probe, rebalance, reclaim, survey, sweep, trace
from storage.tracking import counting, proof
from tests.support.cluster import ClusterUnderTest, content_of

pytestmark = pytest.mark.usefixtures("first_look")


@pytest.fixture
def first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process forget the surveys of earlier tests, and use the same sketch seed in every test.

    With random seeds, about one loss in five hundred would not show, because the lost chunk would share its register
    with a chunk that has all its copies.
    """
    monkeypatch.setattr(Cluster._meta.get_field("sketch_seed"), "_get_default", lambda: 17)
    monkeypatch.setattr(survey, "_before", None)


def lose(cluster: ClusterUnderTest, *chunk_hashes: str, copies: int = 1) -> None:
    """Remove copies without telling the service, and rebuild the sketches, as after a restart of Redis."""
    for chunk_hash in chunk_hashes:
        for node_id in cluster.holders(chunk_hash)[:copies]:
            cluster.replica_path(node_id, chunk_hash).unlink()
            Job.request(Job.Kind.REBUILD_SKETCH, node_id)
    cluster.maintain()


def look(times: int = 2) -> list[Job]:
    """Make surveys; returns the traces that are queued after them."""
    for _ in range(times):
        survey.survey()
    return list(Job.objects.filter(kind=Job.Kind.TRACE, state=Job.State.QUEUED))


def chunks_of(file: File) -> list[str]:
    return [chunk_hash for chunk_hash, _ in file.content.manifest()]


def test_a_lost_copy_is_traced_to_its_chunk_and_made_again(cluster: ClusterUnderTest) -> None:
    chunks = chunks_of(cluster.upload(content_of(60)))
    lose(cluster, chunks[7])
    assert look(1) == [], "one look alone proves nothing"
    (job,) = look(1)
    result = cluster.result_of(job)
    assert len(cluster.holders(chunks[7])) == 3
    assert (result["streamed"], result["short"], result["added"]) == (60, 1, 1)
    assert result["asked"] <= 3, "no other chunk than those of its register is asked for"
    assert (result["lost"], result["denied"], result["remaining"], result["complete"]) == (0, 0, 0, True)
    assert Content.objects.get().min_replication == 3
    assert look() == [], "what is mended is no reason for another trace"
    assert cluster.false_negatives() == []


def test_no_node_is_listed(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = chunks_of(cluster.upload(content_of(20)))[3]
    lose(cluster, chunk)
    (job,) = look()
    for member in cluster.members():
        monkeypatch.setattr(member.lane.volume, "replicas", lambda prefix="": pytest.fail("a node was listed"))
    assert cluster.result_of(job)["added"] == 1


def test_the_most_endangered_chunk_is_mended_too(cluster: ClusterUnderTest) -> None:
    chunks = chunks_of(cluster.upload(content_of(40)))
    lose(cluster, chunks[0], copies=2)
    lose(cluster, chunks[1])
    (job,) = look()
    assert cluster.result_of(job)["added"] == 3
    assert all(len(cluster.holders(chunk)) == 3 for chunk in chunks)


def test_a_chunk_without_a_copy_is_named_once(cluster: ClusterUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    chunks = chunks_of(cluster.upload(content_of(30)))
    lose(cluster, *chunks[:20], copies=3)
    (job,) = look()
    result = cluster.result_of(job)
    assert (result["lost"], result["short"]) == (20, 0)
    assert not Content.objects.get().retrievable
    assert look(4) == [], "nothing can be done, and it is known"


def test_steps_go_on_where_they_ended(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "IDS", 8)
    chunks = chunks_of(cluster.upload(content_of(50)))
    lose(cluster, chunks[0], chunks[20], chunks[-1])
    (job,) = look()
    result = cluster.result_of(job)
    assert (result["streamed"], result["added"]) == (50, 3)


def test_copies_that_are_all_there_convict_the_sketch(cluster: ClusterUnderTest) -> None:
    """Invariant 3: a false negative ends the trust in a sketch, and the sketch is rebuilt."""
    chunk = chunks_of(cluster.upload(content_of(30)))[11]
    holder = cluster.holders(chunk)[0]
    seen = Topology.load()
    counting.uncount(seen, {holder: [chunk]}, counting.builds(seen, [holder]))
    assert cluster.false_negatives() == [(holder, chunk)]
    epoch = Node.objects.get(node_id=holder).sketch_epoch
    (job,) = look()
    result = cluster.result_of(job)
    assert (result["denied"], result["short"], result["added"]) == (1, 0, 0)
    assert Node.objects.get(node_id=holder).sketch_epoch == epoch + 1
    assert Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH, subject=holder, state=Job.State.SUCCEEDED).exists()
    assert cluster.false_negatives() == []
    assert look() == []


def test_a_count_of_a_copy_that_has_gone_is_suspected_and_no_loss(
    cluster: ClusterUnderTest, capfd: pytest.CaptureFixture[str]
) -> None:
    """A rebuild that lists a copy just before the copy is removed leaves a count without a copy."""
    chunks = chunks_of(cluster.upload(content_of(20)))
    counting.count(Topology.load(), {"node_000": ["0" * 64]})
    (job,) = look()
    assert cluster.result_of(job)["asked"] == 0
    lose(cluster, chunks[3])
    (job,) = look()
    said = capfd.readouterr().err
    assert said.count('"losses.proven"') == 0
    assert cluster.result_of(job)["short"] == 1
    assert capfd.readouterr().err.count('"losses.proven"') == 1


def test_an_orphan_asks_for_one_census_and_not_for_a_trace_each_round(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(20))
    chunk = chunks_of(cluster.upload(content_of(1, "strange"), "strange"))[0]
    holder, *others = cluster.holders(chunk)
    catalogue.delete(File.objects.get(content__chunk_count=1))
    Chunk.objects.filter(hash=chunk).delete()  # An older database would not know the chunk either.
    for other in others:
        cluster.replica_path(other, chunk).unlink()
        Job.request(Job.Kind.REBUILD_SKETCH, other)
    cluster.maintain()
    (job,) = look()
    result = cluster.result_of(job)
    assert (result["remaining"], result["unexplained"], result["short"]) == (1, 1, 0)
    assert Job.objects.filter(kind=Job.Kind.CENSUS).count() == 1
    assert Chunk.objects.get(hash=chunk).condemned_at is not None, "the census has found it"
    assert look(4) == []
    assert cluster.holders(chunk) == [holder]


def test_nothing_is_proven_while_a_node_is_away(cluster: ClusterUnderTest) -> None:
    chunk = chunks_of(cluster.upload(content_of(20)))[0]
    lose(cluster, chunk)
    cluster.take_offline(next(node for node in Node.objects.values_list("node_id", flat=True)))
    assert proof.find(Topology.load()) is None
    assert look(3) == []


def test_nothing_is_proven_by_sketches_that_are_not_trusted(cluster: ClusterUnderTest) -> None:
    chunk = chunks_of(cluster.upload(content_of(20)))[0]
    lose(cluster, chunk)
    Node.distrust_sketches(["node_002"])
    assert look(3) == []
    assert proof.find(Topology.load()) is None


def test_the_smallest_target_decides_what_is_proven(cluster: ClusterUnderTest) -> None:
    of_two, of_four = (chunks_of(cluster.upload(content_of(20, f"{n}"), f"{n}", factor=n)) for n in (2, 4))
    assert look(3) == []
    lose(cluster, of_four[0], copies=3)
    lose(cluster, of_two[0], copies=1)
    (job,) = look()
    assert cluster.result_of(job)["added"] == 4
    assert (len(cluster.holders(of_four[0])), len(cluster.holders(of_two[0]))) == (4, 2)


def test_a_file_that_is_uploaded_again_with_a_larger_factor_proves_nothing(cluster: ClusterUnderTest) -> None:
    """The target of the content rises at once, long before the last chunk of the upload is pinned."""
    cluster.upload(content_of(30), factor=2)
    accepted = cluster.accept(content_of(30), factor=3)
    assert Content.objects.get().target == 3
    assert look(3) == []
    cluster.ingest()
    assert Upload.objects.filter(pk=accepted.upload.pk).count() == 0
    assert look(3) == []


def test_a_factor_that_is_raised_proves_nothing(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(30), factor=2)
    rebalance.request(Holding.of_file(file), 3)
    assert look(3) == []
    cluster.maintain()
    assert look(3) == []


def test_copies_on_their_way_out_prove_nothing(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(20))
    gone = cluster.upload(content_of(20, "gone"), "gone")
    chunks = chunks_of(gone)
    catalogue.delete(gone)
    seen = Topology.load()
    for chunk in chunks:  # Reclaim has un-counted one copy, and not yet the others.
        holder = cluster.holders(chunk)[0]
        counting.uncount(seen, {holder: [chunk]}, counting.builds(seen, [holder]))
    assert look(3) == []


def test_an_hour_of_healthy_churn_raises_no_alarm(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are 240 surveys in an hour, one every 15 seconds, and each may see work that is half done."""
    drawn = random.Random(17)
    looks = 0

    def then_look(step: Callable[..., None]) -> Callable[..., None]:
        def stepped(*arguments: object, **named: object) -> None:
            nonlocal looks
            step(*arguments, **named)
            survey.survey()
            looks += 1

        return stepped

    # Surveys are made between counting and writing, and while the copies of a chunk are removed one by one.
    for step in (counting.count, counting.uncount):
        monkeypatch.setattr(counting, step.__name__, then_look(step))
    files: list[File] = []
    for number in itertools.count():
        if looks > 240:
            break
        factors = (3, 3, 4, 5) if looks < 120 else (2, 3, 4)
        action = drawn.random()
        if action < 0.5 or len(files) < 3:
            data = content_of(drawn.randint(1, 5), f"{number}")
            files.append(cluster.upload(data, f"{number}", factor=drawn.choice(factors)))
        elif action < 0.75:
            catalogue.delete(files.pop(drawn.randrange(len(files))))
        elif action < 0.85:
            rebalance.request(Holding.of_file(drawn.choice(files)), drawn.choice(factors))
        else:
            cluster.maintain()
        survey.survey()
        looks += 1
        if number % 4 == 3:
            reclaim.reclaim(0)
            sweep.sweep()
            probe.probe()
    assert not Job.objects.filter(kind__in=(Job.Kind.TRACE, Job.Kind.REPAIR_ALL, Job.Kind.CENSUS)).exists()
    assert cluster.false_negatives() == []


def test_a_loss_behind_a_chunk_that_has_its_copies_is_traced_with_another(cluster: ClusterUnderTest) -> None:
    """Two chunks share a register.

    The level of the register is not too low, but the register counts fewer copies than the two chunks should have.
    """
    Cluster.objects.update(base_n_prime=16, n_prime=16)
    probe.probe()
    cluster.maintain()
    chunks = chunks_of(cluster.upload(content_of(12)))
    registers = proof.registers_of_chunks(Topology.load(), chunks, 16).tolist()
    alone = next(h for h, register in zip(chunks, registers, strict=True) if registers.count(register) == 1)
    behind = next(h for h, register in zip(chunks, registers, strict=True) if registers.count(register) > 1)
    lose(cluster, behind)
    lose(cluster, alone)
    evidence = proof.find(Topology.load())
    assert evidence is not None
    assert registers[chunks.index(alone)] in evidence.low.tolist()
    (job,) = look()
    assert cluster.result_of(job)["added"] == 2
    assert all(len(cluster.holders(chunk)) == 3 for chunk in chunks)
