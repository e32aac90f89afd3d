from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage.models.statements import open_content, prepared
from storage.models.statements.open_content import OpenContent

_FIND = """
    SELECT c.id, f.name, f.created_at, c.size, c.chunk_size, c.chunk_count, c.target, c.state, c.retrievable,
           (SELECT string_agg(k.hash, '' ORDER BY e.position)
              FROM storage_manifestentry e JOIN storage_chunk k ON k.id = e.chunk_id
             WHERE e.content_id = c.id AND e.position < %s)
      FROM storage_content c JOIN storage_file f ON f.content_id = c.id
     WHERE c.file_hash = %s AND f.owner_id = %s AND (%s::text IS NULL OR f.name = %s)
     ORDER BY f.id DESC LIMIT 1
"""


@dataclass(frozen=True)
class OpenFile(OpenContent):
    """An owner's file, as a download needs it. One statement finds the file.

    Attributes:
        name: the name under which the file is downloaded.
        created_at: the time at which the file was stored for this owner.
    """

    name: str
    created_at: datetime

    @classmethod
    def find(cls, owner_id: int, file_hash: str, name: str | None = None) -> OpenFile | None:
        """The owner's file on a content: the newest file, or the file of this name. None if there is no such file."""
        rows = prepared.rows(_FIND, [open_content.HEAD, bytes.fromhex(file_hash), owner_id, name, name])
        if not rows:
            return None
        content_id, name, created_at, size, chunk_size, chunk_count, target, state, retrievable, head = rows[0]
        return cls(
            content_id=content_id,
            file_hash=file_hash,
            name=name,
            created_at=created_at,
            size=size,
            chunk_size=chunk_size,
            chunk_count=chunk_count,
            target=target,
            state=state,
            retrievable=retrievable,
            head=open_content.unpacked(head),
        )
