from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from storage import tasks
from storage.cluster import generations
from storage.cluster.topology import Topology
from storage.management import operation
from storage.models import File, Holding, Job, Node, nobody
from storage.models.clock import Clock
from storage.models.job_queue import MAX_ATTEMPTS
from storage.services import catalogue, provision, rebalance, resumable
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of
from tests.support.commands import run, state_of
from tests.support.database import DatabaseCopy


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def working(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> ClusterUnderTest:
    """A cluster whose queued jobs are carried out whenever a command waits."""
    monkeypatch.setattr(operation, "sleep", lambda _: tasks.maintain())
    return cluster


def spoil(cluster: ClusterUnderTest) -> File:
    """Upload a file, remove a copy of its first chunk, and damage a copy of its second chunk."""
    file = cluster.upload(content_of(4))
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    cluster.replica_path(cluster.holders(hashes[0])[0], hashes[0]).unlink()
    cluster.replica_path(cluster.holders(hashes[1])[0], hashes[1]).write_bytes(bytes(CHUNK_SIZE))
    return file


@pytest.mark.parametrize(
    "command",
    [
        "audit",
        "audit node_001",
        "repair",
        "rebalance",
        "rebalance FILE",
        "rebalance FILE --replication-factor 5",
        "drain node_001",
        "add_node --zone b",
        "reclaim",
    ],
)
def test_a_dry_run_changes_nothing(cluster: ClusterUnderTest, command: str) -> None:
    file = spoil(cluster)
    before = state_of(cluster)
    assert run(*command.replace("FILE", file.content.file_hash).split(), "--dry-run")
    assert state_of(cluster) == before


def test_the_plan_of_an_audit_has_a_line_for_each_node(cluster: ClusterUnderTest) -> None:
    spoil(cluster)
    header, *lines, _ = run("audit", "--dry-run").splitlines()
    rows = [dict(zip(header.replace("to read", "read  ").split(), line.split(), strict=False)) for line in lines]
    assert [row["node"] for row in rows] == [f"node_00{i}" for i in range(5)]
    assert sum(int(row["copies"]) for row in rows) == 11
    assert run("audit", "node_003", "--dry-run").splitlines()[1].startswith("node_003")


def test_the_plan_of_a_repair_counts_chunks_by_the_copies_that_they_have(cluster: ClusterUnderTest) -> None:
    assert "nothing to do" in run("repair", "--dry-run")
    spoil(cluster)
    assert run("repair", "--dry-run").splitlines()[1].split() == ["2", "1", "4.0", "KiB"]


def test_the_plan_for_a_file_is_what_is_done(working: ClusterUnderTest) -> None:
    file = working.upload(content_of(6))
    for factor in ("4", "2"):
        header, *lines = run(
            "rebalance", file.content.file_hash, "--replication-factor", factor, "--dry-run"
        ).splitlines()
        assert header.split()[0] == "node"
        planned = [sum(int(line.split()[column]) for line in lines) for column in (1, 4)]
        run("rebalance", file.content.file_hash, "--replication-factor", factor)
        done = Job.objects.filter(kind=Job.Kind.REBALANCE).latest("created_at").result
        assert done is not None
        assert planned == [done["added"], done["removed"]]
    assert "nothing to do" in run("rebalance", file.content.file_hash, "--dry-run")


def test_the_plan_for_the_cluster_is_what_is_done(working: ClusterUnderTest) -> None:
    hashes = [chunk_hash for chunk_hash, _ in working.upload(content_of(40)).content.manifest()]
    assert run("rebalance", "--dry-run").splitlines()[-1].startswith("nothing to move: all 120 copies are where")
    before = {chunk_hash: set(working.holders(chunk_hash)) for chunk_hash in hashes}
    provision.add()
    header, *lines, misplaced, z = run("rebalance", "--dry-run").splitlines()
    assert header.split()[:2] == ["node", "holds"]
    assert "largest z of two nodes: " in z
    planned_in = {line.split()[0]: int(line.split()[3]) for line in lines}
    planned_out = {line.split()[0]: int(line.split()[6]) for line in lines}
    run("rebalance")
    after = {chunk_hash: set(working.holders(chunk_hash)) for chunk_hash in hashes}
    for node_id in planned_in:
        assert planned_in[node_id] == sum(node_id in after[h] - before[h] for h in hashes)
        assert planned_out[node_id] == sum(node_id in before[h] - after[h] for h in hashes)
    assert misplaced.startswith(f"misplaced: {sum(planned_in.values())} of 120 copies; to move: ")


def test_the_plan_for_a_file_keeps_what_another_file_wants(cluster: ClusterUnderTest) -> None:
    shared = content_of(3)[: 2 * CHUNK_SIZE]
    cluster.upload(shared, factor=4)
    file = cluster.upload(shared + b"end", factor=4)
    plan = rebalance.plan(Holding.of_file(file), 2)
    assert sum(copies for copies, _ in plan.removed.values()) == 2  # The other file has all chunks but the last.


def test_the_plan_for_a_file_says_what_is_lost(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(2))
    chunk_hash = file.content.manifest()[0][0]
    for node_id in cluster.holders(chunk_hash):
        cluster.replica_path(node_id, chunk_hash).unlink()
    assert run("rebalance", file.content.file_hash, "--dry-run").startswith("1 chunks have no copy")


def test_the_plan_of_a_reclaim_counts_what_is_due_and_what_is_in_the_trash(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(3))
    file_hash = file.content.file_hash
    run("rebalance", file_hash, "--replication-factor", "2", "--no-wait")
    tasks.maintain()
    catalogue.delete(file)
    plan = run("reclaim", "--dry-run")
    assert "3 chunks belong to no file" in plan
    assert "0 of them" in plan
    assert sum(int(line.split()[1]) for line in plan.splitlines() if line.startswith("node_")) == 3


def test_an_adoption_says_what_there_is_and_what_it_wants_to_know(working: ClusterUnderTest, tmp_path: Path) -> None:
    generations.begin(Topology.load())
    older = DatabaseCopy()
    generations.begin(Topology.load())
    file = working.upload(content_of(3))
    hashes = sorted(chunk_hash for chunk_hash, _ in file.content.manifest())
    older.put_back()
    with pytest.raises(CommandError, match="say --keep or --condemn"):
        run("adopt")
    before = state_of(working)
    listed = tmp_path / "unknown.txt"
    plan = run("adopt", "--dry-run", "--export", str(listed))
    assert "does not know: node_000, node_001, node_002, node_003, node_004" in plan
    assert "the database does not know  3  10.0 KiB" in plan
    assert [line.split()[0] for line in listed.read_text().splitlines()] == hashes
    assert state_of(working) == before
    with pytest.raises(CommandError, match="File exists"):
        run("adopt", "--dry-run", "--export", str(listed))
    assert "adoption of the volumes, with unknown chunks kept: succeeded" in run("adopt", "--keep")
    assert "there is nothing to adopt" in run("adopt", "--dry-run")


def test_an_operation_is_followed_to_its_end(working: ClusterUnderTest) -> None:
    file = spoil(working)
    said = run("repair").splitlines()
    assert said[0] == "repair of the cluster: queued"
    assert "repair of the cluster: succeeded" in said
    assert "  added       1" in said
    assert all(len(working.holders(chunk_hash)) == 3 for chunk_hash, _ in file.content.manifest())


def test_each_node_is_audited_in_turn(working: ClusterUnderTest) -> None:
    spoil(working)
    said = " ".join(run("audit").split())
    assert [f"audit of node_00{i}: succeeded" in said for i in range(5)] == [True] * 5
    assert said.count("corrupt 1") == 1


def test_an_offline_node_is_left_out_unless_it_is_named(cluster: ClusterUnderTest) -> None:
    cluster.take_offline("node_002")
    Job.objects.all().delete()
    said = run("audit", "--no-wait")
    assert "node_002 is offline" in said
    assert sorted(str(job.subject) for job in Job.objects.all()) == ["node_000", "node_001", "node_003", "node_004"]
    with pytest.raises(CommandError, match="node_002 cannot be listed"):
        run("audit", "node_002", "--dry-run")


def test_on_a_terminal_one_line_is_rewritten(working: ClusterUnderTest) -> None:
    said = run("repair", out=Terminal())
    assert said.startswith("\r\x1b[Krepair of the cluster: queued\r\x1b[Krepair of the cluster: succeeded\n")


def test_a_drain_retires_the_node(working: ClusterUnderTest) -> None:
    working.upload(content_of(3))
    assert run("drain", "node_001").endswith("node_001 is retired\n")
    assert Node.objects.get(node_id="node_001").state == Node.State.RETIRED


def test_a_node_is_added_and_filled(working: ClusterUnderTest) -> None:
    working.upload(content_of(20))
    assert "node_005 would be made at" in run("add_node", "--dry-run")
    said = run("add_node", "--zone", "b")
    assert "rebalance of the cluster: succeeded" in said
    assert Node.objects.get(node_id="node_005").zone == "b"
    assert any((working.folder("node_005") / "chunks").rglob("?" * 64))


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket",
        "file://srv/disk6",
        "file://[",
        "file:///dev/null/x",
        "file:///proc/x",
        "file:relative",
        "disk6",
        "./disk6",
        "/srv/disk6",
        "FOREIGN",
        "FULL",
        "PLAIN",
    ],
)
def test_where_no_volume_can_be_made_no_node_is_made_or_planned(
    cluster: ClusterUnderTest, tmp_path: Path, url: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "plain").write_text("a file")
    places = {"FOREIGN": cluster.folder("node_000"), "FULL": tmp_path / "full", "PLAIN": tmp_path / "plain"}
    where = places[url].as_uri() if url in places else url
    before = state_of(cluster)
    for how in ([], ["--dry-run"]):
        with pytest.raises(CommandError, match="no node can be made at"):
            run("add_node", "--url", where, *how)
    assert state_of(cluster) == before


