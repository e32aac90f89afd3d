"""Find objects, and read their bytes across their contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from storage.exceptions import NoSuchObject
from storage.models import Bucket, Object, OpenObject
from storage.replicas import streaming
from storage.services.objects.places import require_key


def find(bucket: Bucket, key: str) -> Object:
    """Find the object at a key.

    Raises:
        NoSuchObject: there is none.
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


def read(opened: OpenObject, ranges: Sequence[range] | None = None) -> Iterator[bytes]:
    """Read an object, or some ranges of it. Each piece that is yielded belongs to one range.

    The first chunk is located and verified before this function returns. A failure after that cuts the stream short
    (RACES 15).

    Args:
        opened: the object.
        ranges: ranges of byte positions in the object, ascending, disjoint and not empty; None for the whole object.

    Raises:
        ContentUnavailable: the first needed chunk cannot be read now.
        ContentGone: no node has the first needed chunk any more.
        NoSuchFile: the object was deleted or overwritten since it was opened.
    """
    return streaming.first_now(_pieces(opened, ranges))


def _pieces(opened: OpenObject, ranges: Sequence[range] | None) -> Iterator[bytes]:
    for part in opened.parts:
        if ranges is None:
            yield from streaming.pieces(part.content)
        elif within := [common for wanted in ranges if (common := _common(wanted, part.span))]:
            yield from streaming.pieces(part.content, within)


def _common(wanted: range, span: range) -> range:
    """The positions of ``wanted`` within a part, counted from the part's first byte."""
    start, stop = max(wanted.start, span.start), min(wanted.stop, span.stop)
    return range(start - span.start, stop - span.start)
