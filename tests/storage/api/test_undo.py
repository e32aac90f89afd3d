"""POST /deletions/<id>: what clients are told."""

from __future__ import annotations

from typing import Any

from django.test import Client

from storage.models import File, Scope
from storage.services import reclaim
from tests.support.api import assert_nothing_left, assert_problem
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import bearer, keys_on

__all__ = ["keys_on"]


def deleted(file: File, **headers: Any) -> str:
    answer = Client().delete(f"/files/{file.content.file_hash}", **headers)
    assert (answer.status_code, answer.content) == (204, b"")
    return str(answer.headers["Undo-Location"])


def test_the_answer_to_a_deletion_says_where_it_is_undone(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"x", "a/b.txt")
    before = Client().get(f"/files/{file.content.file_hash}").json()
    address = deleted(file)
    assert Client().get("/files").json()["total_files"] == 0
    undone = Client().post(address)
    assert undone.status_code == 200
    after = undone.json()
    assert undone.headers["ETag"] == Client().get(f"/files/{file.content.file_hash}").headers["ETag"]
    changing = ("health_as_of", "health_exact")
    assert [(k, v) for k, v in after.items() if k not in changing] == [
        (k, v) for k, v in before.items() if k not in changing
    ]
    assert_problem(Client().post(address), 404)


def test_reclaimed_bytes_are_gone(cluster: ClusterUnderTest) -> None:
    address = deleted(cluster.upload(b"x"))
    reclaim.reclaim(0)
    problem = assert_problem(Client().post(address), 410)
    assert problem["code"] == "deletion_final"
    assert_nothing_left(cluster)


def test_what_is_no_deletion_is_a_404(db: None) -> None:
    for key in ("x", "%00", "00000000-0000-4000-8000-000000000000"):
        problem = assert_problem(Client().post(f"/deletions/{key}"), 404)
        assert problem["code"] == "no_such_deletion"
    assert_problem(Client().get("/deletions/x"), 405)


def test_an_upload_that_is_not_stored_yet_cannot_be_undone(cluster: ClusterUnderTest) -> None:
    file_hash = cluster.accept(b"x").file.content.file_hash
    assert "Undo-Location" not in Client().delete(f"/files/{file_hash}").headers


def test_undoing_needs_the_owner_and_the_scope_to_write(keys_on: ClusterUnderTest) -> None:
    ann = bearer("ann")
    Client().put("/upload/a", b"x", content_type="text/plain", headers=ann | {"Prefer": "respond-async"})
    keys_on.ingest()
    address = deleted(File.objects.get(), headers=ann)
    assert_problem(Client().post(address), 401)
    assert_problem(Client().post(address, headers=bearer("bob")), 404)
    assert_problem(Client().post(address, headers=bearer("ann", [Scope.DELETE])), 403)
    assert Client().post(address, headers=ann).status_code == 200
