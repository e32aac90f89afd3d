"""HTTP on one side, one service call on the other."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from typing import Any
from urllib.parse import urlencode

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from storage import models
from storage.api import serializers
from storage.api.bodies import FieldsParser, FormParser, JSONParser
from storage.api.endpoint import RETRY_AFTER, Endpoint, prefers_async, well_formed
from storage.api.transfers import transfer
from storage.conf import configuration
from storage.exceptions import InvalidRequest, NoSuchJob
from storage.models import Cluster, nobody
from storage.services import catalogue, health, intake, locate, rebalance, statistics, verify

PAGE_LIMIT = 1000


class Root(Endpoint):
    """OCC Storage: a content-addressed, replicated file store. Where chunks lie is known in LCRS sketches."""

    def get(self, request: Request) -> Response:
        names = ("health", "status", "upload", "files")
        return Response({name: reverse(name, request=request) for name in names})


class Health(Endpoint):
    """Whether uploads and downloads can be served; if not, what is missing, and what else is in trouble."""

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
        if not found.failing:
            return Response(body)
        body["failing"] = found.failing
        return Response(body, status.HTTP_503_SERVICE_UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER)})


class Status(Endpoint):
    """Statistics of the network, read off the sketches, and of each node."""

    def get(self, request: Request) -> Response:
        return Response(serializers.cluster_status(statistics.gather()))


class Files(Endpoint):
    """The files, page by page: `limit` (1000), and `cursor` as `next` gives it."""

    def get(self, request: Request) -> Response:
        limit = whole_number(request, "limit", PAGE_LIMIT, 1, PAGE_LIMIT)
        page = catalogue.page(nobody(), limit=limit, after=read_cursor(request))
        epoch = Cluster.load().topology_epoch
        following = None
        if page.last is not None:
            query = urlencode({"limit": limit, "cursor": make_cursor(page.last)})
            following = request.build_absolute_uri(f"{reverse('files')}?{query}")
        files = [serializers.file_summary(file, epoch) for file in page.files]
        return Response({"total_files": page.total, "files": files, "next": following})


class File(Endpoint):
    """One file: show it, rename it (`PATCH` with `file_name`), remove it (`DELETE`)."""

    parser_classes = (JSONParser, FormParser, FieldsParser)

    def get_serializer(self, *args: Any, **kwargs: Any) -> serializers.RenameSerializer:
        return serializers.RenameSerializer(*args, **kwargs)

    def get(self, request: Request, file_hash: str) -> Response:
        return self._shown(catalogue.find(nobody(), well_formed(file_hash), ready=False))

    @transfer()
    def patch(self, request: Request, file_hash: str) -> Response:
        file = catalogue.find(nobody(), well_formed(file_hash), ready=False)
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        return self._shown(catalogue.rename(file, form.validated_data["file_name"]))

    def delete(self, request: Request, file_hash: str) -> Response:
        catalogue.delete(catalogue.find(nobody(), well_formed(file_hash), ready=False))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _shown(self, file: models.File) -> Response:
        return Response(serializers.file_summary(file, Cluster.load().topology_epoch))


class Verify(Endpoint):
    """Which nodes hold each chunk of a file, asked of the volumes; `?deep=true` reads and hashes every copy."""

    @transfer()
    def get(self, request: Request, file_hash: str) -> Response:
        file = catalogue.find(nobody(), well_formed(file_hash))
        return Response(serializers.verification(verify.verify(file, deep=switch(request, "deep"))))


class Route(Endpoint):
    """The nodes that probably hold a chunk, in the order in which a download asks them: from the sketches alone."""

    def get(self, request: Request, chunk_hash: str) -> Response:
        return Response(serializers.route(chunk_hash, locate.locate(well_formed(chunk_hash))))


class Rebalance(Endpoint):
    """Bring a file to its replication factor, or to a new one (`replication_factor`)."""

    parser_classes = (JSONParser, FormParser, FieldsParser)

    def get_serializer(self, *args: Any, **kwargs: Any) -> serializers.RebalanceSerializer:
        return serializers.RebalanceSerializer(*args, **kwargs)

    @transfer()
    def post(self, request: Request, file_hash: str) -> Response:
        file = catalogue.find(nobody(), well_formed(file_hash))
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        job = rebalance.request(file, form.validated_data.get("replication_factor"))
        outcome = job if prefers_async(request) else intake.wait(job.pk, configuration().upload_wait)
        body: dict[str, Any] = {
            "success": True,
            "file_hash": file_hash,
            "file_name": file.name,
            "replication_factor": file.replication_factor,
        }
        if not isinstance(outcome, models.Job) or outcome.state == models.Job.State.SUCCEEDED:
            body["new_distribution"] = verify.distribution(file)
            return Response(body)
        if outcome.is_terminal:
            intake.raise_for(outcome)
        body["job"] = str(job.pk)
        headers = {"Location": reverse("job", args=[job.pk]), "Retry-After": str(RETRY_AFTER)}
        return Response(body, status.HTTP_202_ACCEPTED, headers=headers)


class Job(Endpoint):
    """One background job."""

    def get(self, request: Request, job_id: str) -> Response:
        try:
            job = models.Job.objects.get(pk=uuid.UUID(job_id))
        except (ValueError, models.Job.DoesNotExist):
            raise NoSuchJob(f"no job {job_id}") from None
        headers = {} if job.is_terminal else {"Retry-After": str(RETRY_AFTER)}
        return Response(serializers.job_status(job), headers=headers)


# -- what requests say -------------------------------------------------------


def whole_number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A number of the query.

    Raises:
        InvalidRequest: it is none, or out of range.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise InvalidRequest(f"{name} is a number from {low} to {high}", {name: [f"{low} to {high}."]})
    return int(text)


def switch(request: Request, name: str) -> bool:
    """A yes or no of the query; no if it is not there.

    Raises:
        InvalidRequest: it is neither.
    """
    text = request.query_params.get(name, "false").lower()
    if text in ("1", "true", "yes"):
        return True
    if text in ("0", "false", "no"):
        return False
    raise InvalidRequest(f"{name} is true or false", {name: ["true or false."]})


def make_cursor(file_id: int) -> str:
    return base64.urlsafe_b64encode(b"f%d" % file_id).decode().rstrip("=")


def read_cursor(request: Request) -> int:
    """Where the page begins.

    Raises:
        InvalidRequest: the cursor is none that ``next`` gave.
    """
    text = request.query_params.get("cursor")
    if text is None:
        return 0
    try:
        match = re.fullmatch(rb"f([0-9]{1,18})", base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        match = None
    if match is None:
        raise InvalidRequest("not a cursor", {"cursor": ["Use the one in next."]})
    return int(match[1])