def test_the_name_of_a_zone_has_a_limit(cluster: ClusterUnderTest) -> None:
    for how in ([], ["--dry-run"]):
        with pytest.raises(CommandError, match="zone"):
            run("add_node", "--zone", "z" * 400, *how)
    assert Node.objects.count() == 5


def test_a_plan_of_a_node_leaves_nothing_behind(cluster: ClusterUnderTest, tmp_path: Path) -> None:
    where = tmp_path / "new" / "disk6"
    assert "node_005 would be made at" in run("add_node", "--dry-run", "--url", where.as_uri())
    assert list(tmp_path.iterdir()) == []


def test_no_wait_prints_the_id(cluster: ClusterUnderTest) -> None:
    assert run("reclaim", "--no-wait").strip() == str(Job.objects.get().pk)


def test_a_job_that_fails_is_an_error(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Job) -> None:
        raise RuntimeError("a defect")

    def work(_: float) -> None:
        Job.objects.filter(state=Job.State.QUEUED).update(not_before=Clock())
        tasks.maintain()

    monkeypatch.setitem(tasks.WORK, Job.Kind.RECLAIM, fail)
    monkeypatch.setattr(operation, "sleep", work)
    with pytest.raises(CommandError, match="reclaim of the cluster failed: Failed: RuntimeError"):
        run("reclaim")
    assert Job.objects.get().attempts == MAX_ATTEMPTS


