from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from storage.exceptions import NoSuchFile
from storage.models.content import Content
from storage.models.statements import prepared

HEAD = 64  # The number of chunk hashes that are read together with the row of a file or object.
WINDOW = 512  # The number of chunk hashes that one later query reads: 128 MiB of a file, in chunks of 256 KiB.

_READ_ON = """
    SELECT string_agg(k.hash, '' ORDER BY e.position)
      FROM storage_manifestentry e JOIN storage_chunk k ON k.id = e.chunk_id
     WHERE e.content_id = %s AND e.position >= %s AND e.position < %s
"""
_READ_ALL = """
    SELECT w.place, (SELECT string_agg(k.hash, '' ORDER BY e.position)
                       FROM storage_manifestentry e JOIN storage_chunk k ON k.id = e.chunk_id
                      WHERE e.content_id = w.content_id AND e.position >= w.start AND e.position < w.stop)
      FROM unnest(%s::bigint[], %s::int[], %s::int[]) WITH ORDINALITY AS w (content_id, start, stop, place)
"""


@dataclass(frozen=True, slots=True)
class OpenContent:
    """A content, as a download needs it. The hashes that ``head`` has no room for are read during the download.

    Attributes:
        content_id: the row id of the content.
        file_hash: SHA-256 in hex.
        size: the size of the content in bytes.
        chunk_size: bytes of each chunk except the last one.
        chunk_count: the number of entries in the manifest.
        target: the number of replicas that the chunks should have.
        state: the state of the content.
        retrievable: True if the health summary says that the content can be read.
        head: the hashes of neighbouring chunks, as far as the manifest is recorded: of the first ``HEAD`` chunks,
            unless ``with_heads`` has read other hashes.
        begin: the position of the first chunk in ``head``.
    """

    content_id: int
    file_hash: str
    size: int
    chunk_size: int
    chunk_count: int
    target: int
    state: str
    retrievable: bool
    head: list[str]
    begin: int = field(default=0, kw_only=True)

    @property
    def is_ready(self) -> bool:
        return self.state == Content.State.READY

    def chunk_hashes(self, positions: range) -> Iterator[str]:
        """The hashes of the chunks at ``positions``, in order.

        Between two queries this function holds no connection to PostgreSQL, because a download may wait long for its
        client.

        Raises:
            NoSuchFile: the content was deleted during the download.
        """
        begin = positions.start
        if self.begin <= begin < self.begin + len(self.head):
            known = self.head[begin - self.begin : positions.stop - self.begin]
            yield from known
            begin += len(known)
        for start in range(begin, positions.stop, WINDOW):
            stop = min(start + WINDOW, positions.stop)
            ((packed,),) = prepared.rows(_READ_ON, [self.content_id, start, stop])
            hashes = unpacked(packed)
            if len(hashes) != stop - start:
                raise NoSuchFile(f"no file {self.file_hash}")
            yield from hashes


def with_heads(wanted: Sequence[tuple[OpenContent, range]]) -> list[OpenContent]:
    """Read the hashes of the chunks that a download will need, in one statement.

    A download that has all its hashes goes on when its contents are deleted: their chunks stay for the grace period.

    Args:
        wanted: contents, each with the positions of chunks. All contents were read by one statement.

    Returns:
        The contents, with these hashes as ``head``.

    Raises:
        NoSuchFile: a content has been deleted since it was read.
    """
    columns = [(content.content_id, span.start, span.stop) for content, span in wanted]
    heads = dict(prepared.rows(_READ_ALL, [list(column) for column in zip(*columns, strict=True)]))
    found = []
    for place, (content, span) in enumerate(wanted, 1):
        head = unpacked(heads.get(place))
        if len(head) != len(span):
            raise NoSuchFile(f"no file {content.file_hash}")
        found.append(replace(content, head=head, begin=span.start))
    return found


def unpacked(packed: bytes | None) -> list[str]:
    """The hashes in hex of digests that stand one after the other."""
    text = (packed or b"").hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]
