from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage.models.bucket import Bucket
from storage.models.described import Properties
from storage.models.statements import open_content, prepared
from storage.models.statements.open_content import OpenContent

# One statement reads the object and its parts: an overwrite is seen as a whole, or not at all (RACES 47). The statement
# reads hashes of chunks for the first part only. What the client has said about the object is in the first row only: in
# the rows of all 10,000 parts, 2 kB of metadata would be 20 MB.
_FIND = """
    SELECT o.id, o.size, o.etag, said.content_type, said.headers, said.metadata, said.tags, o.storage_class,
           said.checksums, o.modified_at,
           p.id, p.number, p.etag, p.checksums, c.id, c.file_hash, c.size, c.chunk_size, c.chunk_count, c.target,
           c.state, c.retrievable,
           CASE WHEN p.number = 1 THEN
                (SELECT string_agg(k.hash, '' ORDER BY e.position)
                   FROM storage_manifestentry e JOIN storage_chunk k ON k.id = e.chunk_id
                  WHERE e.content_id = c.id AND e.position < %s) END
      FROM storage_object o JOIN storage_part p ON p.object_id = o.id JOIN storage_content c ON c.id = p.content_id
      LEFT JOIN LATERAL (SELECT o.content_type, o.headers, o.metadata, o.tags, o.checksums WHERE p.number = 1) AS said
             ON true
     WHERE o.bucket_id = %s AND o.key = %s ORDER BY p.number
"""


@dataclass(frozen=True, slots=True)
class OpenPart:
    """One part of an object, as a download needs it.

    Attributes:
        part_id: the part's row id.
        number: the part's place in the object, counted from 1.
        etag: MD5 in hex.
        checksums: algorithm → checksum in base64.
        start: the position of the part's first byte in the object.
        content: the bytes.
    """

    part_id: int
    number: int
    etag: str
    checksums: dict[str, str]
    start: int
    content: OpenContent

    @property
    def size(self) -> int:
        return self.content.size

    @property
    def span(self) -> range:
        """The positions of the part's bytes in the object."""
        return range(self.start, self.start + self.size)


@dataclass(frozen=True)
class OpenObject:
    """An object with its parts, as a download needs it. An ``OpenObject`` has the attributes of ``Object``."""

    bucket_id: int
    object_id: int
    key: str
    size: int
    etag: str
    content_type: str
    headers: dict[str, str]
    metadata: dict[str, str]
    tags: dict[str, str]
    storage_class: str
    checksums: dict[str, str]
    modified_at: datetime
    parts: tuple[OpenPart, ...]

    @property
    def properties(self) -> Properties:
        return Properties(self.content_type, self.headers, self.metadata, self.tags, self.storage_class)

    @classmethod
    def find(cls, bucket: Bucket, key: str) -> OpenObject | None:
        """The object at a key of a bucket; None if there is none."""
        rows = prepared.rows(_FIND, [open_content.HEAD, bucket.pk, key])
        if not rows:
            return None
        about = rows[0][:10]
        parts: list[OpenPart] = []
        start = 0
        for row in rows:
            part_id, number, part_etag, part_checksums, content_id, file_hash = row[10:16]
            size, chunk_size, chunk_count, target, state, retrievable, head = row[16:]
            opened = OpenContent(
                content_id=content_id,
                file_hash=bytes(file_hash).hex(),
                size=size,
                chunk_size=chunk_size,
                chunk_count=chunk_count,
                target=target,
                state=state,
                retrievable=retrievable,
                head=open_content.unpacked(head),
            )
            parts.append(OpenPart(part_id, number, part_etag, part_checksums, start, opened))
            start += opened.size
        object_id, size, etag, content_type, headers, metadata, tags, storage_class, checksums, modified_at = about
        return cls(
            bucket_id=bucket.pk,
            object_id=object_id,
            key=key,
            size=size,
            etag=etag,
            content_type=content_type,
            headers=headers,
            metadata=metadata,
            tags=tags,
            storage_class=storage_class,
            checksums=checksums,
            modified_at=modified_at,
            parts=tuple(parts),
        )
