"""Find objects, and read their bytes across their contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from storage.exceptions import NoSuchFile, NoSuchObject
from storage.models import Bucket, Object, OpenContent, OpenObject
from storage.models.statements.open_content import with_heads
from storage.replicas import streaming
from storage.services.objects.places import require_key

Result = TypeVar("Result")
Wanted = Sequence[tuple[OpenContent, list[range] | None]]
"""Contents in the order in which they are read, each with the ranges to read; None for all of its bytes."""

MOST_CHUNKS = 16_384  # 4 GiB in chunks of 256 KiB; their hashes take 2 MB of memory during a download.


def find(bucket: Bucket, key: str) -> Object:
    """Find the object at a key.

    Raises:
        NoSuchObject: there is no object at the key.
        InvalidKey: the text cannot be a key.
    """
    require_key(key)
    found = Object.objects.at(bucket, key).first()
    if found is None:
        raise NoSuchObject(f"no object {key}")
    return found


def open_object(bucket: Bucket, key: str) -> OpenObject:
    """Find the object at a key together with its parts, for a download.

    Raises:
        NoSuchObject, InvalidKey: as for ``find``.
    """
    require_key(key)
    opened = OpenObject.find(bucket, key)
    if opened is None:
        raise NoSuchObject(f"no object {key}")
    return opened


def read_version(bucket: Bucket, key: str, use: Callable[[OpenObject], Result]) -> Result:
    """Open an object and use it. If it was overwritten meanwhile, open and use the new object (RACES 48).

    Args:
        bucket: the bucket of the object.
        key: the key of the object.
        use: a function that may call ``read``. It is called again if it raises ``NoSuchFile`` or ``NoSuchObject``.

    Returns:
        What ``use`` returned.

    Raises:
        NoSuchObject, InvalidKey: as for ``find``.
        NoSuchFile: the rows of the object are damaged.
    """
    gone = None
    while True:
        opened = open_object(bucket, key)
        try:
            return use(opened)
        except (NoSuchFile, NoSuchObject):
            # An overwrite must never look like a deletion.
            # If two tries open the same object, its rows are damaged, and another try would not help.
            if opened == gone:
                raise
            gone = opened


def read(opened: OpenObject, ranges: Sequence[range] | None = None) -> Iterator[bytes]:
    """Read an object, or some ranges of it. Each piece that is yielded belongs to one range.

    The first chunk is located and verified before this function returns. A failure after the first chunk cuts the
    stream short (RACES 15).

    Args:
        opened: the object.
        ranges: ranges of byte positions in the object, ascending, disjoint and not empty; None for the whole object.

    Raises:
        ContentUnavailable: the first needed chunk cannot be read now.
        ContentGone: no node has the first needed chunk any more.
        NoSuchFile: the object was deleted or overwritten since it was opened, or during a download of more than
            ``MOST_CHUNKS`` chunks.
    """
    return streaming.first_now(_pieces(_wanted(opened, ranges)))


def _wanted(opened: OpenObject, ranges: Sequence[range] | None) -> Wanted:
    """The contents to read: a download holds these in memory, but not all 10,000 parts that an object may have."""
    wanted: list[tuple[OpenContent, list[range] | None]] = []
    for part in opened.parts:
        within = None if ranges is None else [common for one in ranges if (common := _common(one, part.span))]
        if within is None or within:
            wanted.append((part.content, within))
    return wanted


def _pieces(wanted: Wanted) -> Iterator[bytes]:
    wanted = _with_manifests(wanted)
    for content, within in wanted:
        yield from streaming.pieces(content, within)


def _with_manifests(wanted: Wanted) -> Wanted:
    """Read the needed chunk hashes of all contents at once, unless they are known already or more than ``MOST_CHUNKS``.

    With the hashes in memory, a long download goes on with the old bytes when the object is overwritten (RACES 48).
    """
    spans = [(content, _chunks(content, within)) for content, within in wanted]
    are_there = all(span.stop <= len(content.head) for content, span in spans)
    if are_there or sum(map(len, (span for _, span in spans))) > MOST_CHUNKS:
        return wanted
    return list(zip(with_heads(spans), (within for _, within in wanted), strict=True))


def _chunks(content: OpenContent, within: Sequence[range] | None) -> range:
    """The positions of the chunks from the first range to the last one; of all chunks if ``within`` is None."""
    if within is None:
        return range(content.chunk_count)
    return range(within[0].start // content.chunk_size, (within[-1].stop - 1) // content.chunk_size + 1)


def _common(wanted: range, span: range) -> range:
    """The positions of ``wanted`` within a part, counted from the part's first byte."""
    start, stop = max(wanted.start, span.start), min(wanted.stop, span.stop)
    return range(start - span.start, stop - span.start)
