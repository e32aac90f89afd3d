"""Resumable uploads by the protocol tus 1.0: owners, scopes, quotas and rates, and uploads that expire."""

from __future__ import annotations

import dataclasses
import os
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from storage.accounts import quotas
from storage.api.uploads.tus import views
from storage.conf import configuration
from storage.models import File, Resumable, Scope, Upload, nobody
from storage.models.clock import Clock
from storage.services import sweep
from tests.support.api import Socket, assert_problem
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest
from tests.support.keys import bearer, keys_on, owner
from tests.support.tus import append, begin, encoded, path_of, tus

__all__ = ["keys_on"]

DATA = os.urandom(5 * CHUNK_SIZE + 17)


@pytest.fixture(autouse=True)
def at_once(cluster: ClusterUnderTest, settings: Any) -> None:
    """Let no answer wait for a worker: either there is no worker, or it has done its work before the answer."""
    settings.OCC = dataclasses.replace(settings.OCC, upload_wait=0)


def test_an_expired_upload_is_gone_and_swept(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    address = begin(len(DATA))
    append(address, 0, DATA[:100])
    kept = begin(7)
    Resumable.objects.filter(pk=address.rpartition("/")[2]).update(expires_at=Clock() - timedelta(seconds=1))
    assert tus("HEAD", address).status_code == 404
    assert tus("PATCH", address, b"x", upload_offset="100").status_code == 404
    sweep.sweep()
    assert Resumable.objects.count() == 2, "a clock that jumps must not end what arrives"
    monkeypatch.setattr(sweep, "SLACK", -2.0 * configuration().stall_timeout)
    sweep.sweep()
    assert [str(upload.pk) for upload in Resumable.objects.all()] == [kept.rpartition("/")[2]]
    assert cluster.staged() == []
    assert Upload.objects.count() == 1


def test_an_upload_that_is_stored_is_only_forgotten_when_it_expires(
    workers: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "SLACK", -2.0 * configuration().stall_timeout)
    append(begin(5), 0, b"12345")
    Resumable.objects.update(expires_at=Clock() - timedelta(seconds=1))
    sweep.sweep()
    assert not Resumable.objects.exists()
    assert workers.download(File.objects.get()) == b"12345"


def test_the_unfinished_uploads_of_an_owner_are_listed(keys_on: ClusterUnderTest) -> None:
    mine, yours = bearer("ann"), bearer("bob")

    def listed(keys: dict[str, str]) -> list[dict[str, Any]]:
        answer = Client().get("/uploads/", headers=keys)
        assert answer.status_code == 200, answer.content
        uploads: list[dict[str, Any]] = answer.json()["uploads"]
        return uploads

    for name, length in (("first", 9), ("second", 9), ("empty", 0)):
        text = encoded(filename=name, fingerprint="1:2")
        tus("POST", "/uploads/", keys=mine, upload_length=str(length), upload_metadata=text)
    tus("POST", "/uploads/", keys=mine, upload_length="3", upload_concat="partial")
    assert [upload["file_name"] for upload in listed(mine)] == ["second", "first"], (
        "newest first, none that is complete"
    )
    assert listed(yours) == []
    (newest, _) = listed(mine)
    assert newest["metadata"] == encoded(filename="second", fingerprint="1:2")
    assert (newest["stage"], newest["offset"], newest["length"]) == ("sending", 0, 9)
    assert tus("DELETE", f"/uploads/{newest['id']}", keys=mine).status_code == 204
    assert [upload["file_name"] for upload in listed(mine)] == ["first"]
    assert_problem(Client().get("/uploads/?file_name=a", headers=mine), 400, "file_name")
    assert_problem(Client().get("/uploads/", headers=bearer("ann", [Scope.READ])), 403)


def test_another_owners_upload_is_the_same_404(keys_on: ClusterUnderTest) -> None:
    ann, bob = bearer("ann"), bearer("bob")
    address = path_of(tus("POST", "/uploads/", keys=ann, upload_length="5"))
    part = path_of(tus("POST", "/uploads/", b"12345", keys=ann, upload_length="5", upload_concat="partial"))
    nowhere = f"/uploads/{'0' * 8}-0000-4000-8000-{'0' * 12}"
    for method in ("HEAD", "PATCH", "DELETE", "GET"):
        of_ann, of_nobody = (
            tus(method, path, keys=bob, upload_offset="0", x_request_id="same") for path in (address, nowhere)
        )
        assert of_ann.status_code == of_nobody.status_code == 404
        assert of_ann.headers.items() == of_nobody.headers.items()
        assert of_ann.content.replace(address[9:].encode(), b"") == of_nobody.content.replace(nowhere[9:].encode(), b"")
    assert tus("POST", "/uploads/", keys=bob, upload_concat=f"final;{part}").status_code == 404
    assert tus("HEAD", address, keys=ann).status_code == 200


def test_uploading_needs_the_scope_to_write(keys_on: ClusterUnderTest) -> None:
    reader, writer = bearer("ann", [Scope.READ]), bearer("ann", [Scope.WRITE])
    address = path_of(tus("POST", "/uploads/", keys=writer, upload_length="5"))
    for method in ("POST", "HEAD", "PATCH", "DELETE", "GET"):
        path = "/uploads/" if method == "POST" else address
        assert tus(method, path, keys=reader, upload_length="5", upload_offset="0").status_code == 403
        assert tus(method, path, upload_length="5", upload_offset="0").status_code == 401
    assert tus("PATCH", address, b"1", keys=writer, upload_offset="0").status_code == 204
    assert tus("DELETE", address, keys=writer).status_code == 204


def test_requests_that_bring_much_do_not_count_towards_the_rate(cluster: ClusterUnderTest, settings: Any) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, rate_limit="3/hour")
    data = os.urandom(5 * views.MUCH + 1)
    address = begin(len(data))
    for start in range(0, len(data), views.MUCH):
        append(address, start, data[start : start + views.MUCH])
    assert tus("PATCH", address, b"", upload_offset=str(len(data))).status_code == 204
    assert tus("PATCH", address, b"x", upload_offset="0").status_code == 409
    assert tus("PATCH", address, b"x", upload_offset="0").status_code == 429
    assert tus("POST", "/uploads/", upload_length="5").status_code == 429


