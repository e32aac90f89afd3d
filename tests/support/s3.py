"""boto3 at the S3 door, without sockets: each request that it would send is given to the WSGI application."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError
from django.contrib.auth.models import User

from occsite.wsgi import application
from storage.accounts import keys, principals
from storage.accounts.keys import NewKey
from storage.conf import configuration
from storage.models import KeyLimit, Scope
from storage.s3.signatures import canonical
from tests.support.api import Served, Socket, workers
from tests.support.cluster import ClusterUnderTest, cluster

__all__ = ["cluster", "s3", "s3_keys", "workers"]

HOST = "localhost:5005"
ALL = (Scope.READ, Scope.WRITE, Scope.DELETE)


class Raw(BytesIO):
    """The body of an answer, as urllib3 would give it to botocore."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        while data := self.read(64 << 10):
            yield data


def ask(
    method: str, uri: str, body: bytes | Socket = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send one request, in the form in which the server would hand it over. Returns status, fields and body.

    Args:
        method: the HTTP method.
        uri: the path and the query, as on the wire.
        body: the body.
        headers: the fields.
    """
    path, _, query = uri.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "RAW_URI": uri,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(configuration().s3_port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": HOST,
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body) if isinstance(body, bytes) else body,
    }
    length = {"Content-Length": str(len(body))} if isinstance(body, bytes) else {}
    for name, value in (length | dict(headers or {})).items():
        environ[canonical.variable(name)] = value
    told: list[tuple[str, list[tuple[str, str]]]] = []
    answer: Any = application(environ, lambda status, fields, *_: told.append((status, fields)))  # type: ignore[arg-type]
    served = answer if isinstance(answer, (tuple, list)) else Served(answer)
    content = b"".join(served)
    ((status, fields),) = told
    return int(status[:3]), dict(fields), b"" if method == "HEAD" else content


def _send(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
    body = request.body
    data = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else body.read() if body else b""
    parts = urlsplit(request.url)
    fields = {
        name: value if isinstance(value, str) else value.decode("latin-1") for name, value in request.headers.items()
    }
    if "Transfer-Encoding" in fields:
        fields.pop("Content-Length", None)
    uri = parts.path + (f"?{parts.query}" if parts.query else "")
    status, headers, content = ask(request.method, uri, data, {"Host": parts.netloc} | fields)
    return AWSResponse(request.url, status, headers, Raw(content))


def environ_of(request: AWSRequest, host: str = HOST) -> dict[str, Any]:
    """The WSGI environment in which the server sees a request that botocore has signed."""
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": prepared.method,
        "QUERY_STRING": parts.query,
        "RAW_URI": parts.path + (f"?{parts.query}" if parts.query else ""),
        "HTTP_HOST": host,
    }
    for name, value in prepared.headers.items():
        text = value if isinstance(value, str) else value.decode("latin-1")
        environ[canonical.variable(name)] = text
    return environ


def client_of(key: str = "any", secret: str = "secret", **options: Any) -> Any:
    """A boto3 client, as docs/s3.md configures it."""
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, **options)
    made = boto3.client(
        "s3",
        endpoint_url=f"http://{HOST}",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="occ",
        config=config,
    )
    made.meta.events.register("before-send.s3", _send)
    return made


@pytest.fixture
def s3(workers: ClusterUnderTest) -> Any:
    """A client, while keys are off."""
    return client_of()


@pytest.fixture
def s3_keys(workers: ClusterUnderTest, settings: Any) -> Iterator[Callable[..., tuple[NewKey, Any]]]:
    """Make users with keys, while keys are on: each call returns a key and a client that signs with it."""
    settings.OCC = dataclasses.replace(settings.OCC, auth_required=True)
    principals.forget()

    def make(name: str = "ann", scopes: tuple[Scope, ...] = ALL, limit: KeyLimit | None = None) -> tuple[NewKey, Any]:
        owner, _ = User.objects.get_or_create(username=name)
        made = keys.create(owner, scopes=scopes, limit=limit)
        return made, client_of(made.key.pk, made.secret)

    yield make
    principals.forget()


def refused(code: str, status: int, call: Callable[..., Any], /, **arguments: Any) -> dict[str, Any]:
    """Check that a call is refused with an error code of S3. Returns the error document."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer: dict[str, Any] = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), answer
    return answer
