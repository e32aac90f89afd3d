"""Downloads that are answered without Django (ADR 15). All other tests of downloads are in test_downloads.py."""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import Any

import pytest
from django.test import Client, RequestFactory

from occsite.wsgi import application
from storage.api.wsgi import transfers
from storage.api.wsgi.protection import PROTECTION
from tests.support.api import WholeClient, assert_problem
from tests.support.cluster import ClusterUnderTest, content_of


def body_of(response: Any) -> bytes:
    body: bytes = b"".join(response.streaming_content) if response.streaming else response.content
    return body


def test_a_plain_download_does_not_reach_django(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/download/{cluster.upload(b'bytes').content.file_hash}"
    monkeypatch.setattr("django.core.handlers.wsgi.WSGIHandler.__call__", lambda *_: pytest.fail("it does"))
    assert body_of(WholeClient().get(path)) == b"bytes"
    assert body_of(WholeClient().get(f"{path}/name.txt")) == b"bytes"
    assert WholeClient().head(path).status_code == 200
    assert WholeClient().get(f"/download/{'0' * 64}").status_code == 404


def test_an_address_that_is_not_utf_8_is_refused_in_words(cluster: ClusterUnderTest, settings: Any) -> None:
    file_hash = cluster.upload(b"bytes").content.file_hash
    # The first download is answered without Django, the second by Django.
    for origins in ([], ["https://app.example"]):
        settings.CORS_ALLOWED_ORIGINS = origins
        for path in (f"/download/{file_hash}/%FF.txt", "/download/%FF", f"/files/{file_hash}%FF"):
            assert "UTF-8" in str(assert_problem(WholeClient().get(path), 400)), path


def test_the_answer_is_the_same(cluster: ClusterUnderTest) -> None:
    file_hash = cluster.upload(content_of(2), name="é.bin").content.file_hash
    asked: list[dict[str, str]] = [
        {},
        {"Range": "bytes=5-9"},
        {"Range": "bytes=999999-"},
        {"If-None-Match": f'"{file_hash}"'},
        {"If-Match": '"other"'},
    ]
    names: list[tuple[str, dict[str, str]]] = [("/a", {}), ("/é☃", {}), ("/..", {})]
    for name, headers in [*names, *(("", headers) for headers in asked)]:
        for method in ("get", "head"):
            through, past = (
                getattr(client, method)(f"/download/{file_hash}{name}", headers={**headers, "X-Request-ID": "same"})
                for client in (Client(), WholeClient())
            )
            assert through.status_code == past.status_code
            # Only the whole stack of middleware gives a request an id, and the id is part of problem documents.
            one, other = body_of(through), body_of(past).replace(b', "request_id": "same"', b"")
            assert one == other
            compared = through.headers.keys() - ({"Content-Length"} if through.status_code >= 400 else set())
            assert {n: through.headers[n] for n in compared} == {n: past.headers[n] for n in compared}
            assert set(past.headers) - set(through.headers) <= {*PROTECTION, "X-Request-ID"}


def test_a_server_that_takes_no_answer_leaves_the_place_of_the_transfer_free(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        raise ValueError("a field of the answer is malformed")

    monkeypatch.setattr(transfers, "_slots", BoundedSemaphore(1))
    path = f"/download/{cluster.upload(b'x').content.file_hash}"
    environ = {**RequestFactory().get(path).environ, "HTTP_HOST": "testserver"}
    with pytest.raises(ValueError):
        application(environ, refuse)
    assert WholeClient().get(path).status_code == 200


def test_an_answer_to_head_has_no_body_whatever_it_is(cluster: ClusterUnderTest) -> None:
    environ = {**RequestFactory().head(f"/download/{'0' * 64}").environ, "HTTP_HOST": "testserver"}
    said: list[str] = []

    def start_response(status: str, *_: object) -> Any:
        said.append(status)

    assert list(application(environ, start_response)) == []
    assert said == ["404 Not Found"]
