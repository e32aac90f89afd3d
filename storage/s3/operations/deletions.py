"""DeleteObjects: many keys in one request."""

from __future__ import annotations

from contextlib import suppress

from storage.exceptions import NoSuchObject, StorageError
from storage.s3 import bodies, documents
from storage.s3.addresses import require_key
from storage.s3.errors import S3Error, as_s3
from storage.s3.request import Reply, Request
from storage.services import objects
from storage.services.objects import Condition

MOST = 1000


def delete_objects(request: Request) -> Reply:
    """DeleteObjects. An object that cannot be deleted is reported in the answer, and all others are deleted."""
    bucket = request.bucket()
    document = bodies.document(request, "Delete")
    listed = document.findall("Object")
    if not 0 < len(listed) <= MOST:
        raise S3Error("MalformedXML", f"the document names 1 to {MOST} objects")
    is_quiet = (documents.text_of(document, "Quiet") or "").strip().lower() == "true"
    answer = documents.root("DeleteResult")
    deleted: list[str] = []
    keys: list[str] = []
    for entry in listed:
        key = documents.text_of(entry, "Key") or ""
        try:
            _require_deletable(request, entry, key)
            if (etag := documents.text_of(entry, "ETag")) is None:
                keys.append(key)
                continue
            with suppress(NoSuchObject):
                objects.delete(bucket, key, condition=Condition(etag=etag.strip().strip('"')))
        except (S3Error, StorageError) as error:
            _add_error(answer, key, error)
        else:
            deleted.append(key)
    if keys:
        objects.delete_many(bucket, keys)
    deleted += keys
    if not is_quiet:
        for key in deleted:
            documents.add(documents.add(answer, "Deleted"), "Key", key)
    return Reply.of(answer)


def _require_deletable(request: Request, entry: documents.Node, key: str) -> None:
    """Refuse an entry that cannot be deleted.

    Raises:
        S3Error: the entry has no key, or has a version or a condition that this door does not know.
        Forbidden: the key that signed the request does not allow deleting this object.
    """
    if documents.text_of(entry, "VersionId") not in (None, "", "null"):
        raise S3Error("NoSuchVersion", "The specified version does not exist.")
    for name in ("LastModifiedTime", "Size"):
        if documents.text_of(entry, name) is not None:
            raise S3Error("NotImplemented", f"the condition {name} is not implemented")
    if not key:
        raise S3Error("UserKeyMustBeSpecified", "The bucket POST must contain the specified field name.")
    require_key(key)
    request.principal.require_place(request.address.bucket, key)


def _add_error(answer: documents.Node, key: str, error: Exception) -> None:
    found = as_s3(error)
    if found is None:
        raise error
    entry = documents.add(answer, "Error")
    documents.add(entry, "Key", key)
    documents.add(entry, "Code", found.code)
    documents.add(entry, "Message", documents.printable(str(found)))
