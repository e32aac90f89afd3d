"""Downloads.

Each download is answered by one of three functions: a file by ``answer``, a file at the address of a share link by
``answer_shared``, and an object by ``answer_object``. Most downloads of files bypass Django (ADR 15). All downloads go
through Django while CORS is on, because Django's middleware adds the CORS headers. Downloads of objects always go
through Django.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request

from storage.api.authorization import authorize
from storage.api.downloads.body import Body
from storage.api.endpoint import Endpoint, well_formed
from storage.api.errors import problem_response
from storage.api.http import preconditions, ranges
from storage.api.http.digests import digest_field
from storage.api.http.dispositions import attachment
from storage.api.names import FIELD as FILE_NAME
from storage.api.names import chosen_name, in_query, valid_name
from storage.api.parameters import require_known
from storage.api.rendering import JsonRenderer
from storage.api.schema.fields import CONDITIONS_OF_READS
from storage.api.schema.operations import Replies, Reply, describe
from storage.api.wsgi.transfers import on_behalf_of_visitors
from storage.models import OpenFile, OpenObject
from storage.models.names import MAX_LENGTH, SEPARATOR, last_segment
from storage.services import objects, retrieve, share

CONTENT_TYPE = "application/octet-stream"
KEY = "key"
FOLDERS = (".", "..")


@dataclass(frozen=True)
class Source:
    """What a download sends: the bytes of a file or of an object.

    Attributes:
        name: the name under which the client saves the bytes, without folders.
        otherwise: ASCII text, which replaces a name that cannot be written in ASCII.
        size: bytes.
        etag: the strong entity tag, with quotation marks.
        modified_at: the time of the last change.
        file_hash: SHA-256 of all bytes in hex; None if it is not known.
        read: a function that reads the bytes of some ranges, or all bytes if it is given None.
    """

    name: str
    otherwise: str
    size: int
    etag: str
    modified_at: datetime
    file_hash: str | None
    read: Callable[[Sequence[range] | None], Iterator[bytes]]


@dataclass(frozen=True)
class Answer:
    """The answer that a client gets. The code that sends the body closes it.

    Attributes:
        status: the HTTP status code.
        headers: the header fields.
        body: the body in pieces; None if there is no body.
    """

    status: int
    headers: dict[str, str]
    body: Body | None = None

    @contextmanager
    def handing_over(self) -> Iterator[None]:
        """Close the body if the ``with`` block fails: then no other code closes it."""
        try:
            yield
        except BaseException:
            if self.body is not None:
                self.body.close()
            raise


@contextmanager
def _connection_given_back() -> Iterator[None]:
    """Give the connection to PostgreSQL back to the pool, because this thread may then wait long for its client."""
    try:
        yield
    finally:
        connection.close()


@_connection_given_back()
def answer(environ: dict[str, Any], file_hash: str, name: str = "") -> Answer:
    """Answer a GET or a HEAD.

    A HEAD gets the status and the header fields of a GET of the whole file, because ranges do not apply to HEAD.

    Args:
        environ: the WSGI environment of the request.
        file_hash: the part of the path where the file hash should be.
        name: the name under which the client should save the file; empty for the file's own name.

    Raises:
        Exception: an error that ``errors`` turns into a problem document.
    """
    owner = authorize(environ).owner
    well_formed(file_hash)
    require_known(environ, (FILE_NAME,))
    return _answer(environ, _of_file(retrieve.open_file(owner, file_hash, chosen_name(environ)), name))


@_connection_given_back()
def answer_shared(environ: dict[str, Any], token: str, name: str = "") -> Answer:
    """Answer a GET or a HEAD of a share link's address, as ``answer`` does, without a key.

    Args:
        environ: the WSGI environment of the request.
        token: the part of the path that belongs to the link.
        name: the name under which the client should save the file; empty for the file's own name.

    Raises:
        Exception: an error that ``errors`` turns into a problem document.
    """
    require_known(environ, ())
    file = share.file_behind(token)
    on_behalf_of_visitors(str(file.owner_id))
    return _answer(environ, _of_file(retrieve.open_file(file.owner, file.content.file_hash, file.name), name))


@_connection_given_back()
def answer_object(environ: dict[str, Any], bucket: str) -> Answer:
    """Answer a GET or a HEAD of the object whose key the query names, as ``answer`` does.

    The key is in the query and not in the path. A key may have any characters, and browsers and other clients change a
    path that contains ``..`` before they send it.

    Args:
        environ: the WSGI environment of the request.
        bucket: the part of the path where the name of the bucket should be.

    Raises:
        Exception: an error that ``errors`` turns into a problem document.
    """
    owner = authorize(environ).owner
    require_known(environ, (KEY,))
    return objects.read_version(
        objects.own_bucket(owner, bucket),
        in_query(environ, KEY),
        lambda opened: _answer(environ, _of_object(opened)),
    )


def _of_file(file: OpenFile, name: str) -> Source:
    """
    Raises:
        InvalidRequest: ``name``, under which the client wants to save the file, cannot be a name.
    """
    name = valid_name(name) if name else file.name
    file_hash = file.file_hash
    read = partial(retrieve.retrieve, file)
    return Source(last_segment(name), file_hash, file.size, f'"{file_hash}"', file.created_at, file_hash, read)


def _of_object(opened: OpenObject) -> Source:
    # A key may end in slashes, or be longer than any name. The end of a long name is kept, as the extension is there.
    name = last_segment(opened.key.rstrip(SEPARATOR))[-MAX_LENGTH:]
    return Source(
        opened.etag if name in ("", *FOLDERS) else name,
        opened.etag,
        opened.size,
        f'"{opened.etag}"',
        opened.modified_at,
        opened.parts[0].content.file_hash if len(opened.parts) == 1 else None,
        partial(objects.read, opened),
    )


def _answer(environ: dict[str, Any], source: Source) -> Answer:
    headers = _headers(source)
    if preconditions.check(environ, source.etag, source.modified_at):
        return Answer(304, headers)
    headers["Content-Type"] = CONTENT_TYPE
    if environ["REQUEST_METHOD"] == "HEAD":
        # The first chunk is read, so a HEAD of unreadable bytes fails as a GET does.
        source.read([range(1)] if source.size else None)
        return Answer(200, headers)
    return _send(source, headers, _wanted(environ, source))


def _send(source: Source, headers: dict[str, str], wanted: list[range] | None) -> Answer:
    parts = None
    if wanted is not None and len(wanted) == 1:
        headers["Content-Range"] = ranges.content_range(wanted[0], source.size)
        headers["Content-Length"] = str(len(wanted[0]))
    elif wanted is not None:
        parts = ranges.Multipart(wanted, source.size, CONTENT_TYPE)
        headers["Content-Type"] = parts.content_type
        headers["Content-Length"] = str(len(parts))

    def begin() -> Iterator[bytes]:
        chunks = source.read(wanted)
        return chunks if parts is None else parts.body(chunks)

    return Answer(200 if wanted is None else 206, headers, Body(begin))


def _headers(source: Source) -> dict[str, str]:
    """The header fields of every answer about a source, whether the body is all of it, a part of it, or nothing."""
    headers = {
        "Accept-Ranges": "bytes",
        # A file's bytes never change, but the file can be deleted or renamed: a cache must ask, and a 304 is cheap.
        "Cache-Control": "no-cache",
        "Content-Disposition": attachment(source.name, otherwise=source.otherwise),
        "Content-Length": str(source.size),
        "ETag": source.etag,
        "Last-Modified": preconditions.http_date(source.modified_at),
        "X-Content-Type-Options": "nosniff",
    }
    if source.file_hash is not None:
        headers["Repr-Digest"] = digest_field(bytes.fromhex(source.file_hash))
    return headers


def _wanted(environ: Mapping[str, Any], source: Source) -> list[range] | None:
    """The ranges to send, or None for all bytes.

    Raises:
        RangeNotSatisfiable: the source has no byte of the requested ranges.
    """
    field = environ.get("HTTP_RANGE")
    if field is None or not preconditions.range_applies(environ, source.etag, source.modified_at):
        return None
    wanted = ranges.requested(field, source.size)
    if wanted is not None and not wanted:
        raise ranges.RangeNotSatisfiable(source.size)
    return wanted


# -- downloads through Django ------------------------------------------------


class AnyAccept(BaseContentNegotiation):
    """Negotiation that ignores ``Accept``: the client gets the bytes of the file, or JSON for a problem."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0] if parsers else None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


