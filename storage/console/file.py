"""The page of one file, and what its user can change: its name and the number of its copies."""

from __future__ import annotations

import shlex
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse

from storage.console import preview
from storage.console.names import NAME, Named
from storage.console.page import Page, reason
from storage.console.words import visible

DAY = 86400
DURATIONS = ((3600, "1 hour"), (DAY, "1 day"), (7 * DAY, "7 days"), (30 * DAY, "30 days"), (365 * DAY, "1 year"))
LARGE = 400  # The copies of a file with more chunks than this are summed up, and not drawn one by one.


class _OfFile(Page):
    """A page about one file of the user."""

    section = "files"
    file_hash: str

    def setup(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        self.file_hash = kwargs.get("file_hash", "")

    @property
    def name(self) -> str:
        """The name that the address chooses; empty for the newest name."""
        return self.request.GET.get(NAME, "")

    def file(self) -> dict[str, Any]:
        """What the API says of the file.

        Raises:
            Refused: there is no such file of this user.
        """
        found: dict[str, Any] = self.need(self.api.get(f"/files/{self.file_hash}", **{NAME: self.name}))
        return found

    def named(self) -> Named:
        return Named.of(self.file())


class FilePage(_OfFile):
    """One file: a preview, its checksum, its names, its copies, its share links."""

    def get(self, request: Any, file_hash: str) -> HttpResponse:
        file = self.file()
        named = Named.of(file)
        names = self.need(self.api.get(f"/files/{file_hash}"))["names"]
        is_ready = file["state"] == "ready"
        links = self.api.get(f"/files/{file_hash}/links", **{NAME: named.name})
        return self.show(
            "console/file.html",
            {
                "file": file,
                "named": named,
                "others": [Named(file_hash, name) for name in names if name != named.name],
                "preview": preview.of(self.api, named, file["file_size"]) if is_ready else None,
                "links": links.document.get("links", []) if links.is_good else None,
                "curl": self._curl(named),
                "query": urlencode({NAME: named.name}),
                "has_key": self.principal.subject is not None,
            },
        )

    def _curl(self, named: Named) -> str:
        """The line that downloads the file in a shell. curl saves it under its name, without a path."""
        address = shlex.quote(self.request.build_absolute_uri(named.download))
        key = "-u KEY:SECRET " if self.principal.subject is not None else ""
        return f"curl -OJ {key}{address}"


class CopiesPage(_OfFile):
    """The nodes that hold the copies of a file, and a form for another number of copies. Every node is asked."""

    def get(self, request: Any, file_hash: str) -> HttpResponse:
        file = self.file()
        report = self.need(self.api.get(f"/verify/{file_hash}"))
        nodes = sorted({node for chunk in report["chunks"] for node in chunk["nodes"]})
        rows = [(chunk, [node in chunk["nodes"] for node in nodes]) for chunk in report["chunks"][:LARGE]]
        held = [sum(node in chunk["nodes"] for chunk in report["chunks"]) for node in nodes]
        context = {
            "file": file,
            "named": Named.of(file),
            "report": report,
            "nodes": list(zip(nodes, held, strict=True)),
            "rows": rows,
            "left_out": max(0, len(report["chunks"]) - LARGE),
        }
        return self.show("console/copies.html", context)

    def post(self, request: Any, file_hash: str) -> HttpResponse:
        named = self.named()
        wanted = request.POST.get("replication_factor", "")
        answer = self.api.send("POST", f"/rebalance/{file_hash}", {"replication_factor": wanted}, distribution="false")
        if not answer.is_good:
            messages.error(request, f"The number of copies did not change: {reason(answer)}")
        elif answer.status == 202:
            messages.success(request, "The copies are being made. This goes on when you leave this page.")
        else:
            messages.success(request, f"The file has {answer.document['replication_factor']} copies of every part now.")
        return self.go_to(named.page)


class RenamePage(_OfFile):
    """The form for a new name."""

    def get(self, request: Any, file_hash: str) -> HttpResponse:
        return self.show("console/rename.html", {"named": self.named(), "back": self.back()})

    def post(self, request: Any, file_hash: str) -> HttpResponse:
        named = self.named()
        wanted = request.POST.get("new_name", "")
        answer = self.api.send("PATCH", f"/files/{file_hash}", {NAME: wanted}, **{NAME: named.name})
        if not answer.is_good:
            context = {"named": named, "wanted": wanted, "error": reason(answer), "back": self.back()}
            # htmx shows answers of success only.
            return self.show("console/rename.html", context, 200 if "HX-Request" in request.headers else 400)
        messages.success(request, f"“{visible(named.name)}” is now “{visible(answer.document['file_name'])}”.")
        if self.back().startswith(f"{request.META.get('SCRIPT_NAME', '')}/console/file/"):
            return self.go_to(Named.of(answer.document).page)
        return self.go_back()


class SharePage(_OfFile):
    """The share links to a file: make one, copy it, revoke it."""

    def get(self, request: Any, file_hash: str) -> HttpResponse:
        return self._links(self.named())

    def post(self, request: Any, file_hash: str) -> HttpResponse:
        named = self.named()
        if link_id := request.POST.get("revoke"):
            answer = self.api.send("DELETE", f"/files/{file_hash}/links/{link_id.replace('/', '')}")
            return self._links(named, error="" if answer.is_good else reason(answer), revoked=answer.is_good)
        seconds = request.POST.get("expires_in", "")
        answer = self.api.send("POST", f"/files/{file_hash}/links", {"expires_in": seconds}, **{NAME: named.name})
        if not answer.is_good:
            return self._links(named, error=reason(answer))
        return self._links(named, made=answer.document["id"])

    def _links(self, named: Named, **more: Any) -> HttpResponse:
        links = self.need(self.api.get(f"/files/{named.file_hash}/links", **{NAME: named.name}))["links"]
        context = {"named": named, "links": links[::-1], "durations": DURATIONS, **more}
        return self.show("console/share.html", context)
