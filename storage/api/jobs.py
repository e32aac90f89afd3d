"""The list of background jobs."""

from __future__ import annotations

import base64
import binascii
import uuid
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from storage.api import documents
from storage.api.authorization import authorize
from storage.api.cursors import FIELD as CURSOR
from storage.api.endpoint import Endpoint
from storage.api.parameters import one_of, whole_number
from storage.api.schema import answers, examples
from storage.api.schema.operations import Reply, describe
from storage.exceptions import InvalidRequest
from storage.models import Job, Scope

PAGE_LIMIT = 1000
WORK = ("uploads", "maintenance")
STATES = tuple(Job.State.values)


class JobsView(Endpoint):
    """Your background jobs, the newest first, page by page. A key with the scope `admin` lists every job.

    `work` is `uploads` or `maintenance`. `state` is one of the states of a job. `limit` is the size of a page, by
    default 1000. The address in `next` has the next `cursor`. A job is kept for a week after its end.
    """

    parameters = ("work", "state", "limit", CURSOR)

    @describe("List jobs", {200: Reply("a page of jobs", answers.Jobs, example=examples.JOBS)})
    def get(self, request: Request) -> Response:
        limit = whole_number(request, "limit", PAGE_LIMIT, 1, PAGE_LIMIT)
        principal = authorize(request.META)
        jobs = Job.objects.order_by("-created_at", "-id")
        if Scope.ADMIN not in principal.scopes:
            jobs = jobs.filter(owner=principal.owner)
        if work := one_of(request, "work", WORK):
            jobs = jobs.filter(subject__isnull=work == "uploads")  # Only maintenance has a subject.
        if state := one_of(request, "state", STATES):
            jobs = jobs.filter(state=state)
        if (cursor := request.query_params.get(CURSOR)) is not None:
            jobs = jobs.before(*_read(cursor))
        found = list(jobs[: limit + 1])
        following = None
        if len(found) > limit:
            more: dict[str, Any] = {**request.query_params.dict(), CURSOR: _cursor_after(found[limit - 1])}
            following = request.build_absolute_uri(f"{reverse('jobs')}?{urlencode(more)}")
        return Response({"jobs": [documents.job_status(job) for job in found[:limit]], "next": following})


def _cursor_after(job: Job) -> str:
    return base64.urlsafe_b64encode(f"{job.created_at.isoformat()} {job.pk}".encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[datetime, uuid.UUID]:
    """The time and the id of the job after which a page begins.

    Raises:
        InvalidRequest: the text is not a cursor.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True).decode()
        created_at, _, job_id = text.partition(" ")
        moment = datetime.fromisoformat(created_at)
        if moment.tzinfo is None:
            raise ValueError
        return moment, uuid.UUID(job_id)
    except (binascii.Error, ValueError):
        raise InvalidRequest("not a cursor", {CURSOR: ["Use the one in next."]}) from None
