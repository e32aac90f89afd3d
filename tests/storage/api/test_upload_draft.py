"""Resumable uploads by the IETF's draft 05 (interop version 6), at the same addresses as tus."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest

from storage.models import File
from tests.support.api import Socket, assert_problem
from tests.support.cluster import ClusterUnderTest
from tests.support.tus import DRAFT, offset_of, path_of, tus

DATA = os.urandom(10_000)


@pytest.fixture(autouse=True)
def at_once(cluster: ClusterUnderTest, settings: Any) -> None:
    """Let no answer wait for a worker: either there is no worker, or it has done its work before the answer."""
    settings.OCC = dataclasses.replace(settings.OCC, upload_wait=0)


def draft(method: str, path: str, data: bytes = b"", **fields: Any) -> Any:
    return tus(method, path, data, protocol=DRAFT, **fields)


def test_a_whole_body_in_one_request_is_complete(workers: ClusterUnderTest) -> None:
    response = draft("POST", "/uploads/?file_name=a.txt", DATA, upload_complete="?1", content_type="text/plain")
    assert (response.status_code, response.headers["Upload-Complete"]) == (201, "?1")
    assert response.headers["Upload-Draft-Interop-Version"] == "6"
    assert "Tus-Resumable" not in response.headers
    file = File.objects.get(name="a.txt")
    assert response.headers["Content-Location"] == f"/files/{file.content.file_hash}"
    assert workers.download(file) == DATA


def test_a_body_goes_on_where_it_was_cut(workers: ClusterUnderTest) -> None:
    address = path_of(draft("POST", "/uploads/", DATA[:100], upload_complete="?0"))
    head = draft("HEAD", address)
    assert (head.status_code, head.headers["Upload-Offset"], head.headers["Upload-Complete"]) == (204, "100", "?0")
    cut = Socket(DATA[100:500])
    assert_problem(
        draft("PATCH", address, upload_offset="100", upload_complete="?1", source=cut, content_length=9900), 400
    )
    assert offset_of(address) == 500
    wrong = draft("PATCH", address, DATA[600:], upload_offset="600", upload_complete="?1")
    assert assert_problem(wrong, 409)["code"] == "offset_mismatch"
    assert wrong.headers["Upload-Offset"] == "500"
    response = draft("PATCH", address, DATA[500:], upload_offset="500", upload_complete="?1")
    assert (response.status_code, response.headers["Upload-Complete"]) == (204, "?1")
    assert workers.download(File.objects.get()) == DATA
    assert draft("HEAD", address).headers["Upload-Complete"] == "?1"


def test_one_upload_speaks_both_languages(workers: ClusterUnderTest) -> None:
    address = path_of(tus("POST", "/uploads/", DATA[:10], upload_length=str(len(DATA))))
    assert draft("PATCH", address, DATA[10:20], upload_offset="10", upload_complete="?0").status_code == 204
    assert tus("PATCH", address, DATA[20:30], upload_offset="20").status_code == 204
    assert draft("PATCH", address, DATA[30:], upload_offset="30", upload_complete="?1").status_code == 204
    assert workers.download(File.objects.get()) == DATA


def test_an_end_before_the_length_is_refused(cluster: ClusterUnderTest) -> None:
    address = path_of(draft("POST", "/uploads/", upload_complete="?0", upload_length="100"))
    assert_problem(draft("PATCH", address, b"x", upload_offset="0", upload_complete="?1"), 400, "Upload-Complete")
    assert offset_of(address) == 0


@pytest.mark.parametrize("complete", [None, "1", "true", "?2"])
def test_whether_it_ends_must_be_said(cluster: ClusterUnderTest, complete: str | None) -> None:
    address = path_of(draft("POST", "/uploads/", upload_complete="?0"))
    fields = {} if complete is None else {"upload_complete": complete}
    assert_problem(draft("PATCH", address, b"x", upload_offset="0", **fields), 400, "Upload-Complete")


def test_an_upload_is_ended(cluster: ClusterUnderTest) -> None:
    address = path_of(draft("POST", "/uploads/", DATA, upload_complete="?0"))
    assert draft("DELETE", address).status_code == 204
    assert draft("HEAD", address).status_code == 404
    assert cluster.staged() == []
