"""Reading staged bodies back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from storage.exceptions import StagingDamaged
from storage.models import Upload
from storage.staging.cutting import cut, read_pieces


def staged_chunks(upload: Upload, span: range, chunk_size: int, checksums: bytes) -> Iterator[tuple[str, bytes]]:
    """The chunks of some of an upload's staged bytes, each with its hash.

    Args:
        upload: whose body it is.
        span: which of its bytes; begins with a piece.
        chunk_size: in bytes.
        checksums: of the pieces of the span.

    Raises:
        StagingDamaged: the bytes are gone, or, from the iterator, are not what came in.
    """
    try:
        staged = upload.staged_path.open("rb")
    except FileNotFoundError:
        raise StagingDamaged("the staged bytes are gone") from None
    chunks = cut(read_pieces(staged, span, upload.piece_size, checksums), chunk_size)
    return ((hashlib.sha256(data).hexdigest(), data) for data in chunks)
