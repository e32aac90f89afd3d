"""The requests of resumable uploads. Bodies go into staging while they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.http import HttpRequest
from django.urls import get_script_prefix
from rest_framework import status
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from storage.accounts import rates
from storage.api import documents, names, serializers
from storage.api.authorization import authorize
from storage.api.endpoint import Endpoint, owner_of
from storage.api.http import preconditions
from storage.api.parameters import require_known
from storage.api.uploads.bodies import BodyStream, StrictRequest
from storage.api.uploads.tus import fields
from storage.api.wsgi.transfers import transfer
from storage.conf import configuration
from storage.exceptions import BodyStalled, BodyTruncated, InvalidRequest, NoSuchUpload
from storage.jobs import waiting
from storage.models import Resumable
from storage.services import resumable

ANSWER_SECONDS = 5.0  # The answer to the last bytes waits this long for the file's hash, and does not fail without it.
MUCH = 64 << 10  # A PATCH of at least this many bytes need not count towards RATE_LIMIT.
OVERRIDE = "HTTP_X_HTTP_METHOD_OVERRIDE"
CREATION_QUERY = (names.FIELD, "replication_factor")


class Tus(Endpoint):
    """A view for clients of tus 1.0, or of the IETF draft. The protocols describe it, so the schema omits it."""

    schema = None

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> StrictRequest:
        """Clients that can send only GET and POST name the method that they mean in a header field (tus 1.0)."""
        meant = request.META.get(OVERRIDE)
        if request.method == "POST" and meant in ("PATCH", "DELETE", "HEAD"):
            request.method = meant
        return super().initialize_request(request, *args, **kwargs)

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Name the version of the protocol in every answer. No cache may keep an answer, because the offset changes."""
        answer: Any = super().finalize_response(request, response, *args, **kwargs)
        if fields.DRAFT_FIELD in request.META:
            answer["Upload-Draft-Interop-Version"] = fields.DRAFT
        else:
            answer["Tus-Resumable"] = fields.VERSION
        answer["Cache-Control"] = "no-store"
        return answer

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """What this server can do, for clients of tus."""
        said = {
            "Tus-Version": fields.VERSION,
            "Tus-Extension": fields.EXTENSIONS,
            "Tus-Max-Size": str(configuration().max_upload_size),
            "Tus-Checksum-Algorithm": ",".join(fields.ALGORITHMS),
        }
        return Response(status=status.HTTP_204_NO_CONTENT, headers=said)


class UploadsView(Tus):
    """Begin a resumable upload, with tus 1.0 or with the IETF draft. `Location` in the answer is the address of the
    upload. Send the bytes to this address with `PATCH`, in as many requests as you like. `HEAD` tells how many bytes
    have arrived.
    `GET` lists your uploads of which bytes are still to come.
    """

    parameters = CREATION_QUERY

    def get(self, request: Request) -> Response:
        require_known(request.META, ())
        found = resumable.unfinished(owner_of(request))
        return Response({"uploads": [documents.upload_status(upload) for upload in found]})

    @transfer()
    def post(self, request: Request) -> Response:
        environ = request.META
        draft = fields.is_draft(environ)
        concat = environ.get("HTTP_UPLOAD_CONCAT", "")
        plan = _plan(request, draft, is_partial=concat == "partial")
        if concat and concat != "partial":
            joined = resumable.join(owner_of(request), plan, fields.parts(concat))
            return Response(status=status.HTTP_201_CREATED, headers={"Location": _address(request, joined)})
        stream = _Body(request, draft, creates=True)
        ends = bool(draft and fields.truth(environ, "Upload-Complete"))
        upload = resumable.begin(owner_of(request), plan)
        try:
            if stream.is_there or ends or plan.length == 0:
                upload = stream.take(upload, 0, ends=ends)
        except BaseException:
            # The client does not know the address of the upload yet: nobody would ever go on with it.
            with suppress(NoSuchUpload):
                resumable.end(owner_of(request), str(upload.pk))
            raise
        headers = {"Location": _address(request, upload), **_progress(upload, draft)}
        return Response(status=status.HTTP_201_CREATED, headers=headers)


