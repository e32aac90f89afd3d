"""Forms with files, as browsers send them to the S3 door."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

from storage.models import Content, Object, Part, Upload
from tests.support.api import Socket
from tests.support.cluster import ClusterUnderTest
from tests.support.s3 import ask

Fields = Mapping[str, str] | Iterable[tuple[str, str]]
Answer = tuple[int, dict[str, str], bytes]
FORM = {"Content-Type": "multipart/form-data; boundary=BB"}
END = b"--BB--\r\n"


def field(name: str, value: str) -> bytes:
    return f'--BB\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def file(data: bytes, name: str = "cat.jpg") -> bytes:
    head = f'--BB\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head.encode() + data + b"\r\n"


def body_of(fields: Fields, data: bytes = b"bytes", name: str = "cat.jpg") -> bytes:
    pairs = fields.items() if isinstance(fields, Mapping) else fields
    return b"".join(field(*pair) for pair in pairs) + file(data, name) + END


def post(
    fields: Fields,
    data: bytes = b"bytes",
    name: str = "cat.jpg",
    *,
    uri: str = "/bucket",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a form. Returns status, fields and body of the answer, as ``ask`` does."""
    return ask("POST", uri, body_of(fields, data, name), FORM | dict(headers or {}))


def code_of(answer: Answer) -> tuple[int, str | None]:
    """The status of an answer, and the code of its error document; None for an answer without a document."""
    status, _, body = answer
    return status, ElementTree.fromstring(body).findtext("Code") if body else None


def assert_nothing_left(cluster: ClusterUnderTest) -> None:
    """Check that a form has left neither staged bytes nor rows."""
    found = [model.objects.count() for model in (Object, Part, Upload, Content)]
    assert (found, cluster.staged()) == ([0, 0, 0, 0], [])


def presigned(s3: Any, key: str = "user/${filename}", fields: Any = None, conditions: Any = None, **about: Any) -> Any:
    """The fields of a form that boto3 presigns."""
    made = s3.generate_presigned_post("bucket", key, Fields=fields, Conditions=conditions, **about)
    assert made["url"].endswith("/bucket")
    return made["fields"]


class Slow(Socket):
    """A client that sends a few bytes at a time. ``look`` is called before each read."""

    def __init__(self, data: bytes, look: Callable[[], object], step: int = 97) -> None:
        super().__init__(data)
        self._look = look
        self._step = step

    def read(self, size: int) -> bytes:
        self._look()
        return super().read(min(size, self._step))
