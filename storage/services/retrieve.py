"""Downloads: each needed chunk of a file is found through the sketches, verified and streamed, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.contrib.auth.models import User

from storage.exceptions import ContentNotReady, NoSuchFile
from storage.models import OpenFile
from storage.replicas import streaming


def open_file(owner: User, file_hash: str, name: str | None = None) -> OpenFile:
    """Find the owner's file on a content, for a download.

    Args:
        owner: the owner.
        file_hash: SHA-256 of the content, in hex.
        name: the name of one of the owner's files on this content; None for the newest file.

    Raises:
        NoSuchFile: the owner has no such file.
        ContentNotReady: the ingest of the file has not ended.
    """
    file = OpenFile.find(owner.pk, file_hash, name)
    if file is None:
        raise NoSuchFile(f"no file {file_hash}")
    if not file.is_ready:
        raise ContentNotReady("the file has been accepted and is being stored")
    return file


def retrieve(file: OpenFile, ranges: Sequence[range] | None = None) -> Iterator[bytes]:
    """Read a file, or some ranges of it. Each piece that is yielded belongs to one range.

    The first chunk is located and verified before this function returns. If a later chunk cannot be read, the stream
    ends early (RACES 15).

    Args:
        file: the file.
        ranges: ranges of byte positions in the file, ascending, disjoint and not empty; None for the whole file.

    Raises:
        ContentUnavailable: the first needed chunk cannot be read now.
        ContentGone: no node has the first needed chunk any more.
    """
    return streaming.first_now(streaming.pieces(file, ranges))
