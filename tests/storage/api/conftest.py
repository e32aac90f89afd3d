from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from storage import wakeups
from storage.models import Content, File, Upload
from tests.cluster import ClusterUnderTest, cluster

__all__ = ["cluster"]

Send = Callable[..., Any]


@pytest.fixture
def workers(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> ClusterUnderTest:
    """A cluster whose queued work is done as soon as it is committed, as by workers that are never busy."""

    def wake(queue: str, **_: object) -> None:
        if queue == "ingest":
            cluster.ingest()
        else:
            cluster.maintain()

    monkeypatch.setattr(wakeups, "wake", wake)
    return cluster


@pytest.fixture
def send(cluster: ClusterUnderTest) -> Send:
    """Uploads a file as a browser or curl does."""

    def post(data: bytes, name: str = "example.pdf", headers: dict[str, str] | None = None, **fields: Any) -> Any:
        return Client().post("/upload", {"file": SimpleUploadedFile(name, data), **fields}, headers=headers)

    return post


class Socket:
    """A ``wsgi.input`` that gives what it has, and then what a socket would."""

    def __init__(self, data: bytes, then: Exception | None = None) -> None:
        self._data = data
        self._then = then

    def read(self, size: int) -> bytes:
        given, self._data = self._data[:size], self._data[size:]
        if not given and self._then is not None:
            raise self._then
        return given

    readline = read  # as long as it is there: Django's own stream is never read


def assert_problem(response: Any, status: int, field: str | None = None) -> dict[str, Any]:
    """The response is an RFC 9457 document of that status; with ``field``, it says what is wrong with it."""
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == status
    if field is not None:
        assert body["errors"][field]
    return body


def assert_nothing_left(cluster: ClusterUnderTest) -> None:
    """No trace of an upload: neither staged bytes nor rows."""
    assert cluster.staged() == []
    assert [model.objects.count() for model in (Upload, Content, File)] == [0, 0, 0]
