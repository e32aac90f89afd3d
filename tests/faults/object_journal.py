"""A client of the S3 door that records everything it attempts, as the client of ``journal`` does for the API.

The module ``registers`` judges what was recorded. A version of an object is recorded before the first byte of its
upload is sent, by its ETag, which the client computes itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from http.client import HTTPException, HTTPResponse
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring

from tests.faults.journal import Exchange, Outcome, carry_out, end_without_success
from tests.faults.oracle import bad_answers
from tests.faults.registers import Change, Look, Registers, Version

BUCKET = "bucket"
PAGE = 4  # The number of keys in one page of a listing: few, so that a listing has several pages.
TRIES = 40  # The number of times that a client asks again for what it must know.
PAUSE = 0.5  # Seconds between two tries.

Judge = Callable[[HTTPResponse, bytes], None]
E = TypeVar("E", bound=Exchange)


def version_of(data: bytes) -> Version:
    """The version that one PutObject or UploadPart makes of its body."""
    return Version(_md5(data).hexdigest(), len(data), hashlib.sha256(data).hexdigest())


def joined(bodies: Sequence[bytes]) -> Version:
    """The version that a multipart upload makes of its parts."""
    etag = _md5(b"".join(_md5(body).digest() for body in bodies)).hexdigest()
    return replace(version_of(b"".join(bodies)), etag=f"{etag}-{len(bodies)}")


class Upload:
    """A multipart upload: its key, its id, and the registers of its parts."""

    def __init__(self, key: str, upload_id: str) -> None:
        self.key, self.upload_id = key, upload_id
        self.bodies: dict[int, bytes] = {}  # Number → the bytes of the part that was acknowledged last.

    def register(self, number: int) -> str:
        return f"{self.key}?partNumber={number}&uploadId={self.upload_id}"

    @property
    def registers(self) -> list[str]:
        return [self.register(number) for number in sorted(self.bodies)]


class ObjectJournal:
    """The changes of objects and the looks at objects, of all threads of a test."""

    def __init__(self, address: str, timeout: float = 120.0) -> None:
        """
        Args:
            address: host and port of the S3 door.
            timeout: seconds of silence after which the client gives up.
        """
        self.address = address
        self.timeout = timeout
        self.changes: list[Change] = []
        self.looks: list[Look] = []
        self._keys: dict[str, None] = {}
        self._known: dict[str, Version] = {}

    @property
    def exchanges(self) -> Iterator[Change | Look]:
        return chain(self.changes, self.looks)

    # -- changes -----------------------------------------------------------

    def put(self, key: str, data: bytes) -> Change:
        version = self._know(version_of(data))
        return self._put("PutObject", {key: version}, _path(key), data, version)

    def delete(self, key: str) -> Change:
        change = self._begin("DeleteObject", {key: None})
        return self._carry_out(change, "DELETE", _path(key), lambda answer, body: _end(change, body, 204))

    def delete_many(self, keys: Sequence[str]) -> Change:
        change = self._begin("DeleteObjects", dict.fromkeys(keys))

        def judge(_: HTTPResponse, body: bytes) -> None:
            # An answer about several keys that reports an error does not say what has become of the other keys.
            if change.status == 200 and _texts(body, "Error/Code"):
                change.end(Outcome.UNKNOWN, body.decode()[:200])
            else:
                _end(change, body, 200)

        document = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
        return self._carry_out(change, "POST", f"/{BUCKET}?delete", judge, f"<Delete>{document}</Delete>".encode())

    def copy(self, source: str, key: str) -> Change:
        """Copy an object to another key. The answer about the source is a look at the source."""
        change = self._begin("CopyObject", {key: None}, source)

        def judge(_: HTTPResponse, body: bytes) -> None:
            code, etags = _texts(body, "Code"), _texts(body, "ETag")
            version = self._known.get(etags[0].strip('"')) if etags else None
            if change.status == 200 and version is None:
                change.end(Outcome.WRONG, f"a copy of an unknown version: {etags}")
            else:
                _end(change, body, 200)
            if version is not None or code == ["NoSuchKey"]:
                change.effects[key] = version
                seen = Look("CopyObject", source, {source: version}, begun=change.begun, status=change.status)
                seen.end(change.outcome)
                self.looks.append(seen)

        return self._carry_out(change, "PUT", _path(key), judge, fields={"x-amz-copy-source": _path(source)})

    # -- multipart uploads -------------------------------------------------

    def begin_upload(self, key: str) -> Upload | None:
        """Begin a multipart upload, which changes no register. Return None if the server has begun none."""
        status, body = self._ask("POST", f"{_path(key)}?uploads")
        return Upload(key, _texts(body, "UploadId")[0]) if status == 200 else None

    def put_part(self, upload: Upload, number: int, data: bytes) -> bool:
        """Upload a part, again and again until it is acknowledged. Return False if it was not acknowledged.

        The bytes are the same each time: a try without an answer that takes effect later changes nothing.
        """
        version = self._know(version_of(data))
        path = f"{_path(upload.key)}?{urlencode({'partNumber': number, 'uploadId': upload.upload_id})}"
        for _ in range(TRIES):
            change = self._put("UploadPart", {upload.register(number): version}, path, data, version)
            if change.outcome is Outcome.ACKNOWLEDGED:
                upload.bodies[number] = data
                return True
            time.sleep(PAUSE)
        return False

    def list_parts(self, upload: Upload) -> Look:
        """List the parts of an upload whose parts are all acknowledged."""
        look = Look("ListParts", upload.key)

        def judge(_: HTTPResponse, body: bytes) -> None:
            _end(look, body, 200)
            if look.status == 404:
                look.seen = dict.fromkeys(upload.registers)
            elif look.status == 200:
                rows = _rows(body, "Part", "PartNumber", "ETag", "Size")
                listed = {upload.register(int(n)): self._listed(etag, size) for n, etag, size in rows}
                look.seen = dict.fromkeys(upload.registers) | listed

        return self._look(look, f"{_path(upload.key)}?uploadId={upload.upload_id}", judge)

    def complete(self, upload: Upload) -> Change:
        """Complete an upload. The client asks again until it has an answer: that is one change."""
        version = self._know(joined([upload.bodies[number] for number in sorted(upload.bodies)]))
        change = self._begin("CompleteMultipartUpload", {upload.key: version} | dict.fromkeys(upload.registers))

        def judge(_: HTTPResponse, body: bytes) -> None:
            _end(change, body, 200)
            if change.status == 200 and _texts(body, "ETag") != [f'"{version.etag}"']:
                change.end(Outcome.WRONG, f"another object than {version}")
            elif change.outcome is Outcome.REFUSED:
                change.end(Outcome.WRONG, f"its parts were acknowledged: {change.detail}")

        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{version_of(data).etag}</ETag></Part>"
            for number, data in sorted(upload.bodies.items())
        )
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        for _ in range(TRIES):
            self._carry_out(change, "POST", f"{_path(upload.key)}?uploadId={upload.upload_id}", judge, document)
            if change.outcome is not Outcome.UNKNOWN:
                break
            time.sleep(PAUSE)
        return change

    def abort(self, upload: Upload) -> Change:
        change = self._begin("AbortMultipartUpload", dict.fromkeys(upload.registers))
        path = f"{_path(upload.key)}?uploadId={upload.upload_id}"
        return self._carry_out(change, "DELETE", path, lambda _, body: _end(change, body, 204))

    # -- looks -------------------------------------------------------------

    def get(self, key: str) -> Look:
        look = Look("GetObject", key)

        def judge(answer: HTTPResponse, body: bytes) -> None:
            _end(look, body, 200)
            if look.status == 200:
                etag = (answer.getheader("ETag") or "").strip('"')
                look.seen = {key: Version(etag, len(body), hashlib.sha256(body).hexdigest())}
            elif look.status == 404 and _texts(body, "Code") == ["NoSuchKey"]:
                look.seen = {key: None}

        return self._look(look, _path(key), judge)

    def list(self) -> Look:
        """List all objects, page by page. Each key is seen once, at some moment of the look."""
        look, token = Look("ListObjectsV2", BUCKET), [""]

        def judge(_: HTTPResponse, body: bytes) -> None:
            _end(look, body, 200)
            token[:] = _texts(body, "NextContinuationToken")
            if look.status == 200:
                rows = _rows(body, "Contents", "Key", "ETag", "Size")
                look.seen |= {key: self._listed(etag, size) for key, etag, size in rows}

        self.looks.append(look)
        while token:
            query = {"list-type": 2, "max-keys": PAGE} | ({"continuation-token": token[0]} if token[0] else {})
            token[:] = []
            self._carry_out(look, "GET", f"/{BUCKET}?{urlencode(query)}", judge)
        if look.outcome is Outcome.ACKNOWLEDGED:
            look.seen = dict.fromkeys(list(self._keys)) | look.seen
        else:
            look.seen.clear()
        return look

    # -- the end -----------------------------------------------------------

    def create_bucket(self) -> None:
        status, body = self._ask("PUT", f"/{BUCKET}")
        assert status == 200, body

    def abort_all(self) -> None:
        """Abort all uploads that are not ended yet, which is not recorded."""
        status, body = self._ask("GET", f"/{BUCKET}?uploads")
        assert status == 200, body
        for key, upload_id in _rows(body, "Upload", "Key", "UploadId"):
            assert self._ask("DELETE", f"{_path(key)}?uploadId={upload_id}")[0] == 204

    def violations(self) -> Iterator[str]:
        """List the broken promises of a service at rest. Each line begins with the kind of violation."""
        if not self._keys:
            return  # No client has used the S3 door, which may not even be open.
        for look in (self.list(), *(self.get(key) for key in list(self._keys))):
            if not look.seen:
                yield f"unreadable: {look}"
        yield from bad_answers(self.exchanges)
        yield from Registers(self.changes, self.looks).violations()

    # -- the wire ----------------------------------------------------------

    def _know(self, version: Version) -> Version:
        self._known[version.etag] = version
        return version

    def _listed(self, etag: str, size: str) -> Version:
        """The version that a listing shows, with the digest that the client knows from the upload."""
        etag = etag.strip('"')
        return replace(self._known.get(etag, Version(etag, 0, "")), size=int(size))

    def _begin(self, operation: str, effects: dict[str, Version | None], source: str | None = None) -> Change:
        self._keys |= {key: None for key in effects if "?" not in key}
        change = Change(operation, effects, source)
        self.changes.append(change)
        return change

    def _put(self, operation: str, effects: dict[str, Version | None], path: str, data: bytes, to: Version) -> Change:
        change = self._begin(operation, effects)

        def judge(answer: HTTPResponse, body: bytes) -> None:
            _end(change, body, 200)
            if change.status == 200 and answer.getheader("ETag") != f'"{to.etag}"':
                change.end(Outcome.WRONG, f"another ETag: {answer.getheader('ETag')}")

        return self._carry_out(change, "PUT", path, judge, data)

    def _look(self, look: Look, path: str, judge: Judge) -> Look:
        self.looks.append(look)
        return self._carry_out(look, "GET", path, judge)

    def _carry_out(
        self,
        exchange: E,
        method: str,
        path: str,
        judge: Judge,
        data: bytes = b"",
        fields: Mapping[str, str] | None = None,
    ) -> E:
        carry_out(
            exchange,
            self.address,
            self.timeout,
            lambda connection: connection.request(method, path, data, dict(fields or {})),
            lambda answer: judge(answer, answer.read()),
        )
        return exchange

    def _ask(self, method: str, path: str) -> tuple[int | None, bytes]:
        """Send a request that is not recorded. Return status and body; the status is None if no whole answer came."""
        exchange, told = Exchange(), [b""]

        def judge(_: HTTPResponse, body: bytes) -> None:
            told[0] = body
            exchange.end(Outcome.ACKNOWLEDGED)

        self._carry_out(exchange, method, path, judge)
        return (None if exchange.outcome is Outcome.UNKNOWN else exchange.status), told[0]


def _md5(data: bytes) -> Any:
    return hashlib.md5(data, usedforsecurity=False)


def _path(key: str) -> str:
    return f"/{BUCKET}/{quote(key)}"


def _end(exchange: Exchange, body: bytes, good: int) -> None:
    if exchange.status == good:
        exchange.end(Outcome.ACKNOWLEDGED)
    else:
        end_without_success(exchange, body)


def _document(body: bytes) -> Element:
    try:
        found: Element = fromstring(body)
    except SyntaxError as error:  # ElementTree's ParseError is a SyntaxError.
        raise HTTPException(f"no document: {body[:200]!r}") from error
    return found


def _texts(body: bytes, path: str) -> list[str]:
    """The texts of the elements at a path below the root of a document; none if there is no body."""
    steps = "/".join(f"{{*}}{step}" for step in path.split("/"))
    return [element.text or "" for element in _document(body).findall(steps)] if body else []


def _rows(body: bytes, name: str, *columns: str) -> list[list[str]]:
    """The texts of the children ``columns`` of each element that is called ``name``."""
    return [
        [row.findtext(f"{{*}}{column}") or "" for column in columns] for row in _document(body).findall(f"{{*}}{name}")
    ]
