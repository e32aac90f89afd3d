from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client

from occsite.wsgi import application
from storage.jobs import wakeups
from storage.models import Content, File, Job, Upload
from tests.support.cluster import ClusterUnderTest, cluster

__all__ = ["cluster"]

Send = Callable[..., Any]
STREAMED = ("application/octet-stream", "multipart/byteranges")


@pytest.fixture
def workers(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> ClusterUnderTest:
    """A cluster whose queued jobs are done as soon as they are committed, as if workers were always idle."""

    def wake(queue: Job.Queue, **_: object) -> None:
        if queue == Job.Queue.INGEST:
            cluster.ingest()
        else:
            cluster.maintain()

    monkeypatch.setattr(wakeups, "wake", wake)
    return cluster


@pytest.fixture
def send(cluster: ClusterUnderTest) -> Send:
    """Upload a file as a browser or curl does."""

    def post(data: bytes, name: str = "example.pdf", headers: dict[str, str] | None = None, **fields: Any) -> Any:
        return Client().post("/upload", {"file": SimpleUploadedFile(name, data), **fields}, headers=headers)

    return post


class Served:
    """The body of an answer. The body is closed as a server closes it: once, at its end or before."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._is_open = True

    def __iter__(self) -> Iterator[bytes]:
        yield from self._body
        self.close()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._body.close()


class WholeClient(Client):
    """Django's test client for the whole WSGI application that gunicorn serves, and not only for Django."""

    def request(self, **request: Any) -> Any:
        environ = {"HTTP_HOST": "testserver", **self._base_environ(**request)}  # type: ignore[attr-defined]
        told: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
            told.append((status, headers))

        body: Any = application(environ, start_response)
        ((status, fields),) = told
        headers = dict(fields)
        response: Any
        if environ["REQUEST_METHOD"] == "GET" and headers.get("Content-Type", "").startswith(STREAMED):
            response = StreamingHttpResponse(Served(body), status=int(status[:3]), headers=headers)
        else:
            content = b"".join(Served(body))
            if environ["REQUEST_METHOD"] == "HEAD":
                content = b""
            response = HttpResponse(content, status=int(status[:3]), headers=headers)
            response.json = lambda: json.loads(content)
        if "Content-Type" not in headers:
            del response["Content-Type"]
        for name, value in fields:  # A mapping has only the last of several cookies.
            if name == "Set-Cookie":
                response.cookies.load(value)
        return response


@pytest.fixture(params=[Client, WholeClient], ids=["through Django", "past Django"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test twice: first its client asks Django directly, then it asks the whole WSGI application."""
    monkeypatch.setattr(request.module, "Client", request.param)


class Socket:
    """A ``wsgi.input`` that gives ``data``, and then raises the exception ``then``, or ends if ``then`` is None."""

    def __init__(self, data: bytes, then: Exception | None = None) -> None:
        self._data = data
        self._then = then

    def read(self, size: int) -> bytes:
        given, self._data = self._data[:size], self._data[size:]
        if not given and self._then is not None:
            raise self._then
        return given

    readline = read  # The attribute must exist, but Django's own stream is never read.


def assert_problem(response: Any, status: int, field: str | None = None) -> dict[str, Any]:
    """Check that the response is an RFC 9457 document with ``status`` and, if ``field`` is given, an error for it."""
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "code", "detail"} <= body.keys()
    assert body["status"] == status
    if field is not None:
        assert body["errors"][field]
    return body


def assert_nothing_left(cluster: ClusterUnderTest) -> None:
    """Check that an upload has left neither staged bytes nor rows."""
    assert cluster.staged() == []
    assert [model.objects.count() for model in (Upload, Content, File)] == [0, 0, 0]
