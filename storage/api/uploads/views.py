"""Uploads: a file is received and recorded, and the view waits until the file is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.urls import get_script_prefix
from rest_framework import status
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from storage.api import serializers
from storage.api.endpoint import RETRY_AFTER, Endpoint, owner_of
from storage.api.http.preferences import DISTRIBUTION, Preferences, preferred
from storage.api.names import FIELD as FILE_NAME
from storage.api.schema import answers, examples
from storage.api.schema.fields import NAME_OF_UPLOAD
from storage.api.schema.operations import Replies, Reply, describe
from storage.api.uploads.bodies import require_length
from storage.api.uploads.reception import FIELD, FormOrFile, RawParser, StagedFile, StagingFormParser
from storage.api.wsgi.slashes import without_slash
from storage.api.wsgi.transfers import transfer
from storage.conf import configuration
from storage.exceptions import InvalidRequest
from storage.models import AcceptedFile
from storage.services import catalogue, intake, verify

GRANTED = ("Preference-Applied",)
REPLIES: Replies = {
    200: Reply("you have this file already", answers.Uploaded, ("Location",), GRANTED, example=examples.AGAIN),
    201: Reply("the file is stored", answers.Uploaded, ("Location",), GRANTED, example=examples.UPLOADED),
    202: Reply(
        "a job stores the file",
        answers.UploadAccepted,
        ("Location", "Retry-After"),
        GRANTED,
        example=examples.UPLOAD_ACCEPTED,
    ),
}
PROBLEMS = (
    "length_required",
    "ingest_failed",
    "cluster_unavailable",
    "staging_unavailable",
    "too_many_transfers",
    "out_of_space",
    "byte_quota_exceeded",
    "file_quota_exceeded",
)
BYTES = {"type": "string", "format": "binary"}
DIGESTS = ("Repr-Digest", "Content-Digest")


class UploadView(Endpoint):
    """Upload a file: send a form with the field `file` and, if you like, `replication_factor`.

    A body of any other type is the file itself; `?file_name=` and `?replication_factor=` say the rest. With a form, a
    name in the query comes before that of the file field, and a factor in the form before that in the query.

    The answer is 201 for a new file, and 200 for bytes that you have already under this name. The answer is 202 with
    `Prefer: respond-async`, or when storing the file takes longer than UPLOAD_WAIT.
    """

    parameters = (FILE_NAME, "replication_factor", DISTRIBUTION)
    content_negotiation_class: type[BaseContentNegotiation] = FormOrFile
    parser_classes: tuple[type[BaseParser], ...] = (StagingFormParser, RawParser)

    def get_serializer(self, *args: Any, **kwargs: Any) -> serializers.UploadSerializer:
        return serializers.UploadSerializer(*args, **kwargs)

    @describe(
        "Upload a file",
        REPLIES,
        problems=PROBLEMS,
        headers=("Prefer", *DIGESTS),
        bodies={StagingFormParser.media_type: serializers.UploadSerializer, "application/octet-stream": BYTES},
        needs_body=True,
        query={FILE_NAME: NAME_OF_UPLOAD},
    )
    @transfer()
    def post(self, request: Request) -> Response:
        require_length(request.META)
        wishes = preferred(request)
        sent: Mapping[str, Any] = request.data  # type: ignore[assignment]  # our parsers return this type
        staged = sent.get(FIELD)
        if not isinstance(staged, StagedFile):
            problem = "No file was submitted." if staged is None else "This is no file; its part has no file name."
            raise InvalidRequest("a form with a file is expected", {FIELD: [problem]})
        with staged.reception as reception:
            factor = serializers.wanted_factor(sent) or configuration().replication_factor
            accepted = reception.accept(staged.name, factor, durable=wishes.respond_async)
        if wishes.respond_async:
            return self._accepted(accepted, wishes)
        stored = intake.finish(accepted, configuration().upload_wait)
        if stored is None:
            return self._accepted(accepted, wishes)
        return self._stored(owner_of(request), accepted, wishes, stored.distribution)

    def _stored(
        self, owner: User, accepted: AcceptedFile, wishes: Preferences, distribution: dict[str, list[str]] | None
    ) -> Response:
        body: dict[str, Any] = {
            "success": True,
            "file_hash": accepted.file_hash,
            "file_name": accepted.name,
            "file_size": accepted.size,
            "chunks": accepted.chunk_count,
            "replication_factor": accepted.replication_factor,
        }
        if wishes.distribution:
            if distribution is None:
                distribution = verify.distribution(catalogue.find(owner, accepted.file_hash, accepted.name).content)
            body["distribution"] = distribution
        body["deduplicated"] = accepted.deduplicated
        code = status.HTTP_201_CREATED if accepted.created else status.HTTP_200_OK
        # reverse() would return the same address, but takes longer than all the rest of the answer.
        location = f"{get_script_prefix()}files/{accepted.file_hash}"
        return Response(body, code, headers={"Location": location, **wishes.headers})

    def _accepted(self, accepted: AcceptedFile, wishes: Preferences) -> Response:
        location = reverse("job", args=[accepted.job_id])
        body = {
            "success": True,
            "file_hash": accepted.file_hash,
            "file_name": accepted.name,
            "file_size": accepted.size,
            "job": str(accepted.job_id),
        }
        headers = {"Location": location, "Retry-After": str(RETRY_AFTER), **wishes.headers}
        return Response(body, status.HTTP_202_ACCEPTED, headers=headers)


class RawUploadView(UploadView):
    """Upload a file as the body of the request, as `curl -T` does. The end of the path is the file's name.

    The answers are those of `POST /upload`. Without a name in the path or in `?file_name=`, the file is named by its
    hash.
    """

    http_method_names = ("put", "options")
    parser_classes = (RawParser,)

    @describe(
        "Upload a body",
        REPLIES,
        problems=PROBLEMS,
        headers=("Prefer", *DIGESTS),
        bodies={"application/octet-stream": BYTES},
        needs_body=False,
        query={FILE_NAME: NAME_OF_UPLOAD},
    )
    def put(self, request: Request, file_name: str) -> Response:
        return self.post(request)

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Redirect a request with another method to ``/upload`` if its path has no name."""
        if not kwargs["file_name"]:
            return without_slash(request._request)
        return super().http_method_not_allowed(request, *args, **kwargs)
