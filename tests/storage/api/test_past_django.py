"""Downloads that Django does not hear of (ADR 15); what they are like otherwise, test_downloads.py asks both ways."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from occsite.middleware import PROTECTION
from tests.cluster import ClusterUnderTest, content_of
from tests.storage.api.conftest import WholeClient


def body_of(response: Any) -> bytes:
    body: bytes = b"".join(response.streaming_content) if response.streaming else response.content
    return body


def test_a_plain_download_does_not_reach_django(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/download/{cluster.upload(b'bytes').content.file_hash}"
    monkeypatch.setattr("django.core.handlers.wsgi.WSGIHandler.__call__", lambda *_: pytest.fail("it does"))
    assert body_of(WholeClient().get(path)) == b"bytes"
    assert WholeClient().head(path).status_code == 200
    assert WholeClient().get(f"/download/{'0' * 64}").status_code == 404


def test_the_answer_is_the_same(cluster: ClusterUnderTest) -> None:
    file_hash = cluster.upload(content_of(2), name="é.bin").content.file_hash
    asked: list[dict[str, str]] = [
        {},
        {"Range": "bytes=5-9"},
        {"Range": "bytes=999999-"},
        {"If-None-Match": f'"{file_hash}"'},
        {"If-Match": '"other"'},
    ]
    for headers in asked:
        for method in ("get", "head"):
            through, past = (
                getattr(client, method)(f"/download/{file_hash}", headers=headers)
                for client in (Client(), WholeClient())
            )
            assert through.status_code == past.status_code
            assert dict(through.headers) == {n: v for n, v in past.headers.items() if n in through.headers}
            assert set(past.headers) - set(through.headers) <= PROTECTION.keys()
            assert body_of(through) == body_of(past)
