"""The deletion of files is undone: whole, once, by their owner, and only while no byte is gone (RACES 52)."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection

from storage.accounts import quotas
from storage.exceptions import (
    ContentNotReady,
    ContentUnavailable,
    DeletionFinal,
    FileQuotaExceeded,
    NoSuchDeletion,
    StorageError,
)
from storage.models import Chunk, Content, Deletion, File, Remains, Tally
from storage.models.clock import Clock
from storage.services import catalogue, reclaim, sweep, undo
from tests.support.cluster import ClusterUnderTest, content_of


def delete(*files: File) -> str:
    deletion = catalogue.delete(*files)
    assert deletion is not None
    return str(deletion.pk)


def condemned() -> int:
    return Chunk.objects.filter(condemned_at__isnull=False).count()


def test_a_deleted_file_is_back_as_it_was(cluster: ClusterUnderTest) -> None:
    data = content_of(3) + content_of(1)  # The first chunk occurs twice.
    older, newer = cluster.upload(data, "photos/a.bin", factor=2), cluster.upload(b"other", "b")
    manifest, tallies = older.content.manifest(), Tally.totals(Tally.What.WANTED)
    deletion = delete(older)
    assert (File.objects.count(), condemned()) == (1, 3)
    (file,) = undo.undo(older.owner, deletion)
    assert (file.pk, file.name, file.created_at) == (older.pk, "photos/a.bin", older.created_at)
    assert (file.replication_factor, file.content.target, file.size) == (2, 2, len(data))
    assert file.content.manifest() == manifest
    assert condemned() == 0
    assert Tally.totals(Tally.What.WANTED) == tallies
    assert [each.pk for each in catalogue.page(file.owner, limit=9).files] == [older.pk, newer.pk]
    reclaim.reclaim(0)
    assert cluster.download(file) == data
    assert not Remains.objects.exists()
    assert not Deletion.objects.exists()


def test_the_health_of_what_is_back_is_exact(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(2))
    deletion = delete(file)
    chunk_hash = Chunk.objects.values_list("hash", flat=True)[0]
    cluster.replica_path(cluster.holders(chunk_hash)[0], chunk_hash).unlink()
    (back,) = undo.undo(file.owner, deletion)
    assert (back.content.state, back.content.retrievable) == (Content.State.READY, True)
    assert (back.content.min_replication, back.content.max_replication) == (2, 3)


def test_all_names_come_back_together_and_beside_those_that_stayed(cluster: ClusterUnderTest) -> None:
    files = [cluster.upload(b"same", name) for name in ("a", "b", "c")]
    some = delete(*files[:2])
    assert [file.name for file in undo.undo(files[0].owner, some)] == ["b", "a"]
    every = delete(*File.objects.all())
    assert Content.objects.count() == 0
    assert len(undo.undo(files[0].owner, every)) == 3
    assert cluster.download(File.objects.get(name="c")) == b"same"


def test_an_empty_file_comes_back(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"", "empty")
    (back,) = undo.undo(file.owner, delete(file))
    assert cluster.download(back) == b""


def test_a_deletion_is_undone_once_and_by_its_owner(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"x", "a")
    deletion = delete(file)
    stranger = User.objects.create(username="stranger")
    for owner, key in ((stranger, deletion), (file.owner, str(uuid.uuid4())), (file.owner, "x"), (file.owner, "")):
        with pytest.raises(NoSuchDeletion):
            undo.undo(owner, key)
    assert not File.objects.exists()
    (back,) = undo.undo(file.owner, deletion)
    catalogue.rename(back, name="b")
    with pytest.raises(NoSuchDeletion):
        undo.undo(file.owner, deletion)
    assert [file.name for file in File.objects.all()] == ["b"]


def test_an_upload_since_then_stays_and_the_larger_factor_wins(cluster: ClusterUnderTest) -> None:
    deletion = delete(cluster.upload(b"same", "a", factor=4))
    again = cluster.upload(b"same", "a", factor=2)
    (back,) = undo.undo(again.owner, deletion)
    assert (back.pk, back.replication_factor, File.objects.count()) == (again.pk, 4, 1)


def test_while_the_same_bytes_are_stored_the_client_tries_again(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"same", "a")
    deletion = delete(file)
    cluster.accept(b"same", "b")
    with pytest.raises(ContentNotReady):
        undo.undo(file.owner, deletion)
    cluster.ingest()
    undo.undo(file.owner, deletion)
    assert sorted(File.objects.values_list("name", flat=True)) == ["a", "b"]


def test_what_reclaim_has_taken_does_not_come_back(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(3))
    deletion = delete(file)
    reclaim.reclaim(0)
    with pytest.raises(DeletionFinal):
        undo.undo(file.owner, deletion)
    assert (File.objects.count(), Content.objects.count()) == (0, 0)


def test_a_chunk_that_was_freed_and_came_again_is_not_taken_for_the_old_one(cluster: ClusterUnderTest) -> None:
    data = content_of(3)
    file = cluster.upload(data)
    deletion = delete(file)
    reclaim.reclaim(0)
    cluster.upload(data[:4096], "the first chunk alone")
    with pytest.raises(DeletionFinal):
        undo.undo(file.owner, deletion)


def test_remains_that_a_later_deletion_has_replaced_are_not_used(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cluster.upload(content_of(2))
    deletion = delete(file)
    read = Remains.content_fields

    def late(remains: Remains) -> dict[str, object]:
        Remains.objects.update(removed_at=Clock())  # Others restore and delete the content before the undo locks it.
        return read(remains)

    monkeypatch.setattr(Remains, "content_fields", late)
    with pytest.raises(DeletionFinal):
        undo.undo(file.owner, deletion)
    assert not Content.objects.exists()


def test_a_chunk_that_keeps_its_row_without_a_copy_does_not_come_back(cluster: ClusterUnderTest) -> None:
    """A silent node keeps the row of a chunk whose other copies have been removed."""
    file = cluster.upload(content_of(2))
    deletion = delete(file)
    chunk_hash = Chunk.objects.values_list("hash", flat=True)[0]
    for node_id in cluster.holders(chunk_hash):
        cluster.replica_path(node_id, chunk_hash).unlink()
    with pytest.raises(ContentUnavailable):
        undo.undo(file.owner, deletion)
    assert not Content.objects.exists()
    assert condemned() == 2


def test_after_the_grace_a_deletion_is_final_and_forgotten(cluster: ClusterUnderTest) -> None:
    first = cluster.upload(b"same", "a")
    cluster.upload(b"same", "b")  # File b keeps the bytes.
    deletion = delete(first)
    catalogue.delete(cluster.upload(b"gone", "c"))
    long_ago = Clock() - timedelta(seconds=cluster.configuration.reclaim_grace + 1)
    Deletion.objects.update(deleted_at=long_ago)
    Remains.objects.update(removed_at=long_ago)
    with pytest.raises(DeletionFinal):
        undo.undo(first.owner, deletion)
    sweep.sweep()
    assert not Deletion.objects.exists()
    assert not Remains.objects.exists()


def test_a_quota_holds_for_what_comes_back(cluster: ClusterUnderTest) -> None:
    files = [cluster.upload(b"same", name) for name in ("a", "b")]
    quotas.limit(files[0].owner, max_bytes=None, max_files=2)
    deletion = delete(*files)
    cluster.upload(b"new", "c")
    with pytest.raises(FileQuotaExceeded):
        undo.undo(files[0].owner, deletion)
    assert File.objects.count() == 1
    quotas.limit(files[0].owner, max_bytes=12, max_files=None)
    undo.undo(files[0].owner, deletion)


def test_what_is_not_stored_yet_cannot_come_back(cluster: ClusterUnderTest) -> None:
    assert catalogue.delete(cluster.accept(b"x").file) is None
    assert not Deletion.objects.exists()


def test_of_many_at_once_one_undoes_it(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(3), "a")
    deletion = delete(file)
    outcomes: list[object] = []

    def run() -> None:
        try:
            outcomes.append(len(undo.undo(file.owner, deletion)))
        except StorageError as error:
            outcomes.append(type(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, outcomes)) == sorted(map(str, [1] + [NoSuchDeletion] * 5))
    assert cluster.download(File.objects.get()) == content_of(3)


def test_undo_races_with_reclaim_and_uploads_and_the_file_is_whole_or_gone(cluster: ClusterUnderTest) -> None:
    """One thread uploads, deletes and undoes; the other reclaims without a grace period. A late undo is refused."""
    data = content_of(4)
    errors: list[BaseException] = []

    def repeat(what: object) -> None:
        try:
            for _ in range(12):
                what()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001  the test reports it
            errors.append(error)
        finally:
            connection.close()

    def delete_and_undo() -> None:
        file = File.objects.filter(name="a").select_related("content").first() or cluster.upload(data, "a")
        try:
            undo.undo(file.owner, delete(file))
        except StorageError:
            return

    threads = [
        threading.Thread(target=repeat, args=(delete_and_undo,)),
        threading.Thread(target=repeat, args=(lambda: reclaim.reclaim(0),)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    for file in File.objects.select_related("content"):
        assert cluster.download(file) == data
    assert cluster.false_negatives() == []