ABOUT = (
    "Accept-Ranges",
    "Cache-Control",
    "Content-Disposition",
    "Content-Length",
    "ETag",
    "Last-Modified",
    "X-Content-Type-Options",
)
DIGEST = "Repr-Digest"
BYTES = {"type": "string", "format": "binary"}


def _replies(about: tuple[str, ...], may_have: tuple[str, ...] = ()) -> Replies:
    return {
        200: Reply("all bytes", BYTES, about, may_have, CONTENT_TYPE),
        206: (
            Reply("the bytes of one range", BYTES, about, ("Content-Range", *may_have), CONTENT_TYPE),
            Reply("the bytes of several ranges", BYTES, media_type="multipart/byteranges"),
        ),
        304: Reply("the client has this version", headers=about, may_have=may_have),
    }


REPLIES = _replies((*ABOUT, DIGEST))
OBJECT_REPLIES = _replies(ABOUT, (DIGEST,))
PROBLEMS = (
    "precondition_failed",
    "range_not_satisfiable",
    "content_gone",
    "content_not_ready",
    "content_unavailable",
    "too_many_transfers",
)
READS = ("Range", "If-Range", *CONDITIONS_OF_READS)


class DownloadView(Endpoint):
    """The bytes of a file: all of them, or the bytes that `Range` asks for. `?file_name=` chooses one of its names."""

    parameters: Collection[str] = (FILE_NAME,)
    content_negotiation_class: type[BaseContentNegotiation] = AnyAccept
    renderer_classes = (JsonRenderer,)  # There is one renderer only: the answer does not vary with Accept.

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Answer GET and HEAD without DRF: they have no body to parse, and nothing to negotiate."""
        if request.method not in ("GET", "HEAD"):
            return super().dispatch(request, *args, **kwargs)
        try:
            return self.get(request, **kwargs)
        except Exception as error:  # noqa: BLE001  every error is a problem document, or a defect that is logged
            return problem_response(error, {"request": request})

    @describe("Download a file", REPLIES, problems=("no_such_file", *PROBLEMS), headers=READS)
    def get(self, request: HttpRequest, file_hash: str, file_name: str = "") -> Any:
        return self._respond(answer(request.META, file_hash, file_name))

    def _respond(self, found: Answer) -> HttpResponse | StreamingHttpResponse:
        response: HttpResponse | StreamingHttpResponse
        with found.handing_over():
            if found.body is None:
                response = HttpResponse(status=found.status, headers=found.headers)
            else:
                response = StreamingHttpResponse(found.body, status=found.status, headers=found.headers)
        if "Content-Type" not in found.headers:
            del response["Content-Type"]
        return response


class SharedView(DownloadView):
    """The bytes of a file that its owner shares, under the address of a share link: no key is needed."""

    parameters = ()

    @describe("Download a shared file", REPLIES, problems=("no_such_link", *PROBLEMS), headers=READS)
    def get(self, request: HttpRequest, token: str, file_name: str | None = None) -> Any:
        return self._respond(answer_shared(request.META, token, file_name or ""))
