"""Buckets, objects and multipart uploads: the store as the S3 door shows it. Nothing in this package knows HTTP.

Each body first becomes a pending part (``intake.Reception.accept_part``). When the body is stored, ``put`` makes the
part an object, or ``put_part`` adds the part to a multipart upload (ADR 31).
"""

from storage.services.objects.buckets import (
    create_bucket,
    delete_bucket,
    find_bucket,
    give_buckets,
    list_buckets,
    own_bucket,
)
from storage.services.objects.copying import copy
from storage.services.objects.inventory import bucket_page, page
from storage.services.objects.listing import Listing, Multiparts, list_multiparts, list_objects
from storage.services.objects.multipart import (
    Completed,
    abort,
    begin_multipart,
    complete,
    copy_part,
    find_multipart,
    list_parts,
    put_part,
)
from storage.services.objects.places import Condition
from storage.services.objects.putting import discard, put, set_tags
from storage.services.objects.reading import find, open_object, read, read_version
from storage.services.objects.removing import delete, delete_many

__all__ = [
    "Completed",
    "Condition",
    "Listing",
    "Multiparts",
    "abort",
    "begin_multipart",
    "bucket_page",
    "complete",
    "copy",
    "copy_part",
    "create_bucket",
    "delete",
    "delete_bucket",
    "delete_many",
    "discard",
    "find",
    "find_bucket",
    "find_multipart",
    "give_buckets",
    "list_buckets",
    "list_multiparts",
    "list_objects",
    "list_parts",
    "open_object",
    "own_bucket",
    "page",
    "put",
    "put_part",
    "read",
    "read_version",
    "set_tags",
]