def test_a_job_that_is_cancelled_is_an_error(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "sleep", lambda _: run("cancel", str(Job.objects.get().pk)))
    with pytest.raises(CommandError, match="drain of node_001 cancelled"):
        run("drain", "node_001")
    assert Node.objects.get(node_id="node_001").state == Node.State.ACTIVE


def test_who_does_not_want_to_wait_is_told_that_the_job_goes_on(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(operation, "sleep", interrupt)
    with pytest.raises(CommandError, match=r"repair of the cluster goes on.*manage\.py cancel") as stopped:
        run("repair")
    job = Job.objects.get()
    assert str(job.pk) in str(stopped.value)
    assert job.state == Job.State.QUEUED


def test_uploads_are_cancelled_with_all_that_they_left(cluster: ClusterUnderTest) -> None:
    accepted = cluster.accept(content_of(1))
    upload = resumable.begin(nobody(), resumable.Plan("file.bin", 3, length=3))
    resumable.receive(upload, 0, [b"abc"])
    for job in (accepted.job, Job.objects.get(upload_id=upload.pk)):
        run("cancel", str(job.pk))
    cluster.ingest()
    assert not File.objects.exists()
    assert cluster.staged() == []


def test_jobs_are_listed_what_is_open_first(cluster: ClusterUnderTest) -> None:
    ended = Job.request(Job.Kind.RECLAIM, "all")
    tasks.maintain()
    waiting = Job.request(Job.Kind.AUDIT, "node_003")
    Job.objects.filter(pk=waiting.pk).update(waiting_for=Job.Lack.NODES, done=7, total=256)
    header, first, second = run("jobs").splitlines()
    assert header.split()[:3] == ["id", "kind", "subject"]
    assert first.split()[:6] == [str(waiting.pk)[:8], "audit", "node_003", "queued", "7/256", "nodes"]
    assert second.split()[:4] == [str(ended.pk)[:8], "reclaim", "all", "succeeded"]


def test_jobs_that_the_system_does_for_itself_are_listed_on_demand(cluster: ClusterUnderTest) -> None:
    own, work = Job.request(Job.Kind.REBUILD_SKETCH, "node_001"), Job.request(Job.Kind.AUDIT, "node_003")
    assert [line.split()[0] for line in run("jobs").splitlines()[1:]] == [str(work.pk)[:8]]
    assert {line.split()[0] for line in run("jobs", "--all").splitlines()[1:]} == {str(own.pk), str(work.pk)}


def test_a_job_is_cancelled_by_the_beginning_of_its_id(cluster: ClusterUnderTest) -> None:
    ids = [f"abcd{digit}000-0000-4000-8000-000000000000" for digit in "12"]
    for job_id in ids:
        Job.objects.create(id=job_id, kind=Job.Kind.AUDIT, queue=Job.Queue.MAINTENANCE, subject=job_id)
    with pytest.raises(CommandError, match="several jobs begin with abcd"):
        run("cancel", "abcd")
    with pytest.raises(CommandError, match="no job abcd3"):
        run("cancel", "abcd3")
    run("cancel", "ABCD2000-00")
    assert [job.state for job in Job.objects.order_by("id")] == [Job.State.QUEUED, Job.State.CANCELLED]