def test_a_quota_holds_at_the_creation_and_at_the_end(keys_on: ClusterUnderTest) -> None:
    ann = bearer("ann")
    quotas.limit(owner("ann"), max_bytes=1000, max_files=None)
    too_large = tus("POST", "/uploads/", keys=ann, upload_length="1001")
    assert assert_problem(too_large, 507)["code"] == "byte_quota_exceeded"
    first = path_of(tus("POST", "/uploads/", keys=ann, upload_length="600"))
    assert_problem(tus("POST", "/uploads/", keys=ann, upload_length="401"), 507)
    unknown = path_of(tus("POST", "/uploads/", keys=ann, upload_defer_length="1"))
    assert_problem(tus("PATCH", unknown, b"x" * 401, keys=ann, upload_offset="0"), 507)
    cut = tus("PATCH", unknown, keys=ann, upload_offset="0", source=Socket(b"x" * 401), transfer_encoding="chunked")
    assert_problem(cut, 507)
    assert tus("HEAD", unknown, keys=ann).headers["Upload-Offset"] == "0"
    assert tus("PATCH", first, b"x" * 600, keys=ann, upload_offset="0").status_code == 204
    quotas.limit(owner("ann"), max_bytes=599, max_files=None)
    keys_on.ingest()
    shown = tus("GET", first, keys=ann).json()
    assert (shown["stage"], shown["error"]["title"]) == ("failed", "Quota exceeded")
    assert not File.objects.exists()


def test_room_is_promised_while_an_upload_is_away(cluster: ClusterUnderTest) -> None:
    begin(1000)
    assert Upload.objects.get().reserved == 3000


def test_a_page_of_an_allowed_origin_may_upload(cluster: ClusterUnderTest, settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://console.example"]
    origin = {"Origin": "https://console.example"}
    asked = {
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "tus-resumable,upload-offset,upload-checksum,content-type",
    }
    allowed = Client().options("/uploads/x", headers={**origin, **asked}).headers["Access-Control-Allow-Headers"]
    assert {"tus-resumable", "upload-offset", "upload-checksum", "content-type"} <= set(allowed.split(", "))
    shown = tus("POST", "/uploads/", keys=origin, upload_length="5").headers["Access-Control-Expose-Headers"]
    assert {"Location", "Upload-Offset", "Tus-Resumable", "Upload-Expires"} <= set(shown.split(", "))


def test_nobody_owns_uploads_while_keys_are_off(cluster: ClusterUnderTest) -> None:
    begin(5)
    assert Resumable.objects.get().owner == nobody()
