"""Buckets and their objects, which programs have stored through the S3 door: list, download and delete them."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpRequest
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from storage import models
from storage.api import cursors, documents
from storage.api.downloads.answer import KEY, OBJECT_REPLIES, PROBLEMS, READS, DownloadView, answer_object
from storage.api.endpoint import Endpoint, owner_of
from storage.api.http import preconditions
from storage.api.names import in_query
from storage.api.paging import LIMIT, address_of_next, limit_of
from storage.api.parameters import DELIMITER, one_of, plain_text, require_known
from storage.api.schema import answers, examples
from storage.api.schema.fields import CONDITIONS
from storage.api.schema.operations import Reply, describe
from storage.exceptions import NoSuchObject
from storage.models import Cluster, Sort
from storage.models.names import SEPARATOR
from storage.services import objects

BUCKET = "bucket"
BY_NAME = Sort("file_name")
OF_OBJECTS = ("no_such_bucket", "no_such_object", "invalid_object_key")


class BucketsView(Endpoint):
    """Your buckets, by name, page by page: what they hold, and how much they may hold.

    `limit` is the size of a page, by default 1000. `next` is the address of the following page, with its `cursor`.
    """

    parameters = (LIMIT, cursors.FIELD)

    @describe("List buckets", {200: Reply("a page of buckets", answers.Buckets, example=examples.BUCKETS)})
    def get(self, request: Request) -> Response:
        limit = limit_of(request)
        found, last = objects.bucket_page(owner_of(request), limit=limit, after=_after(request))
        return Response({"buckets": [documents.bucket(each) for each in found], "next": _following(request, last)})


class ObjectView(DownloadView):
    """The bytes of an object: all of them, or the bytes that `Range` asks for. `DELETE` deletes the object.

    `key` is the key of the object. `DELETE` honours `If-Match` and `If-Unmodified-Since`, and cannot be undone.
    """

    parameters = (KEY,)

    @describe("Download an object", OBJECT_REPLIES, problems=(*OF_OBJECTS, *PROBLEMS), headers=READS)
    def get(self, request: HttpRequest, bucket: str) -> Any:  # type: ignore[override]  # the address has other parts
        return self._respond(answer_object(request.META, bucket))

    @describe(
        "Delete an object",
        {204: Reply("deleted")},
        problems=(*OF_OBJECTS, "precondition_failed"),
        headers=CONDITIONS,
    )
    def delete(self, request: Request, bucket: str) -> Response:
        owned, key = objects.own_bucket(owner_of(request), bucket), in_query(request.META, KEY)
        if not objects.delete(owned, key, permit=partial(_require_conditions, request)):
            raise NoSuchObject(f"no object {key}")
        return Response(status=status.HTTP_204_NO_CONTENT)


def _require_conditions(request: Request, found: models.Object) -> None:
    preconditions.require(request.META, (f'"{found.etag}"',), found.modified_at)


def objects_page(request: Request) -> Response:
    """The answer to ``/files?bucket=``.

    Raises:
        InvalidRequest: the query has a parameter or a value that lists of objects do not know.
        NoSuchBucket: the owner has no such bucket.
    """
    require_known(request.META, (LIMIT, cursors.FIELD, "prefix", DELIMITER, BUCKET))
    page = objects.page(
        owner_of(request),
        plain_text(request, BUCKET),
        limit=limit_of(request),
        prefix=plain_text(request, "prefix"),
        delimiter=one_of(request, DELIMITER, (SEPARATOR,)) or "",
        after=_after(request),
    )
    epoch = Cluster.load().topology_epoch
    files = [documents.object_summary(entry, epoch) for entry in page.entries]
    folders = {"folders": page.folders} if DELIMITER in request.query_params else {}
    return Response({"total_files": page.total, **folders, "files": files, "next": _following(request, page.last)})


def _after(request: Request) -> str:
    """The last entry of the page before; empty for the first page."""
    cursor = request.query_params.get(cursors.FIELD)
    return "" if cursor is None else cursors.read_text(cursor, BY_NAME)


def _following(request: Request, last: str | None) -> str | None:
    """The address of the page after the one that ends with ``last``; None after the last page."""
    return None if last is None else address_of_next(request, cursors.made_of(BY_NAME, last))
