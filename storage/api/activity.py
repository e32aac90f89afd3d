"""Who did what, and when."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from storage.api import cursors, documents
from storage.api.authorization import authorize
from storage.api.endpoint import Endpoint
from storage.api.paging import LIMIT, address_of_next, limit_of
from storage.api.parameters import one_of
from storage.api.schema import examples, operating
from storage.api.schema.operations import Reply, describe
from storage.models import Activity, Scope
from storage.services import activity

ACTION = "action"


class ActivityView(Endpoint):
    """What was done to your files, links, keys and jobs, the newest first; with the scope `admin`, all that was done.

    Each act is kept for `AUDIT_LOG_DAYS`. `action` selects one kind of act. `limit` is the size of a page (1000). The
    address in `next` has the next `cursor`.
    """

    parameters = (ACTION, LIMIT, cursors.FIELD)

    @describe("List the activity", {200: Reply("a page of acts", operating.Activity, example=examples.ACTIVITY)})
    def get(self, request: Request) -> Response:
        principal = authorize(request.META)
        cursor = request.query_params.get(cursors.FIELD)
        acts, following = activity.page(
            None if Scope.ADMIN in principal.scopes else principal.owner,
            limit=limit_of(request),
            action=one_of(request, ACTION, Activity.Action.values),
            after=(None, None) if cursor is None else cursors.read_place(cursor),
        )
        address = None if following is None else address_of_next(request, cursors.made_of_place(following))
        return Response({"activity": [documents.act(act) for act in acts], "next": address})
