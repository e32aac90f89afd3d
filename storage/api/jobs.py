"""Background jobs: list, follow, cancel and retry them."""

from __future__ import annotations

import uuid

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from storage.api import cursors, documents
from storage.api.authorization import authorize, require_operator
from storage.api.endpoint import RETRY_AFTER, Endpoint
from storage.api.paging import LIMIT, address_of_next, limit_of
from storage.api.parameters import one_of
from storage.api.schema import answers, examples
from storage.api.schema.operations import Reply, describe
from storage.exceptions import NoSuchJob
from storage.models import Job, Scope
from storage.services import cancel, catalogue, retry

WORK = ("uploads", "maintenance")
STATES = tuple(Job.State.values)


class JobsView(Endpoint):
    """Your background jobs, the newest first, page by page. A key with the scope `admin` lists every job.

    `work` is `uploads` or `maintenance`. `state` is one of the states of a job. `limit` is the size of a page, by
    default 1000. The address in `next` has the next `cursor`. A job is kept for a week after its end.

    `file_name` is the name of the job's file, if it is a file of yours.
    """

    parameters = ("work", "state", LIMIT, cursors.FIELD)

    @describe("List jobs", {200: Reply("a page of jobs", answers.Jobs, example=examples.JOBS)})
    def get(self, request: Request) -> Response:
        limit = limit_of(request)
        principal = authorize(request.META)
        jobs = Job.objects.order_by("-created_at", "-id")
        if Scope.ADMIN not in principal.scopes:
            jobs = jobs.filter(owner=principal.owner)
        if work := one_of(request, "work", WORK):
            jobs = jobs.filter(subject__isnull=work == "uploads")  # Only maintenance has a subject.
        if state := one_of(request, "state", STATES):
            jobs = jobs.filter(state=state)
        if (cursor := request.query_params.get(cursors.FIELD)) is not None:
            jobs = jobs.before(*cursors.read_moment(cursor))
        found = list(jobs[: limit + 1])
        following = None
        if len(found) > limit:
            last = found[limit - 1]
            following = address_of_next(request, cursors.made_of_moment(last.created_at, last.pk))
        names = catalogue.names_of(principal.owner, {job.file_hash for job in found if job.file_hash})
        listed = [{**documents.job_status(job), "file_name": names.get(job.file_hash or "")} for job in found[:limit]]
        return Response({"jobs": listed, "next": following})


class JobView(Endpoint):
    """One background job of yours. A key with the scope `admin` shows every job."""

    @describe(
        "Follow a job",
        {200: Reply("the job", answers.JobEntry, may_have=("Retry-After",), example=examples.JOB_ENTRY)},
        problems=("no_such_job",),
    )
    def get(self, request: Request, job_id: str) -> Response:
        job = _found(request, job_id)
        headers = {} if job.is_terminal else {"Retry-After": str(RETRY_AFTER)}
        return Response(documents.job_status(job), headers=headers)


class CancelView(Endpoint):
    """End a job of yours; with the scope `admin`, any job. The maintenance that it has done stays done.

    A cancelled drain leaves its node active. A cancelled upload is gone, with the file that only it has made.
    """

    @describe(
        "Cancel a job",
        {200: Reply("the job is cancelled", answers.JobEntry, example=examples.JOB_CANCELLED)},
        problems=("no_such_job", "not_possible"),
    )
    def post(self, request: Request, job_id: str) -> Response:
        job = _controlled(request, job_id)
        cancel.cancel(job)
        job.refresh_from_db()
        return Response(documents.job_status(job))


class RetryView(Endpoint):
    """Do the work of a failed or cancelled job of yours again; with the scope `admin`, of any job.

    A failed upload keeps its bytes for a week, so the same job stores them. Maintenance gets a new job: the answer
    has its id.
    """

    @describe(
        "Retry a job",
        {
            202: Reply(
                "the job that does the work", answers.JobEntry, ("Location", "Retry-After"), example=examples.JOB_QUEUED
            )
        },
        problems=("no_such_job", "not_possible"),
    )
    def post(self, request: Request, job_id: str) -> Response:
        return accepted(retry.retry(_controlled(request, job_id)))


def accepted(job: Job) -> Response:
    """The answer to a request whose work a job does."""
    headers = {"Location": reverse("job", args=[job.pk]), "Retry-After": str(RETRY_AFTER)}
    return Response(documents.job_status(job), status.HTTP_202_ACCEPTED, headers=headers)


def _controlled(request: Request, job_id: str) -> Job:
    """The job of this id, if the client may end it and begin it again.

    Raises:
        NoSuchJob: there is no such job, or the client may not see it.
        Forbidden: the job is somebody else's, and the client may see it only.
    """
    job = _found(request, job_id)
    principal = authorize(request.META)
    if job.owner_id != principal.owner.pk:
        require_operator(principal, "storage.change_job")
    return job


def _found(request: Request, job_id: str) -> Job:
    """The job of this id, if the client may see it.

    Raises:
        NoSuchJob: there is no such job, or the client may not see it.
    """
    principal = authorize(request.META)
    try:
        job = Job.objects.get(pk=uuid.UUID(job_id))
    except (ValueError, Job.DoesNotExist):
        raise NoSuchJob(f"no job {job_id}") from None
    if job.owner_id != principal.owner.pk and Scope.ADMIN not in principal.scopes:
        raise NoSuchJob(f"no job {job_id}")
    return job
