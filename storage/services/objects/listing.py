"""List the objects of a bucket, for both versions of ListObjects, and its multipart uploads."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import F
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan

from storage.exceptions import InvalidKey
from storage.models import Bucket, Multipart
from storage.models.names import end_of_prefix
from storage.models.statements.listing import Listed, entries

READ_AT_ONCE = 1000
LAST_ID = uuid.UUID(int=(1 << 128) - 1)
SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Listing:
    """A page of a list.

    Attributes:
        objects: the objects, by key.
        prefixes: the common prefixes of the objects that were rolled up.
        last: the last entry of the page, a key or a common prefix, if more entries follow; otherwise None.
    """

    objects: list[Listed]
    prefixes: list[str]
    last: str | None


@dataclass(frozen=True)
class Multiparts:
    """A page of the list of multipart uploads.

    Attributes:
        uploads: the uploads, by key and id.
        prefixes: the common prefixes of the uploads that were rolled up.
        last: the last entry of the page, as a key and an upload id, if more entries follow; otherwise None. The id of
            a common prefix is empty.
    """

    uploads: list[Multipart]
    prefixes: list[str]
    last: tuple[str, str] | None


def list_objects(
    bucket: Bucket, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
) -> Listing:
    """List objects.

    Args:
        bucket: the bucket.
        prefix: the text with which all listed keys begin.
        delimiter: keys that have this text after the prefix are rolled up into common prefixes; "" for no delimiter.
        after: a key or a common prefix: the list has only entries after this one.
        limit: the largest number of objects and common prefixes together.

    Raises:
        InvalidKey: an argument cannot be written in UTF-8.
    """
    if limit <= 0 or "\0" in _readable(prefix):
        return Listing([], [], None)
    # PostgreSQL takes no NUL character. No key has a NUL, so the keys that follow ``after`` are the keys that follow
    # the part of ``after`` before its first NUL.
    after = _readable(after).partition("\0")[0]
    delimiter = "" if "\0" in _readable(delimiter) else delimiter
    found = list(entries(bucket.pk, prefix, delimiter, after, limit + 1))
    page, more = found[:limit], found[limit:]
    last = page[-1] if more else None
    return Listing(
        [entry for entry in page if isinstance(entry, Listed)],
        [entry for entry in page if isinstance(entry, str)],
        last.key if isinstance(last, Listed) else last,
    )


def list_multiparts(
    bucket: Bucket,
    *,
    prefix: str = "",
    delimiter: str = "",
    after: tuple[str, str] = ("", ""),
    limit: int = 1000,
) -> Multiparts:
    """List multipart uploads that are neither completed nor aborted.

    Args:
        bucket: the bucket.
        prefix: the text with which all listed keys begin.
        delimiter: as for ``list_objects``.
        after: a key and an upload id: the list has only uploads after this one. If the id is empty, the list has only
            uploads of later keys.
        limit: the largest number of uploads and common prefixes together.

    Raises:
        InvalidKey: an argument cannot be written in UTF-8.
    """
    uploads: list[Multipart] = []
    prefixes: list[str] = []
    last: tuple[str, str] | None = None
    for upload in _uploads(bucket, _readable(prefix), (_readable(after[0]).partition("\0")[0], after[1])):
        cut = upload.key.find(delimiter, len(prefix)) if delimiter else -1
        rolled_up = "" if cut < 0 else upload.key[: cut + len(delimiter)]
        if rolled_up and (rolled_up <= after[0] or rolled_up in prefixes[-1:]):
            continue
        if len(uploads) + len(prefixes) >= limit:
            return Multiparts(uploads, prefixes, last)
        if rolled_up:
            prefixes.append(rolled_up)
            last = (rolled_up, "")
        else:
            uploads.append(upload)
            last = (upload.key, upload.upload_id)
    return Multiparts(uploads, prefixes, None)


def _uploads(bucket: Bucket, prefix: str, after: tuple[str, str]) -> Iterator[Multipart]:
    """The open multipart uploads of a bucket after a key and an id, in the order of keys and ids."""
    if "\0" in prefix:
        return
    open_ones = Multipart.objects.open_in(bucket).order_by("key", "id")
    if prefix:
        open_ones = open_ones.filter(key__gte=prefix)
    if (end := end_of_prefix(prefix)) is not None:
        open_ones = open_ones.filter(key__lt=end)
    position = (after[0], _id_of(after[1]))
    while True:
        batch = list(open_ones.filter(TupleGreaterThan(Tuple(F("key"), F("id")), position))[:READ_AT_ONCE])
        yield from batch
        if len(batch) < READ_AT_ONCE:
            return
        position = (batch[-1].key, batch[-1].pk)


def _id_of(text: str) -> uuid.UUID:
    """The upload id in a text. A text that is no id stands for an id that is greater than all others."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return LAST_ID


def _readable(text: str) -> str:
    """
    Raises:
        InvalidKey: the text has surrogates, which UTF-8 cannot write.
    """
    if SURROGATE.search(text):
        raise InvalidKey("a key is text in UTF-8")
    return text
