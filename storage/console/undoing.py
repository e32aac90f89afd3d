"""The offer to undo the deletion that a user has just made. The session keeps the offer for a while."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.http import HttpResponse

from storage.conf import configuration
from storage.console import words
from storage.console.page import OFFER, Page, reason

PASSING = (429, 503, 507)
"""A refusal with one of these statuses may pass: the same bytes are being stored, a node is away, a quota is full."""


def offer(request: Any, said: str, addresses: Sequence[str]) -> None:
    """Say that files are deleted, and offer to undo the deletions for as long as that is possible.

    Args:
        request: the request of the page.
        said: what has been deleted, in words.
        addresses: the addresses at which the API undoes the deletions. The deletion of a file that was not stored yet
            has no address.
    """
    request.session.pop(OFFER, None)
    if not addresses:
        messages.success(request, said)
        return
    ends = time.time() + configuration().reclaim_grace
    deletions = [address.rpartition("/")[2] for address in addresses]
    request.session[OFFER] = {"said": said, "deletions": deletions, "ends": ends}


class UndoPage(Page):
    """The form that undoes a deletion, or hides the offer."""

    section = "files"
    http_method_names = ("post",)

    def post(self, request: Any) -> HttpResponse:
        offered = request.session.pop(OFFER, None)
        if offered is None:
            messages.error(request, "There is nothing to undo any more.")
        elif "hide" not in request.POST:
            left = self._undo(offered["deletions"])
            if left:
                request.session[OFFER] = {**offered, "deletions": left}
        return self.go_back()

    def _undo(self, deletions: Sequence[str]) -> list[str]:
        """Undo the deletions; return the deletions that failed and may be undone later."""
        answers = [self.api.send("POST", f"/deletions/{deletion}") for deletion in deletions]
        failures = [answer for answer in answers if not answer.is_good]
        if back := sum(len(answer.document["names"]) for answer in answers if answer.is_good):
            messages.success(self.request, f"{words.count(back, 'file is', 'files are')} back.")
        if failures:
            what = words.count(len(failures), "deletion")
            messages.error(self.request, f"{what} could not be undone: {reason(failures[0])}")
        return [deletion for deletion, answer in zip(deletions, answers, strict=True) if answer.status in PASSING]
