"""Figures of the cluster over time."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from storage.api.authorization import authorize
from storage.api.endpoint import Endpoint
from storage.api.parameters import whole_number
from storage.api.schema import examples, operating
from storage.api.schema.operations import Reply, describe
from storage.models import Scope
from storage.services import history

HOURS = "hours"
DAY, MONTH = 24, 720


class HistoryView(Endpoint):
    """Figures of the last `hours` (24), one sample a minute. Of samples older than a day, one in an hour is kept.

    `files`, `bytes`, `reads` and `later_looks` are counts that begin again at 0 when Redis is emptied. Samples are kept
    for 30 days.
    """

    parameters = (HOURS,)

    @describe(
        "Show the history", {200: Reply("the samples, the oldest first", operating.History, example=examples.HISTORY)}
    )
    def get(self, request: Request) -> Response:
        authorize(request.META).require(Scope.ADMIN)
        found = history.samples(whole_number(request, HOURS, DAY, 1, MONTH))
        return Response({"samples": [{"at": at, **figures} for at, figures in found]})
