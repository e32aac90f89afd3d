"""Background work: uploads that are being stored, and maintenance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.urls import reverse
from django.utils import timezone

from storage.console import words
from storage.console.page import Page, cursor_in, reason

PAGE_SIZE = 30
WORKS = {"uploads": "Uploads", "maintenance": "Maintenance"}
OPEN = ("queued", "running")
ENDED_BADLY = ("failed", "cancelled")
WORTH_TELLING = 5  # An estimate from fewer seconds of work says nothing.


class JobsPage(Page):
    """The jobs, the newest first: uploads and maintenance apart."""

    section = "jobs"

    def get(self, request: Any) -> HttpResponse:
        work = request.GET.get("work", "uploads")
        work = work if work in WORKS else "uploads"
        found = self.need(self.api.get("/jobs", work=work, limit=PAGE_SIZE, cursor=request.GET.get("cursor", "")))
        now = timezone.now()
        jobs = [described(job, now) for job in found["jobs"]]
        context = {
            "jobs": jobs,
            "work": work,
            "works": WORKS,
            "is_busy": any(job["state"] in OPEN for job in jobs) and not request.GET.get("cursor"),
            "here": f"{reverse('console:jobs')}?{urlencode({'work': work})}",
            "following": _following(found["next"], work),
        }
        is_part = request.headers.get("HX-Target") == "jobs"
        return self.show("console/parts/jobs.html" if is_part else "console/jobs.html", context)


class JobPage(Page):
    """One job."""

    section = "jobs"

    def get(self, request: Any, job_id: str) -> HttpResponse:
        job = described(self.need(self.api.get(f"/jobs/{job_id}")), timezone.now())
        is_part = request.headers.get("HX-Target") == "job"
        return self.show("console/parts/job.html" if is_part else "console/job.html", {"job": job})


class ControlPage(Page):
    """The question before a job is cancelled or tried again, and the act itself."""

    section = "jobs"
    verb: str

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.verb = kwargs["verb"]
        if self.verb not in ("cancel", "retry"):
            raise Http404
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: Any, job_id: str, verb: str) -> HttpResponse:
        job = described(self.need(self.api.get(f"/jobs/{job_id}")), timezone.now())
        return self.show("console/control.html", {"job": job, "verb": verb})

    def post(self, request: Any, job_id: str, verb: str) -> HttpResponse:
        answer = self.api.send("POST", f"/jobs/{job_id}/{verb}")
        if not answer.is_good:
            messages.error(request, f"Nothing was done: {reason(answer)}.")
            return self.go_to(reverse("console:job", args=[job_id]))
        return self.go_to(reverse("console:job", args=[answer.document["id"]]))


def described(job: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """A job of the API with what people want to know: the share that is done, and the time that is left."""
    done, total = job["progress"]["done"], job["progress"]["total"]
    percent = None if not total or job["state"] not in OPEN else min(99, 100 * done // total)
    left = rate = ""
    started = words.moment(job["started_at"])
    if job["state"] == "running" and started and total and 0 < done < total:
        passed = (now - started).total_seconds()
        if passed > WORTH_TELLING:
            left = words.span(passed * (total - done) / done)
            rate = f"{words.size(job['size'] * done / total / passed)}/s" if job["size"] else ""
    subject = job["subject"] if (job["subject"] or "").startswith("node_") else ""
    return {
        **job,
        "percent": percent,
        "left": left,
        "rate": rate,
        "node": subject,
        "is_open": job["state"] in OPEN,
        "may_retry": job["state"] in ENDED_BADLY,
        "is_upload": job["subject"] is None,
        "figures": [(name, _figure(name, value)) for name, value in (job["result"] or {}).items()],
    }


def _figure(name: str, value: Any) -> str:
    """A figure of a job's result as people read it. A name that ends in ``bytes`` means a number of bytes."""
    if type(value) is int:
        return words.size(value) if name.endswith("bytes") else f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _following(address: str | None, work: str) -> str | None:
    cursor = cursor_in(address)
    return cursor and f"{reverse('console:jobs')}?{urlencode({'work': work, 'cursor': cursor})}"
