from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from storage.exceptions import NoSuchFile
from storage.models.content import Content
from storage.models.statements import prepared

HEAD = 64  # The number of chunk hashes that are read together with the file.
WINDOW = 512  # The number of chunk hashes that one later query reads: 128 MiB of a file, in chunks of 256 KiB.

_FIND = """
    SELECT c.id, f.name, f.created_at, c.size, c.chunk_size, c.chunk_count, c.target, c.state, c.retrievable,
           (SELECT string_agg(k.hash, '' ORDER BY e.position)
              FROM storage_manifestentry e JOIN storage_chunk k ON k.id = e.chunk_id
             WHERE e.content_id = c.id AND e.position < %s)
      FROM storage_content c JOIN storage_file f ON f.content_id = c.id
     WHERE c.file_hash = %s AND f.owner_id = %s AND (%s::text IS NULL OR f.name = %s)
     ORDER BY f.id DESC LIMIT 1
"""
_READ_ON = """
    SELECT string_agg(k.hash, '' ORDER BY e.position)
      FROM storage_manifestentry e JOIN storage_chunk k ON k.id = e.chunk_id
     WHERE e.content_id = %s AND e.position >= %s AND e.position < %s
"""


@dataclass(frozen=True)
class OpenFile:
    """An owner's file, as a download needs it.

    One statement finds the file. The rest of a long manifest is read during the download.

    Attributes:
        content_id: the row id of the file's content.
        file_hash: SHA-256 in hex.
        name: the name under which the file is downloaded.
        created_at: the time at which the file was stored for this owner.
        size: the size of the file in bytes.
        chunk_size: bytes of each chunk except the last one.
        chunk_count: the number of entries in the manifest.
        target: the number of replicas that the chunks should have.
        state: the state of the content.
        retrievable: True if the health summary says that the content can be read.
        head: the hashes of the first ``HEAD`` chunks, as far as the manifest is recorded.
    """

    content_id: int
    file_hash: str
    name: str
    created_at: datetime
    size: int
    chunk_size: int
    chunk_count: int
    target: int
    state: str
    retrievable: bool
    head: list[str]

    @classmethod
    def find(cls, owner_id: int, file_hash: str, name: str | None = None) -> OpenFile | None:
        """The owner's file on a content: the newest file, or the file of this name. None if there is no such file."""
        rows = prepared.rows(_FIND, [HEAD, bytes.fromhex(file_hash), owner_id, name, name])
        if not rows:
            return None
        content_id, name, created_at, size, chunk_size, chunk_count, target, state, retrievable, head = rows[0]
        return cls(
            content_id,
            file_hash,
            name,
            created_at,
            size,
            chunk_size,
            chunk_count,
            target,
            state,
            retrievable,
            _hashes(head),
        )

    @property
    def is_ready(self) -> bool:
        return self.state == Content.State.READY

    def chunk_hashes(self, positions: range) -> Iterator[str]:
        """The hashes of the chunks at ``positions``, in order.

        Between two windows this function holds no connection to PostgreSQL, because a download waits for its client
        there.

        Raises:
            NoSuchFile: the content was deleted during the download.
        """
        yield from self.head[positions.start : positions.stop]
        for start in range(max(positions.start, len(self.head)), positions.stop, WINDOW):
            stop = min(start + WINDOW, positions.stop)
            ((packed,),) = prepared.rows(_READ_ON, [self.content_id, start, stop])
            hashes = _hashes(packed)
            if len(hashes) != stop - start:
                raise NoSuchFile(f"no file {self.file_hash}")
            yield from hashes


def _hashes(packed: bytes | None) -> list[str]:
    text = (packed or b"").hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]
