"""Downloads: the manifest in order, found through the sketches, verified, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from django.db import DatabaseError

from storage.models import Content, File, Job
from storage.replicas.reading import read_ahead
from storage.topology import Topology

log = structlog.get_logger(__name__)


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
    chunks = read_ahead(Topology.recent(), content.manifest(), _report)
    first = next(chunks, None)
    return Download(file, content.size, _chain(first, chunks))


def _chain(first: bytes | None, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first is not None:
        yield first
        yield from rest


def _report(chunk_hash: str) -> None:
    """Have a worker judge the copies of a chunk."""
    try:
        Job.request(Job.Kind.REPAIR, chunk_hash)
    except DatabaseError as error:
        log.warning("report.lost", chunk=chunk_hash, error=str(error))
