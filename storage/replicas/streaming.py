"""Stream the bytes of a content, or some ranges of them: each chunk is found through the sketches and verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from storage.cluster.topology import Topology
from storage.models import OpenContent
from storage.replicas.reading import read_ahead
from storage.replicas.reporting import report_readable


def pieces(content: OpenContent, ranges: Sequence[range] | None = None) -> Iterator[bytes]:
    """Yield the bytes of a content, or of some ranges of it. Each piece belongs to one range.

    Args:
        content: the content.
        ranges: ranges of byte positions in the content, ascending, disjoint and not empty; None for all bytes.

    Raises:
        ContentUnavailable: a needed chunk cannot be read now.
        ContentGone: no node has a needed chunk any more.
        NoSuchFile: the content was deleted during the download.
    """
    if ranges is not None:
        yield from _of_ranges(content, ranges)
        return
    yield from _of_ranges(content, [range(content.size)] if content.size else [])
    if not content.retrievable:
        # The health summary says that the content cannot be read, but all bytes could be read.
        report_readable(content.content_id)


def first_now(stream: Iterator[bytes]) -> Iterator[bytes]:
    """Read the first piece now, and the others on demand: an error of the first piece is raised here (RACES 15)."""
    first = next(stream, None)
    return stream if first is None else chain((first,), stream)


def _of_ranges(content: OpenContent, ranges: Sequence[range]) -> Iterator[bytes]:
    """Yield the bytes of the ranges. A chunk that several ranges need is read once."""
    size = content.chunk_size
    spans = [range(wanted.start // size, (wanted.stop - 1) // size + 1) for wanted in ranges]
    chunks = read_ahead(Topology.recent(), _needed(content, spans), size, content.target)
    reached, data = -1, b""
    for wanted, span in zip(ranges, spans, strict=True):
        for position in span:
            if position != reached:
                reached, data = position, next(chunks)
            start = position * size
            yield data[max(0, wanted.start - start) : wanted.stop - start]


def _needed(content: OpenContent, spans: Sequence[range]) -> Iterator[str]:
    """Yield the hashes of the chunks of ascending spans, each hash once. Neighbouring spans may share one chunk."""
    reached = 0
    for span in spans:
        yield from content.chunk_hashes(range(max(span.start, reached), span.stop))
        reached = span.stop
