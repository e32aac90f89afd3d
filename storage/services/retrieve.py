"""Downloads: the manifest, or what is needed of it, in order, found through the sketches, verified, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storage.models import Content, File
from storage.replicas.reading import read_ahead
from storage.replicas.reporting import report
from storage.topology import Topology


@dataclass(frozen=True)
class Download:
    """A file of which the first chunk that is needed has been read and verified.

    Attributes:
        chunks: the bytes; of ranges, in pieces that belong to one range each.
    """

    file: File
    size: int
    chunks: Iterator[bytes]


def retrieve(file: File, ranges: Sequence[range] | None = None) -> Download:
    """Open a file for reading.

    The first chunk is located and verified before this returns; what fails later cuts the stream short (RACES 15).

    Args:
        file: the file.
        ranges: runs of its bytes, ascending and disjoint, none of them empty; without them, all of it.

    Raises:
        ContentUnavailable: its first chunk cannot be read now.
        ContentGone: no node has its first chunk any more.
    """
    content: Content = file.content
    chunks = read_ahead(Topology.recent(), content.manifest(), report) if ranges is None else _pieces(content, ranges)
    first = next(chunks, None)
    return Download(file, content.size, _chain(first, chunks))


def _pieces(content: Content, ranges: Sequence[range]) -> Iterator[bytes]:
    """The bytes of ranges; a chunk that several of them need is read once."""
    size = content.chunk_size
    spans = [range(wanted.start // size, (wanted.stop - 1) // size + 1) for wanted in ranges]
    needed = dict.fromkeys(position for span in spans for position in span)
    begin = spans[0].start
    manifest = content.manifest(range(begin, spans[-1].stop))
    chunks = read_ahead(Topology.recent(), [manifest[position - begin] for position in needed], report)
    reached, data = -1, b""
    for wanted, span in zip(ranges, spans, strict=True):
        for position in span:
            if position != reached:
                reached, data = position, next(chunks)
            start = position * size
            yield data[max(0, wanted.start - start) : wanted.stop - start]


def _chain(first: bytes | None, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first is not None:
        yield first
        yield from rest
