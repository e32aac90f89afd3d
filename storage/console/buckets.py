"""What programs have stored through the S3 door: the user's buckets, and the objects in one of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse

from storage.console import words
from storage.console.client import Answer
from storage.console.names import FOLDER, KEY, Folder, Keyed, trail
from storage.console.page import Page, cursor_in, reason
from storage.models.names import SEPARATOR, folder_of

PAGE_SIZE = 50


class BucketsPage(Page):
    """The buckets, by name, and what they hold."""

    section = "files"

    def get(self, request: Any) -> HttpResponse:
        found = self.need(self.api.get("/buckets", limit=PAGE_SIZE, cursor=request.GET.get("cursor", "")))
        buckets = [(bucket, Folder("", bucket["name"])) for bucket in found["buckets"]]
        return self.show("console/buckets.html", {"buckets": buckets, "following": cursor_in(found["next"])})


class BucketPage(Page):
    """The objects of a bucket: folder by folder, page by page, or those whose keys begin with a text."""

    section = "files"

    def get(self, request: Any, bucket: str) -> HttpResponse:
        sought, folder = request.GET.get("q", ""), request.GET.get(FOLDER, "")
        cursor = request.GET.get("cursor", "")
        query = {"bucket": bucket, "prefix": folder + sought, "delimiter": SEPARATOR}
        answer = self.api.get("/files", limit=PAGE_SIZE, cursor=cursor, **query)
        if answer.status == 400:
            answer = Answer(200, {"files": [], "folders": [], "next": None, "total_files": None})  # No key begins so.
        found = self.need(answer)
        here = Folder("", bucket)
        context = {
            "bucket": bucket,
            "objects": [(each, Keyed(bucket, each["file_name"])) for each in found["files"]],
            "folders": [Folder(path, bucket) for path in found["folders"]],
            "folder": folder,
            "trail": [here, *trail(folder, bucket)],
            "root": here.page,
            "total": found["total_files"],
            "following": _following(here, cursor_in(found["next"]), {FOLDER: folder, "q": sought}),
            "sought": sought,
            "is_first": not cursor,
        }
        is_list = request.headers.get("HX-Target") == "list"
        return self.show("console/parts/bucket.html" if is_list else "console/bucket.html", context)


def _following(bucket: Folder, cursor: str | None, query: dict[str, str]) -> str | None:
    """The console's address of the page after this one; None after the last page."""
    return None if cursor is None else f"{bucket.page}?{urlencode({**query, 'cursor': cursor})}"


class DeleteObjectPage(Page):
    """The question before an object is deleted, and its deletion.

    The key is in the address, and not in a field of the form: a browser would change line breaks in a field.
    """

    section = "files"

    def get(self, request: Any, bucket: str) -> HttpResponse:
        keyed = Keyed(bucket, request.GET.get(KEY, ""))
        return self.show("console/delete_object.html", {"keyed": keyed, "back": self._folder_of(keyed)})

    def post(self, request: Any, bucket: str) -> HttpResponse:
        keyed = Keyed(bucket, request.GET.get(KEY, ""))
        answer = self.api.send("DELETE", f"/buckets/{bucket}/object", None, **{KEY: keyed.key})
        if answer.is_good:
            messages.success(request, f"“{words.visible(keyed.base)}” is deleted.")
        else:
            messages.error(request, f"“{words.visible(keyed.base)}” could not be deleted: {reason(answer)}")
        return self.go_to(self._folder_of(keyed))

    def _folder_of(self, keyed: Keyed) -> str:
        """The page with the object in it."""
        return Folder(folder_of(keyed.key), keyed.bucket).page
