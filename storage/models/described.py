from __future__ import annotations

from dataclasses import dataclass, field

from django.db import models

from storage.models.bucket import Bucket

BINARY = "binary/octet-stream"  # The content type of an object whose client has named none, as in S3.
STANDARD, REDUCED = "STANDARD", "REDUCED_REDUNDANCY"  # The storage classes.


@dataclass(frozen=True)
class Properties:
    """What a client says about an object, apart from its bytes.

    Attributes:
        content_type: the media type.
        headers: header fields that answers repeat, such as ``cache-control``. The names of the fields are in lower
            case.
        metadata: the client's own fields; the names are without ``x-amz-meta-``.
        tags: the tags.
        storage_class: the storage class: ``STANDARD`` or ``REDUCED``.
    """

    content_type: str = BINARY
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    storage_class: str = STANDARD

    def factor_in(self, bucket: Bucket) -> int:
        """The number of replicas that an object with these properties should have in a bucket."""
        return max(1, bucket.factor - 1) if self.storage_class == REDUCED else bucket.factor


class Described(models.Model):
    """A key of a bucket, with what a client has said about the object there."""

    bucket = models.ForeignKey(Bucket, models.PROTECT, related_name="+", db_index=False)
    key = models.TextField(db_collation="C", editable=False, help_text="1 to 1,024 bytes of UTF-8, compared as bytes")
    content_type = models.TextField(default=BINARY)
    headers = models.JSONField(default=dict)
    metadata = models.JSONField(default=dict)
    tags = models.JSONField(default=dict)
    storage_class = models.TextField(default=STANDARD)
    checksums = models.JSONField(default=dict, help_text="algorithm → checksum in base64, as the S3 door shows it")

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.key

    @property
    def properties(self) -> Properties:
        return Properties(self.content_type, self.headers, self.metadata, self.tags, self.storage_class)

    def describe(self, properties: Properties) -> None:
        """Set the properties to what a client says. The caller saves the row."""
        self.content_type = properties.content_type
        self.headers = properties.headers
        self.metadata = properties.metadata
        self.tags = properties.tags
        self.storage_class = properties.storage_class
