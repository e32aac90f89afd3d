"""Backups of a cluster: their contents, the hold that stops reclaim during a backup, and folders that are refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from occsite.backup import restoring, taking, tools
from occsite.backup.archive import Archive, Backup, Description
from storage.cluster import generations
from storage.cluster.topology import Topology
from storage.exceptions import BackupError, ClusterUnavailable, ForeignVolume
from storage.models import Chunk, Cluster, File, Generation, Hold
from storage.models.clock import Clock
from storage.models.locks import Lock, advisory_lock
from storage.services import catalogue, reclaim
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of
from tests.support.system import wait_until


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "backups")


@pytest.fixture
def take(cluster: ClusterUnderTest, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Backup]:
    """Take a backup. A backup is named after a time in whole seconds, so the fixture gives each backup another time."""
    taken = iter(range(100))

    def facts(session: Any) -> dict[str, Any]:
        return original(session) | {"taken_at": f"2030-01-01T00:00:{next(taken):02}Z"}

    original = taking._facts
    monkeypatch.setattr(taking, "_facts", facts)
    return lambda **how: taking.take(archive, cluster.configuration, lambda _done, _all: None, **how)


def chunk_hashes(file: File) -> list[str]:
    return [chunk_hash for chunk_hash, _ in file.content.manifest()]


def chunks_in(archive: Archive) -> set[str]:
    return {replica.chunk_hash for replica in archive.volume.replicas()}


def delete(file: File) -> None:
    """Delete a file, and set times back so that the grace period of its chunks is over."""
    catalogue.delete(file)
    Chunk.objects.filter(condemned_at__isnull=False).update(condemned_at=Clock() - timedelta(days=1))


# -- what a backup holds ---------------------------------------------------


def test_each_chunk_is_copied_once_and_later_backups_copy_new_chunks_only(
    cluster: ClusterUnderTest, archive: Archive, take: Callable[..., Backup]
) -> None:
    first = cluster.upload(content_of(70, "first"), factor=3)
    backup = take()
    assert chunks_in(archive) == set(chunk_hashes(first))
    assert (backup.description.chunks, backup.description.missing) == (70, 0)
    assert backup.description.bytes == first.content.size
    times = {path: path.stat().st_mtime_ns for path in archive.root.glob("volume/chunks/??/*")}

    second = cluster.upload(content_of(3, "second"))
    assert "3 of them" in run("backup", str(archive.root), "--dry-run")
    assert take().description.chunks == 73
    assert chunks_in(archive) == {*chunk_hashes(first), *chunk_hashes(second)}
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(archive.names()) == 2


def test_only_chunks_that_are_stored_and_needed_are_copied(
    cluster: ClusterUnderTest, archive: Archive, take: Callable[..., Backup]
) -> None:
    kept = cluster.upload(content_of(2, "kept"))
    delete(cluster.upload(content_of(2, "deleted")))
    cluster.accept(content_of(2, "not ingested yet"))
    take()
    assert chunks_in(archive) == set(chunk_hashes(kept))


def test_a_bad_copy_is_not_copied(cluster: ClusterUnderTest, archive: Archive, take: Callable[..., Backup]) -> None:
    file = cluster.upload(content_of(1))
    (chunk_hash,) = chunk_hashes(file)
    bad, *_ = cluster.holders(chunk_hash)
    cluster.replica_path(bad, chunk_hash).write_bytes(bytes(CHUNK_SIZE // 2))
    backup = take()
    assert restoring.check(archive, backup, lambda _done, _all: None) == []


def test_a_chunk_that_no_node_has_is_told(cluster: ClusterUnderTest, archive: Archive) -> None:
    file = cluster.upload(content_of(3))
    lost = chunk_hashes(file)[1]
    for node_id in cluster.holders(lost):
        cluster.replica_path(node_id, lost).unlink()
    with pytest.raises(CommandError, match="1 chunks could not be read"):
        run("backup", str(archive.root))
    backup = archive.find()
    assert (backup.path / "missing").read_text() == f"{lost}\n"
    assert "is whole: the database and 2 chunks" in run("restore", str(archive.root), "--check")
    assert "incomplete" in run("restore", str(archive.root), "--list")


def test_the_database_alone_is_dumped_while_reclaim_stays_held_back(
    cluster: ClusterUnderTest, archive: Archive
) -> None:
    cluster.upload(content_of(3, "kept"))
    delete(cluster.upload(content_of(2)))
    assert "not copied" in run("backup", str(archive.root), "--database-only", "--hold", "30")
    assert chunks_in(archive) == set()
    assert run("restore", str(archive.root), "--check").endswith("is whole: the database; chunks were not copied\n")
    assert reclaim.reclaim(0) == reclaim.Outcome()
    assert "a backup holds reclaim back until" in run("reclaim", "--dry-run")
    Hold.objects.update(ends_at=Clock())
    assert reclaim.reclaim(0).forgotten == 2


def test_volumes_carry_a_generation_that_the_backup_does_not_know(
    cluster: ClusterUnderTest, take: Callable[..., Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    latest: list[int] = []

    def dump(path: Path, snapshot: str) -> None:
        with taking._snapshot() as (session, _):
            session.rollback()
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            session.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
            latest.extend(session.execute("SELECT max(id) FROM storage_generation").fetchone() or ())
        path.touch()

    monkeypatch.setattr(tools, "dump", dump)
    take()
    assert latest[0] < Generation.latest()
    names = {identity.generations for identity in generations.look(Topology.load().members).values()}
    assert names == {(Generation.objects.get(pk=Generation.latest()).name,)}


# -- reclaim ---------------------------------------------------------------


@contextmanager
def in_the_middle(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> Iterator[None]:
    """Call ``act`` after the dump of the database and before chunks are copied."""
    dump = tools.dump

    def dump_and_act(path: Path, snapshot: str) -> None:
        dump(path, snapshot)
        act()

    with monkeypatch.context() as patch:
        patch.setattr(tools, "dump", dump_and_act)
        yield


def test_chunks_that_are_deleted_during_a_backup_are_in_it(
    cluster: ClusterUnderTest, archive: Archive, take: Callable[..., Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cluster.upload(content_of(5))
    hashes = set(chunk_hashes(file))

    def delete_and_reclaim() -> None:
        delete(file)
        assert reclaim.reclaim(0) == reclaim.Outcome(), "reclaim ran during a backup"

    with in_the_middle(monkeypatch, delete_and_reclaim):
        assert take().description.missing == 0
    assert chunks_in(archive) == hashes
    assert reclaim.reclaim(0).forgotten == 5


def test_a_backup_whose_hold_ended_is_not_complete(
    cluster: ClusterUnderTest, archive: Archive, take: Callable[..., Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.upload(content_of(1))
    with (
        in_the_middle(monkeypatch, lambda: Hold.objects.update(ends_at=Clock())),
        pytest.raises(BackupError, match="take the backup again"),
    ):
        take()
    assert archive.names() == []
    assert Hold.last_end() is None
    assert take().description.missing == 0


def test_a_hold_is_put_off_while_a_backup_runs(
    cluster: ClusterUnderTest, take: Callable[..., Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "BEAT", 0.01)
    ends: list[object] = []

    def watch() -> None:
        ends.append(Hold.last_end())
        wait_until(lambda: Hold.last_end() != ends[0], 10)

    with in_the_middle(monkeypatch, watch):
        take()
    assert ends[0] is not None


def test_a_backup_waits_for_the_end_of_a_pass_of_reclaim(cluster: ClusterUnderTest) -> None:
    def reclaim_for_long() -> None:
        try:
            with advisory_lock(Lock.RECLAIMING):
                wait_until(lambda: refused, 10)
        finally:
            connection.close()

    refused: list[bool] = []
    other = Thread(target=reclaim_for_long)
    other.start()
    try:
        wait_until(_is_reclaiming, 10)
        with pytest.raises(ClusterUnavailable):
            reclaim.hold_back(taking.HOLD, patience=0.2)
        assert Hold.last_end() is None
    finally:
        refused.append(True)
        other.join()
    assert reclaim.hold_back(taking.HOLD).put_off(taking.HOLD)


def _is_reclaiming() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", [Lock.RECLAIMING])
        return bool(cursor.fetchone()[0])


def test_a_hold_from_before_the_clock_was_set_back_holds_up_nothing(cluster: ClusterUnderTest) -> None:
    Hold.begin(timedelta(days=400))
    assert Hold.last_end() is None


# -- folders and versions that are refused, and damage that is found ----------


def test_folders_that_are_no_archive_of_this_cluster_are_refused(
    cluster: ClusterUnderTest, archive: Archive, take: Callable[..., Backup], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    for folder, words in ((tmp_path / "photos", "neither empty"), (cluster.configuration.storage_dir / "b", "below")):
        with pytest.raises(BackupError, match=words):
            taking.take(Archive(folder), cluster.configuration, lambda _done, _all: None)
    take()
    with archive.opened(str(Cluster.load().uuid)), pytest.raises(BackupError, match="another backup"):
        take()
    Cluster.objects.update(uuid="00000000-0000-4000-8000-000000000000")
    with pytest.raises(ForeignVolume):
        take()
    assert len(archive.names()) == 1
    assert Hold.last_end() is None


def test_a_draft_is_no_backup_and_the_next_backup_uses_its_chunks(
    cluster: ClusterUnderTest, archive: Archive, take: Callable[..., Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.upload(content_of(3))
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "complete", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            take()
    assert len(chunks_in(archive)) == 3
    with pytest.raises(CommandError, match="no complete backup"):
        run("restore", str(archive.root), "--check")
    assert "0 of them" in run("backup", str(archive.root), "--dry-run")
    take()
    assert {path.name[:8] for path in archive.root.iterdir()} == {"lock", "volume", "20300101"}


def test_damage_is_noticed_by_a_check(cluster: ClusterUnderTest, archive: Archive, take: Callable[..., Backup]) -> None:
    hashes = chunk_hashes(cluster.upload(content_of(3)))
    backup = take()
    path = archive.root / "volume" / "chunks" / hashes[1][:2] / hashes[1]
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(CommandError, match=f"1 chunks of .* are missing or damaged; the first is {hashes[1]}"):
        run("restore", str(archive.root), "--check")
    data = bytearray(backup.database.read_bytes())
    data[len(data) // 2] ^= 1
    backup.database.write_bytes(data)
    with pytest.raises(CommandError, match=r"database\.dump is damaged"):
        run("restore", str(archive.root), "--check")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"format": None}, "it has no 'format'"),
        ({"chunks": None}, "it has no 'chunks'"),
        ({"chunks": "many"}, "chunks is 'many'"),
        ({"nodes": [{}]}, "missing 2 required"),
        ({"nodes": 7}, "not iterable"),
        ("[]", "no JSON object"),
        ("", "Expecting value"),
        (None, "No such file"),
    ],
)
def test_a_damaged_description_is_told_and_in_no_other_backups_way(archive: Archive, damage: Any, reason: str) -> None:
    def complete(second: int) -> Backup:
        return archive.complete(
            archive.begin(), Description("1", "c", f"2030-01-01T00:00:0{second}Z", {}, "", 0, 1, 2, False, 0)
        )

    archive.root.mkdir()
    first, second = complete(1), complete(2)

    def spoil(path: Path) -> None:
        if isinstance(damage, dict):
            changed = json.loads(path.read_text()) | damage
            path.write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))
        elif damage is None:
            path.unlink()
        else:
            path.write_text(damage)

    whole = (first.path / "backup.json").read_text()
    spoil(first.path / "backup.json")
    assert archive.find() == archive.find(second.name) == second
    said = run("restore", str(archive.root), "--list").splitlines()
    assert said[0].startswith(f"{first.name}  unreadable: ")
    assert reason in said[0]
    assert said[1] == f"{second.name}  version 1  the database only"

    (first.path / "backup.json").write_text(whole)
    spoil(second.path / "backup.json")
    assert archive.find(first.name) == first
    for name in (second.name, None):
        with pytest.raises(BackupError, match=reason) as refused:
            archive.find(name)
        assert ("--backup NAME" in str(refused.value)) == (name is None)


def test_a_backup_of_a_later_version_is_refused(
    cluster: ClusterUnderTest, archive: Archive, take: Callable[..., Backup], tmp_path: Path, settings: Any
) -> None:
    backup = take()
    settings.OCC = dataclasses.replace(cluster.configuration, storage_dir=tmp_path / "new")
    text = backup.path / "backup.json"
    description = json.loads(text.read_text())
    text.write_text(json.dumps(description | {"migrations": {"storage": "9999_later"}}))
    with pytest.raises(CommandError, match="which is newer: its database has storage 9999_later"):
        run("restore", str(archive.root))
    text.write_text(json.dumps(description | {"format": 2}))
    with pytest.raises(CommandError, match="a later version"):
        run("restore", str(archive.root))
    assert not (tmp_path / "new").exists()


def test_programs_older_than_the_server_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {major: tools.Tools(tmp_path, major) for major in (15, 17, 18)}
    monkeypatch.setattr(tools.Tools, "all", lambda: found)
    assert [tools.Tools.fitting(server).major for server in (14, 15, 16, 18)] == [15, 15, 17, 18]
    assert tools.Tools.latest().major == 18
    with pytest.raises(BackupError, match="install Debian's package postgresql-client-19"):
        tools.Tools.fitting(19)
