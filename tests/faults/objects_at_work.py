"""Operations on objects that run in a process of their own, which a test kills.

The workers of the installation store the bodies. ``Installation.start`` runs a function of this module in such a
process, whose phases have gates.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections import Counter

from storage.models import Bucket, Content, Destination, Multipart, Object, Part, Properties, nobody
from storage.services import intake, objects, sweep

BUCKET = "bucket"
CHUNKS = 4
SIZE = CHUNKS * 65536
PARTS = 3


def body(label: str, size: int = SIZE) -> bytes:
    return random.Random(label).randbytes(size)


def bucket() -> Bucket:
    return Bucket.objects.filter(name=BUCKET).first() or objects.create_bucket(nobody(), BUCKET)


def stored(data: bytes, key: str | None = None) -> int:
    """Store a body; returns the row id of its pending part."""
    into = bucket()
    with intake.Reception(nobody(), declared_size=len(data), destination=Destination(into, key)) as reception:
        reception.write(data)
        accepted = reception.accept_part(etag=hashlib.md5(data, usedforsecurity=False).hexdigest())
    assert intake.finish(accepted, 60) is not None
    return accepted.part_id


# -- operations --------------------------------------------------------------


def put(key: str, label: str) -> None:
    objects.put(bucket(), key, stored(body(label), key), Properties())


def begin_upload(key: str, label: str) -> None:
    """Begin a multipart upload with all its parts, and print its id."""
    upload = objects.begin_multipart(bucket(), key, Properties())
    for number in range(1, PARTS + 1):
        put_part(key, upload.upload_id, number, label)
    print(upload.upload_id)


def put_part(key: str, upload_id: str, number: int, label: str) -> None:
    upload = objects.find_multipart(bucket(), key, upload_id)
    # Only the last part of a multipart upload may be smaller than LEAST_PART.
    size = SIZE if number == PARTS else objects.multipart.LEAST_PART
    objects.put_part(upload, number, stored(body(f"{label} {number}", size)))


def complete(key: str, upload_id: str) -> None:
    upload = Multipart.objects.get(pk=upload_id)
    chosen = list(Part.objects.filter(multipart=upload).order_by("number").values_list("number", "etag"))
    objects.complete(bucket(), key, upload_id, chosen)


def copy(source: str, key: str) -> None:
    objects.copy(bucket(), source, bucket(), key)


def delete_many(*keys: str) -> None:
    objects.delete_many(bucket(), keys)


# -- what is there -----------------------------------------------------------


def print_state() -> None:
    """Print the SHA-256 of each object by its key, and the numbers of rows that should not be left over."""
    found = {}
    for key in Object.objects.filter(bucket__name=BUCKET).values_list("key", flat=True):
        digest = hashlib.sha256()
        for piece in objects.read(objects.open_object(bucket(), key)):
            digest.update(piece)
        found[key] = digest.hexdigest()
    counts = Counter(pending=Part.objects.pending().count(), parts=Part.objects.exclude(multipart=None).count())
    counts["unreferenced"] = Content.objects.filter(parts=None, files=None).count()
    json.dump({"objects": found, "counts": counts}, sys.stdout)


def drop_pending() -> None:
    """Drop the bodies of killed requests now, as the sweeper does after some minutes."""
    sweep.PENDING_KEPT = 0.0
    sweep._drop_pending_parts()
