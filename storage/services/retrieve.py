"""Downloads: each needed chunk of a file is found through the sketches, verified and streamed, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from django.contrib.auth.models import User

from storage.cluster.topology import Topology
from storage.exceptions import ContentNotReady, NoSuchFile
from storage.models import OpenFile
from storage.replicas.reading import read_ahead
from storage.replicas.reporting import report_readable


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
    whole = [range(file.size)] if file.size else []
    pieces = _pieces(file, whole if ranges is None else ranges)
    if ranges is None and not file.retrievable:
        pieces = _against_the_summary(file, pieces)
    first = next(pieces, None)
    return pieces if first is None else chain((first,), pieces)


def _against_the_summary(file: OpenFile, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a whole file.

    If all pieces can be read, report that the health summary of the content wrongly says "unretrievable".
    """
    yield from pieces
    report_readable(file.content_id)


def _pieces(file: OpenFile, ranges: Sequence[range]) -> Iterator[bytes]:
    """Yield the bytes of the ranges. A chunk that several ranges need is read once."""
    size = file.chunk_size
    spans = [range(wanted.start // size, (wanted.stop - 1) // size + 1) for wanted in ranges]
    chunks = read_ahead(Topology.recent(), _needed(file, spans), size, file.target)
    reached, data = -1, b""
    for wanted, span in zip(ranges, spans, strict=True):
        for position in span:
            if position != reached:
                reached, data = position, next(chunks)
            start = position * size
            yield data[max(0, wanted.start - start) : wanted.stop - start]


def _needed(file: OpenFile, spans: Sequence[range]) -> Iterator[str]:
    """Yield the hashes of the chunks of ascending spans, each hash once. Neighbouring spans may share one chunk."""
    reached = 0
    for span in spans:
        yield from file.chunk_hashes(range(max(span.start, reached), span.stop))
        reached = span.stop
