"""The views: each one turns a request into one service call, and its result into an answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from storage import models
from storage.accounts import quotas
from storage.api import buckets, cursors, documents, serializers
from storage.api.authorization import authorize
from storage.api.endpoint import RETRY_AFTER, Endpoint, owner_of, well_formed
from storage.api.http import preconditions
from storage.api.http.preferences import DISTRIBUTION, preferred
from storage.api.names import FIELD as FILE_NAME
from storage.api.names import chosen_name, valid_part
from storage.api.paging import LIMIT, address_of_next, limit_of
from storage.api.parameters import DELIMITER, one_of, sort_order, switch
from storage.api.schema import answers, examples
from storage.api.schema.fields import CONDITIONS, TEXT
from storage.api.schema.operations import Reply, describe
from storage.api.schema.status import Status
from storage.api.uploads.bodies import FieldsParser, FormParser, JSONParser
from storage.api.wsgi.transfers import transfer
from storage.conf import configuration
from storage.exceptions import InvalidRequest
from storage.jobs import waiting
from storage.models import Cluster, Sort
from storage.models.names import SEPARATOR
from storage.services import catalogue, health, locate, rebalance, statistics, undo, verify


class RootView(Endpoint):
    """OCC Storage: a content-addressed, replicated file store. A browser that opens this address gets the console."""

    heading = "OCC Storage"

    @describe("List the entry points", {200: Reply("addresses", answers.Root)})
    def get(self, request: Request) -> Response:
        names = ("health", "status", "upload", "files", "schema", "docs")
        return Response({name: reverse(name, request=request) for name in names})


class HealthView(Endpoint):
    """Tells whether uploads and downloads can be served; if not, what is missing, and what else is in trouble."""

    @describe(
        "Check the health",
        {
            200: Reply("uploads and downloads are served", answers.Health, example=examples.HEALTH),
            503: Reply("one of them is refused now", answers.Health, ("Retry-After",), example=examples.UNHEALTHY),
        },
    )
    def get(self, request: Request) -> Response:
        found = health.examine()
        troubled = "degraded" if found.degraded else "healthy"
        body: dict[str, Any] = {
            "status": "unhealthy" if found.failing else troubled,
            "nodes": found.nodes,
            "ready": not found.failing,
        }
        if found.degraded:
            body["degraded"] = list(found.degraded.values())
        if found.failing or found.degraded:
            body["troubles"] = documents.troubles(found)
        if not found.failing:
            return Response(body)
        body["failing"] = found.failing
        return Response(body, status.HTTP_503_SERVICE_UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER)})


class StatusView(Endpoint):
    """Statistics of the network, read from the sketches, and statistics of each node."""

    @describe("Show the state of the cluster", {200: Reply("statistics", Status)})
    def get(self, request: Request) -> Response:
        return Response(documents.cluster_status(statistics.gather()))


class AccountView(Endpoint):
    """Your account: what your key allows, how much you have stored, and how much you may store."""

    @describe("Show the account", {200: Reply("the account", answers.Account, example=examples.ACCOUNT)})
    def get(self, request: Request) -> Response:
        principal = authorize(request.META)
        return Response(documents.account(quotas.account(principal.owner), principal))


class FilesView(Endpoint):
    """The files, page by page. `limit` is the size of a page, by default 1000. The address in `next` has the next
    `cursor`.

    `prefix` selects names that begin with it, in upper and lower case as given. `name` selects names that contain it,
    in upper or lower case. `sort` is `created_at`, `file_name` or `file_size`, or one of these after a `-` for the
    reverse order.

    `delimiter=/` lists one folder: `prefix` is the folder, with a slash at its end, or empty. `folders` has the folders
    in it, by name, and `files` the files that are in it and in no deeper folder. Pages have the folders first.

    `bucket` lists the objects of a bucket of yours by key; it goes with `prefix`, `delimiter`, `limit` and `cursor`
    only. Its folders and objects come together in the order of keys.
    """

    parameters = (LIMIT, cursors.FIELD, "prefix", DELIMITER, "name", "sort", buckets.BUCKET)

    @describe(
        "List files",
        {200: Reply("a page of files, or of objects", answers.FILES_OR_OBJECTS, example=examples.FILES)},
        problems=("no_such_bucket",),
        query={"prefix": ("names or keys that begin with this, in upper and lower case as given", TEXT)},
    )
    def get(self, request: Request) -> Response:
        if buckets.BUCKET in request.query_params:
            return buckets.objects_page(request)
        limit = limit_of(request)  # What the request says is checked before PostgreSQL is asked.
        sort = sort_order(request, "sort")
        is_level = one_of(request, DELIMITER, (SEPARATOR,)) is not None
        page: catalogue.Page | catalogue.Level = (self._level if is_level else self._page)(request, sort, limit)
        epoch = Cluster.load().topology_epoch
        following = None if page.last is None else address_of_next(request, cursors.made_of(sort, page.last))
        files = [documents.file_summary(file, epoch) for file in page.files]
        folders = {"folders": page.folders} if isinstance(page, catalogue.Level) else {}
        return Response({"total_files": page.total, **folders, "files": files, "next": following})

    def _page(self, request: Request, sort: Sort, limit: int) -> catalogue.Page:
        cursor = request.query_params.get(cursors.FIELD)
        return catalogue.page(
            owner_of(request),
            limit=limit,
            sort=sort,
            after=None if cursor is None else cursors.read(cursor, sort),
            prefix=valid_part(request.query_params.get("prefix", ""), "prefix"),
            part=valid_part(request.query_params.get("name", ""), "name"),
        )

    def _level(self, request: Request, sort: Sort, limit: int) -> catalogue.Level:
        cursor = request.query_params.get(cursors.FIELD)
        if "name" in request.query_params:
            raise InvalidRequest("name searches all folders", {DELIMITER: ["Not together with name."]})
        return catalogue.level(
            owner_of(request),
            limit=limit,
            sort=sort,
            after=None if cursor is None else cursors.read_in_folder(cursor, sort),
            prefix=valid_part(request.query_params.get("prefix", ""), "prefix"),
        )


CHANGES = ("no_such_file", "precondition_failed", "too_many_transfers")
FILE = Reply("the file", answers.NamedFile, ("ETag", "Last-Modified", "Cache-Control"), example=examples.NAMED_FILE)


class FileView(Endpoint):
    """One file: show it, rename it (`PATCH` with `file_name`), remove it (`DELETE`).

    The same bytes may have several names. `GET` shows the newest file and lists all `names`. `PATCH` and `DELETE` are
    for all files of these bytes. `?file_name=` chooses one of these files.

    `ETag` covers what the file's owner can change, and `Last-Modified` is the time of the last such change. The health
    of the copies changes by itself, so it changes neither of these two fields. `PATCH` and `DELETE` honour `If-Match`
    and `If-Unmodified-Since`. `If-Match` may also name the tag of the file's bytes.
    """

    parameters = (FILE_NAME,)
    parser_classes = (JSONParser, FormParser, FieldsParser)

    def get_serializer(self, *args: Any, **kwargs: Any) -> serializers.RenameSerializer:
        return serializers.RenameSerializer(*args, **kwargs)

    @describe("Show a file", {200: FILE}, problems=("no_such_file",))
    def get(self, request: Request, file_hash: str) -> Response:
        return shown(self._found(request, file_hash))

    @describe("Rename a file", {200: FILE}, problems=CHANGES, headers=CONDITIONS)
    @transfer()
    def patch(self, request: Request, file_hash: str) -> Response:
        files = self._found(request, file_hash)
        # The conditions are checked before the body is read, and again under the lock.
        self._require_conditions(request, files)
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        name = form.validated_data["file_name"]
        return shown([catalogue.rename(*files, name=name, permit=partial(self._require_conditions, request))])

    @describe(
        "Delete a file",
        {204: Reply("deleted", may_have=("Undo-Location",))},
        problems=CHANGES,
        headers=CONDITIONS,
    )
    def delete(self, request: Request, file_hash: str) -> Response:
        files = self._found(request, file_hash)
        deletion = catalogue.delete(*files, permit=partial(self._require_conditions, request))
        headers = {"Undo-Location": reverse("deletion", args=[deletion.pk])} if deletion else {}
        return Response(status=status.HTTP_204_NO_CONTENT, headers=headers)

    def _found(self, request: Request, file_hash: str) -> Sequence[models.File]:
        return catalogue.find_all(owner_of(request), well_formed(file_hash), chosen_name(request.META), ready=False)

    def _require_conditions(self, request: Request, files: Sequence[models.File]) -> None:
        tags = (documents.file_tag(files), f'"{files[0].content.file_hash}"')
        preconditions.require(request.META, tags, max(file.modified_at for file in files))


def shown(files: Sequence[models.File]) -> Response:
    """The answer that shows files of one content, the newest first."""
    headers = {
        "ETag": documents.file_tag(files),
        "Last-Modified": preconditions.http_date(max(file.modified_at for file in files)),
        "Cache-Control": "no-cache",
    }
    body = documents.file_summary(files[0], Cluster.load().topology_epoch)
    return Response({**body, "names": [file.name for file in files]}, headers=headers)


class DeletionView(Endpoint):
    """The deletion of one file, or of all files of the same bytes. A `POST` undoes it, once, within RECLAIM_GRACE.

    The `Undo-Location` of the answer to a `DELETE` is this address. The files are again where they were in lists. Their
    share links do not come back.
    """

    http_method_names = ("post", "options")

    @describe(
        "Undo a deletion",
        {200: FILE},
        problems=(
            "no_such_deletion",
            "deletion_final",
            "content_not_ready",
            "content_unavailable",
            "byte_quota_exceeded",
            "file_quota_exceeded",
        ),
    )
    def post(self, request: Request, deletion_id: str) -> Response:
        return shown(undo.undo(owner_of(request), deletion_id))


class VerifyView(Endpoint):
    """The nodes that hold each chunk of a file: the volumes are asked. `?deep=true` reads and hashes every copy."""

    parameters = ("deep",)

    @describe(
        "Verify a file",
        {200: Reply("the copies of each chunk", answers.Verification, example=examples.VERIFICATION)},
        problems=("no_such_file", "content_not_ready", "too_many_transfers"),
    )
    @transfer()
    def get(self, request: Request, file_hash: str) -> Response:
        held = catalogue.find_holding(owner_of(request), well_formed(file_hash))
        return Response(documents.verification(verify.verify(held, deep=switch(request, "deep"))))


class RouteView(Endpoint):
    """The nodes that probably hold a chunk, in the order in which a download asks them.

    The order is computed from the sketches, and no node is asked.
    """

    @describe(
        "Route to a chunk",
        {200: Reply("the nodes in the order in which they are asked", answers.Route, example=examples.ROUTE)},
        problems=("no_such_chunk", "redis_unavailable"),
    )
    def get(self, request: Request, chunk_hash: str) -> Response:
        return Response(documents.route(chunk_hash, locate.candidates(well_formed(chunk_hash))))


class RebalanceView(Endpoint):
    """Bring a file to its replication factor, or to a new one (`replication_factor`)."""

    parameters = (DISTRIBUTION,)
    parser_classes = (JSONParser, FormParser, FieldsParser)

    def get_serializer(self, *args: Any, **kwargs: Any) -> serializers.RebalanceSerializer:
        return serializers.RebalanceSerializer(*args, **kwargs)

    def above_form(self, request: Request, **kwargs: Any) -> dict[str, Any]:
        held = catalogue.find_holding(owner_of(request), well_formed(kwargs["file_hash"]))
        return {
            "file_hash": kwargs["file_hash"],
            "file_name": held.name,
            "replication_factor": held.replication_factor,
        }

    @describe(
        "Rebalance a file",
        {
            200: Reply("rebalanced", answers.Rebalanced, may_have=("Preference-Applied",), example=examples.REBALANCED),
            202: Reply(
                "a job rebalances it",
                answers.RebalanceAccepted,
                headers=("Location", "Retry-After"),
                may_have=("Preference-Applied",),
                example=examples.REBALANCE_ACCEPTED,
            ),
        },
        problems=(
            "no_such_file",
            "content_not_ready",
            "job_failed",
            "cluster_unavailable",
            "out_of_space",
            "too_many_transfers",
        ),
        headers=("Prefer",),
    )
    @transfer()
    def post(self, request: Request, file_hash: str) -> Response:
        held = catalogue.find_holding(owner_of(request), well_formed(file_hash))
        wishes = preferred(request)
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        job = rebalance.request(held, form.validated_data.get("replication_factor"))
        outcome = job if wishes.respond_async else waiting.wait(job.pk, configuration().upload_wait)
        body: dict[str, Any] = {
            "success": True,
            "file_hash": file_hash,
            "file_name": held.name,
            "replication_factor": held.replication_factor,
        }
        if not isinstance(outcome, models.Job) or outcome.state == models.Job.State.SUCCEEDED:
            if wishes.distribution:
                body["new_distribution"] = verify.distribution(held.content)
            return Response(body, headers=wishes.headers)
        if outcome.is_terminal:
            waiting.raise_for(outcome)
        body["job"] = str(job.pk)
        headers = {"Location": reverse("job", args=[job.pk]), "Retry-After": str(RETRY_AFTER), **wishes.headers}
        return Response(body, status.HTTP_202_ACCEPTED, headers=headers)
