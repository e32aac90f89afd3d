"""The tags of objects."""

from __future__ import annotations

from storage.s3 import bodies, documents
from storage.s3.operations.objects import require_version
from storage.s3.properties import tags_of
from storage.s3.request import Reply, Request
from storage.services import objects


def get(request: Request) -> Reply:
    """GetObjectTagging."""
    require_version(request)
    found = objects.find(request.bucket(), request.key)
    document = documents.root("Tagging")
    tags = documents.add(document, "TagSet")
    for name, value in found.tags.items():
        entry = documents.add(tags, "Tag")
        documents.add(entry, "Key", name)
        documents.add(entry, "Value", value)
    return Reply.of(document)


def put(request: Request) -> Reply:
    """PutObjectTagging: the new tags replace all others."""
    require_version(request)
    bucket = request.bucket()
    objects.set_tags(bucket, request.key, tags_of(bodies.document(request, "Tagging")))
    return Reply()


def delete(request: Request) -> Reply:
    """DeleteObjectTagging."""
    require_version(request)
    objects.set_tags(request.bucket(), request.key, {})
    return Reply(204)