class ResumableView(Tus):
    """One resumable upload. `GET` shows how many bytes of the upload are there, and in the end the hash of its file.

    `stage` is `sending`, `sent` (a part that waits to be joined), `hashing`, `storing`, `done` or `failed`. `HEAD` and
    `PATCH` are for clients of tus 1.0 and of the IETF draft. `DELETE` ends an upload, and drops what has arrived.
    """

    http_method_names = ("get", "head", "patch", "delete", "options")

    def get(self, request: Request, upload_id: str) -> Response:
        return Response(documents.upload_status(resumable.find(owner_of(request), upload_id)))

    def head(self, request: Request, upload_id: str) -> Response:
        """Tell where the upload goes on. A request that still sends its bytes is stopped, so the offset stays true."""
        draft = fields.is_draft(request.META)
        upload = resumable.take_over(owner_of(request), upload_id)
        code = status.HTTP_204_NO_CONTENT if draft else status.HTTP_200_OK
        return Response(status=code, headers={**_origin(upload), **_progress(upload, draft)})

    @transfer()
    def patch(self, request: Request, upload_id: str) -> Response:
        draft = fields.is_draft(request.META)
        try:
            return self._append(request, upload_id, draft)
        except (NoSuchUpload, BodyStalled, BodyTruncated):
            _count(request)
            raise

    def _append(self, request: Request, upload_id: str, draft: bool) -> Response:
        environ = request.META
        offset = fields.number(environ, "Upload-Offset")
        if offset is None:
            raise InvalidRequest("where do the bytes belong?", {"Upload-Offset": ["This field is required."]})
        ends = fields.truth(environ, "Upload-Complete") if draft else False
        if ends is None:
            raise InvalidRequest("are these the last bytes?", {"Upload-Complete": ["This field is required."]})
        length = fields.number(environ, "Upload-Length")
        stream = _Body(request, draft)
        upload = resumable.take_over(owner_of(request), upload_id)
        if upload.parts is not None:
            raise InvalidRequest("the upload is joined from others", {"Upload-Concat": ["It takes no bytes."]})
        if length is not None:
            resumable.declare_length(upload, length)
        if offset != upload.offset or not stream.brings_much(upload):
            _count(request)
        upload = stream.take(upload, offset, ends=ends)
        return Response(status=status.HTTP_204_NO_CONTENT, headers=_progress(upload, draft))

    def delete(self, request: Request, upload_id: str) -> Response:
        fields.is_draft(request.META)
        resumable.end(owner_of(request), upload_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class _Body:
    """The body of a request that brings bytes of an upload."""

    def __init__(self, request: Request, draft: bool, *, creates: bool = False) -> None:
        """
        Raises:
            UnsupportedMediaType: the body has another type, or a content coding.
        """
        self._stream = BodyStream(request.META)
        self._proof = None if draft else fields.proof(request.META.get("HTTP_UPLOAD_CHECKSUM"))
        self.is_there = self._stream.chunked or bool(self._stream.declared)
        media_type = (request.content_type or "").partition(";")[0].strip().lower()
        wanted = fields.DRAFT_BODY if draft else fields.TUS_BODY
        coding = request.headers.get("Content-Encoding", "identity").strip().lower()
        # The first body of a draft's upload has the media type of the file.
        if coding != "identity" or (media_type != wanted and (not creates or (self.is_there and not draft))):
            raise UnsupportedMediaType(media_type, detail=f"send the bytes as {wanted}, without a Content-Encoding")

    def brings_much(self, upload: Resumable) -> bool:
        """True if the body is so large, or ends the upload, that the request need not count towards RATE_LIMIT."""
        announced = self._stream.declared or 0
        return announced >= MUCH or (announced > 0 and upload.offset + announced == upload.length)

    def take(self, upload: Resumable, offset: int, *, ends: bool) -> Resumable:
        """Receive the bytes. If the upload is complete with these bytes, wait a little for the hash of the file.

        Returns:
            The upload after this request.
        """
        self._stream.allow(1 << 62)  # ``receive`` knows how many bytes the upload may still get.
        announced = self._stream.declared or 0
        resumable.receive(upload, offset, self._pieces(), announced=announced, proof=self._proof, ends=ends)
        if upload.job_id is None:
            return upload
        waiting.wait(upload.job_id, min(ANSWER_SECONDS, configuration().upload_wait))
        return resumable.find(upload.owner, str(upload.pk))

    def _pieces(self) -> Iterator[bytes]:
        return iter(self._stream.read, b"")


def _count(request: Request) -> None:
    """Count a PATCH towards RATE_LIMIT. A PATCH that brings much does not count: a client may send one upload in as
    many requests as it likes.

    Raises:
        TooManyRequests: the client has used up its requests.
    """
    rates.take(authorize(request.META).key_id or request.META.get("REMOTE_ADDR", ""))


def _plan(request: Request, draft: bool, *, is_partial: bool) -> resumable.Plan:
    """What the client says about a new upload.

    Raises:
        InvalidRequest, ValidationError: a field is missing or malformed.
    """
    environ = request.META
    text = environ.get("HTTP_UPLOAD_METADATA", "")
    said = fields.metadata(text)
    name = names.decoded(said.get("filename") or said.get("name") or b"") or names.in_query(environ)
    if name:
        names.valid_name(name)
    wanted = {"replication_factor": names.decoded(said.get("replication_factor", b""))}
    factor = serializers.wanted_factor(wanted) or serializers.wanted_factor(request.query_params)
    length = fields.number(environ, "Upload-Length")
    if draft:
        stream = BodyStream(environ)
        if length is None and fields.truth(environ, "Upload-Complete") and not stream.chunked:
            length = stream.declared
    elif not environ.get("HTTP_UPLOAD_CONCAT", "").startswith("final"):
        if (length is None) != (environ.get("HTTP_UPLOAD_DEFER_LENGTH") == "1"):
            raise InvalidRequest("how long is it?", {"Upload-Length": ["This field, or Upload-Defer-Length: 1."]})
    elif length is not None:
        raise InvalidRequest("the parts have the length", {"Upload-Length": ["Not together with final."]})
    factor = factor or configuration().replication_factor
    return resumable.Plan(name or None, factor, text, length, is_partial=is_partial)


def _address(request: Request, upload: Resumable) -> str:
    """The upload's whole address: some clients do not understand an address without a host."""
    return reverse("resumable", args=[upload.pk], request=request)


def _progress(upload: Resumable, draft: bool) -> dict[str, str]:
    """The fields that say how far an upload is."""
    said = {"Upload-Expires": preconditions.http_date(upload.expires_at)}
    if upload.parts is None or upload.is_complete:
        said["Upload-Offset"] = str(upload.offset)
    if upload.length is not None:
        said["Upload-Length"] = str(upload.length)
    elif not draft:
        said["Upload-Defer-Length"] = "1"
    if draft:
        said["Upload-Complete"] = "?1" if upload.is_complete else "?0"
    job = upload.job
    if job is not None and job.file_hash:
        said["Content-Location"] = f"{get_script_prefix()}files/{job.file_hash}"
    return said


def _origin(upload: Resumable) -> dict[str, str]:
    """The fields with which an upload was begun."""
    said = {}
    if upload.metadata:
        said["Upload-Metadata"] = upload.metadata
    if upload.is_partial:
        said["Upload-Concat"] = "partial"
    if upload.parts is not None:
        said["Upload-Concat"] = "final;" + " ".join(reverse("resumable", args=[part]) for part in upload.parts)
    return said
