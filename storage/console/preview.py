"""Previews of files. Whatever is in a file, its preview does no harm.

The API sends every file as an attachment. A preview shows a file in the page only if its first bytes are those of a
known picture, sound, video or PDF. Every other file is text or nothing: a page or a script that somebody uploaded is
shown as text, and never runs on this origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse, HttpResponseBase
from django.utils.decorators import method_decorator
from django.views.decorators.clickjacking import xframe_options_sameorigin

from storage.console.client import Api
from storage.console.names import NAME, Named
from storage.console.page import Page

HEAD = 64 << 10  # A preview shows at most this many bytes of a text.
LARGEST = {"image": 64 << 20, "pdf": 128 << 20}  # A browser would take too long for a larger file.
SIGNATURES: tuple[tuple[bytes, int, str, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, "image", "image/png"),
    (b"\xff\xd8\xff", 0, "image", "image/jpeg"),
    (b"GIF87a", 0, "image", "image/gif"),
    (b"GIF89a", 0, "image", "image/gif"),
    (b"WEBP", 8, "image", "image/webp"),
    (b"ftypavif", 4, "image", "image/avif"),
    (b"%PDF-", 0, "pdf", "application/pdf"),
    (b"ftypM4A", 4, "audio", "audio/mp4"),
    (b"ftyp", 4, "video", "video/mp4"),
    (b"\x1aE\xdf\xa3", 0, "video", "video/webm"),
    (b"ID3", 0, "audio", "audio/mpeg"),
    (b"\xff\xfb", 0, "audio", "audio/mpeg"),
    (b"\xff\xf3", 0, "audio", "audio/mpeg"),
    (b"fLaC", 0, "audio", "audio/flac"),
    (b"OggS", 0, "audio", "audio/ogg"),
    (b"WAVE", 8, "audio", "audio/wav"),
)
# A browser gives an answer with SANDBOX an origin of its own, and runs nothing in it. A PDF is sent without a sandbox,
# because browsers' viewers of PDFs do not work in a sandbox. These viewers are isolated by themselves.
SANDBOX = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; frame-ancestors 'self'"
POLICY_OF_PDF = "default-src 'none'; style-src 'unsafe-inline'; object-src 'self'; frame-ancestors 'self'"


@dataclass(frozen=True)
class Preview:
    """What a page shows of a file.

    Attributes:
        kind: image, audio, video, pdf or text.
        text: the beginning of a text; empty for other kinds.
        is_cut: True if the text goes on.
    """

    kind: str
    text: str = ""
    is_cut: bool = False


def of(api: Api, file: Named, size: int) -> Preview | None:
    """The preview of a file of the user; None if there is nothing to show."""
    if not size:
        return None
    head = api.head_of(f"/download/{file.file_hash}", HEAD, **{NAME: file.name})
    if found := _kind(head):
        kind = found[0]
        return Preview(kind) if size <= LARGEST.get(kind, size) else None
    text = _text(head, is_whole=size <= HEAD)
    return None if text is None else Preview("text", text, is_cut=size > HEAD)


@method_decorator(xframe_options_sameorigin, name="dispatch")
class PreviewPage(Page):
    """The bytes of a picture, a sound, a video or a PDF, for the page of the file."""

    http_method_names = ("get", "head")

    def get(self, request: Any, file_hash: str) -> HttpResponseBase:
        path, name = f"/download/{file_hash}", request.GET.get(NAME, "")
        found = _kind(self.api.head_of(path, 64, **{NAME: name}))
        if found is None:
            return HttpResponse("There is no preview of this file.", status=404, content_type="text/plain")
        response = self.api.open(path, wanted=request.headers.get("Range", ""), **{NAME: name})
        if response.status_code >= 400 or response.headers.get("Content-Type", "").startswith("multipart/"):
            response.close()
            return HttpResponse("The preview cannot be read now.", status=503, content_type="text/plain")
        kind, media_type = found
        if "Content-Type" in response.headers:
            response.headers["Content-Type"] = media_type
        response.headers["Content-Disposition"] = "inline"
        response.headers["Content-Security-Policy"] = POLICY_OF_PDF if kind == "pdf" else SANDBOX
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _kind(head: bytes) -> tuple[str, str] | None:
    for mark, at, kind, media_type in SIGNATURES:
        if head[at : at + len(mark)] == mark and (at != 8 or head[:4] == b"RIFF"):
            return kind, media_type
    return None


def _text(head: bytes, *, is_whole: bool) -> str | None:
    """The text that the bytes are in UTF-8; None if they are no text. The last character may be cut."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if is_whole or error.start < len(head) - 3:
            return None
        text = head[: error.start].decode()
    if any(ord(character) < 32 and character not in "\t\n\r\f\x1b" for character in text):
        return None
    return text or None
