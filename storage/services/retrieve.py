"""Downloads: the manifest in order, found through the sketches, verified, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from storage.models import Content, File
from storage.replicas.reading import read_ahead
from storage.replicas.reporting import report
from storage.topology import Topology


@dataclass(frozen=True)
class Download:
    """A file whose first chunk has been read and verified."""

    file: File
    size: int
    chunks: Iterator[bytes]


def retrieve(file: File) -> Download:
    """Open a file for reading.

    The first chunk is located and verified before this returns; what fails later cuts the stream short (RACES 15).

    Raises:
        ContentUnavailable: its first chunk cannot be read now.
        ContentGone: no node has its first chunk any more.
    """
    content: Content = file.content
    chunks = read_ahead(Topology.recent(), content.manifest(), report)
    first = next(chunks, None)
    return Download(file, content.size, _chain(first, chunks))


def _chain(first: bytes | None, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first is not None:
        yield first
        yield from rest
