"""The list of the user's files, uploads without JavaScript, and the deletion of one or many files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt

from storage.conf import configuration
from storage.console import undoing, words
from storage.console.client import Answer
from storage.console.names import FOLDER, ITEM, NAME, Folder, Named, trail
from storage.console.page import Page, Refused, cursor_in, reason
from storage.models.fields import HEX_DIGEST
from storage.models.names import SEPARATOR

PAGE_SIZE = 50
SORTS = {
    "-created_at": "Newest first",
    "created_at": "Oldest first",
    "file_name": "Name, A to Z",
    "-file_name": "Name, Z to A",
    "-file_size": "Largest first",
    "file_size": "Smallest first",
}
NEWEST = "-created_at"
UNDO = "Undo-Location"
MOST_AT_ONCE = 500  # files that one form may delete


class FilesPage(Page):
    """The list of files, which users can search and sort, and the area onto which users drop files to upload them."""

    section = "files"

    def get(self, request: Any) -> HttpResponse:
        sought, folder = request.GET.get("q", "").strip(), request.GET.get(FOLDER, "")
        sort = request.GET.get("sort", NEWEST)
        sort = sort if sort in SORTS else NEWEST
        cursor = request.GET.get("cursor", "")
        # A search finds what is in deeper folders too.
        mode = {"name": sought} if sought else {"delimiter": SEPARATOR}
        answer = self.api.get("/files", limit=PAGE_SIZE, sort=sort, prefix=folder, cursor=cursor, **mode)
        if not answer.is_good and (sought or cursor or folder):
            answer = Answer(200, {"files": [], "next": None, "total_files": None})  # No name can contain this text.
        found = self.need(answer)
        query = {FOLDER: folder, "q": sought, "sort": sort}
        context = {
            "files": [(file, Named.of(file)) for file in found["files"]],
            "folders": [Folder(path) for path in found.get("folders", ())],
            "folder": folder,
            "trail": trail(folder),
            "root": reverse("root"),
            "total": found["total_files"],
            "following": _following(found["next"], query),
            "sought": sought,
            "sort": sort,
            "sorts": SORTS,
            "is_first": not cursor,
            "account": self.api.get("/account").document,
            "here": _address({**query, "sort": "" if sort == NEWEST else sort}),
        }
        if request.headers.get("HX-Target") == "list":
            return self.show("console/parts/list.html", context)
        context["has_buckets"] = bool(self.api.get("/buckets", limit=1).document.get("buckets"))
        return self.show("console/files.html", context)


def _following(address: str | None, query: Mapping[str, str]) -> str | None:
    """The console's address of the page after this one; None after the last page."""
    cursor = cursor_in(address)
    return None if cursor is None else _address({**query, "cursor": cursor})


def _address(query: Mapping[str, str]) -> str:
    """The address of the list of files with the parts of the query that are not empty."""
    text = urlencode({name: value for name, value in query.items() if value})
    return f"{reverse('root')}?{text}" if text else reverse("root")


@method_decorator(csrf_exempt, name="dispatch")
class UploadPage(Page):
    """The upload of one file without JavaScript.

    Django's CSRF check would read the whole body to find its token, so this view checks the origin of the form and no
    token.
    """

    section = "files"
    http_method_names = ("post",)

    def post(self, request: Any) -> HttpResponse:
        if not _is_own_form(request):
            return self.show("console/refused.html", {"explanation": "Use the form on the page of your files."}, 403)
        answer = self.api.forward("/upload")
        if answer.is_good:
            state = "is being stored, and is listed when that is done" if answer.status == 202 else "is stored"
            messages.success(request, f"“{words.visible(answer.document['file_name'])}” {state}.")
        elif "file" in (answer.document.get("errors") or {}) and "no file" in reason(answer).lower():
            messages.error(request, "Choose a file first.")
        else:
            messages.error(request, f"The upload failed: {reason(answer)}")
        return self.go_to(reverse("root"))


def _is_own_form(request: HttpRequest) -> bool:
    """True if the browser says that a page of this service sends the form."""
    own = request.build_absolute_uri("/").rstrip("/").lower()
    return request.headers.get("Sec-Fetch-Site") == "same-origin" or request.headers.get("Origin", "").lower() == own


class DeletePage(Page):
    """The question before files are deleted, and their deletion."""

    section = "files"

    def get(self, request: Any) -> HttpResponse:
        return self._ask(request.GET.getlist(ITEM))

    def post(self, request: Any) -> HttpResponse:
        if "sure" not in request.POST:
            return self._ask(request.POST.getlist(ITEM))
        files = _named(request.POST.getlist(ITEM))
        answers = [self._delete(file) for file in files]
        failures = [answer for answer in answers if not answer.is_good]
        if deleted := len(files) - len(failures):
            what = f"“{words.visible(files[0].base)}”" if len(files) == 1 else words.count(deleted, "file")
            said = f"{what} {'is' if deleted == 1 else 'are'} deleted."
            undoing.offer(request, said, [address for each in answers if (address := each.headers.get(UNDO))])
        if failures:
            what = "The file" if len(files) == 1 else words.count(len(failures), "file")
            messages.error(request, f"{what} could not be deleted: {reason(failures[0])}")
        return self.go_back()

    def _delete(self, file: Named) -> Answer:
        return self.api.send("DELETE", f"/files/{file.file_hash}", None, **{NAME: file.name})

    def _ask(self, items: list[str]) -> HttpResponse:
        if not items:
            messages.info(self.request, "Mark the files that you want to delete.")
            return self.go_back()
        seconds = configuration().reclaim_grace
        grace = words.span(seconds) if seconds else ""
        return self.show("console/delete.html", {"files": _named(items), "back": self.back(), "grace": grace})


def _named(items: list[str]) -> list[Named]:
    """The files that the fields of a form name, at most ``MOST_AT_ONCE``.

    Raises:
        Refused: a field names no file.
    """
    files = [Named.from_item(item) for item in items[:MOST_AT_ONCE]]
    if not all(HEX_DIGEST.fullmatch(file.file_hash) for file in files):
        raise Refused(Answer(400, {"detail": "the form does not name a file"}))
    return files
