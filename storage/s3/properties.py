"""What a client says about an object in header fields, and the header fields of answers that repeat it."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from storage.models import Properties
from storage.models.described import BINARY, REDUCED, STANDARD
from storage.s3 import documents
from storage.s3.errors import S3Error
from storage.s3.request import Request
from storage.s3.signatures import canonical

META = "x-amz-meta-"
KEPT = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")
LARGEST_METADATA = 2048  # bytes of names and values, as S3 counts them
MOST_TAGS, LONGEST_TAG, LONGEST_VALUE = 10, 128, 256
PRIVATE = ("", "private", "bucket-owner-full-control", "bucket-owner-read", "aws-exec-read")
UNSUPPORTED = (
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-website-redirect-location",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
    "x-amz-write-offset-bytes",
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def read(request: Request) -> Properties:
    """Read what the client says about a new object. In the values each character is a byte, as in WSGI.

    Raises:
        S3Error: a field has an impossible value, or asks for something that is not implemented.
    """
    for name in UNSUPPORTED:
        if request.header(name):
            raise S3Error("NotImplemented", f"{name} is not implemented")
    require_private(request)
    return Properties(
        content_type=canonical.header(request.environ, "content-type") or BINARY,
        headers=_kept(request),
        metadata=_metadata(request),
        tags=tags_in(request.header("x-amz-tagging") or ""),
        storage_class=storage_class(request),
    )


def require_private(request: Request) -> None:
    """Refuse an access control list that would let others in: every object belongs to the owner of its bucket alone.

    Raises:
        S3Error: the request asks for another list than the private one.
    """
    has_grants = any(variable.startswith("HTTP_X_AMZ_GRANT_") for variable in request.environ)
    if has_grants or (request.header("x-amz-acl") or "") not in PRIVATE:
        raise S3Error("AccessControlListNotSupported", "The bucket does not allow ACLs")


def storage_class(request: Request) -> str:
    """The storage class that a request asks for.

    Raises:
        S3Error: this door has no such storage class.
    """
    name = request.header("x-amz-storage-class") or STANDARD
    if name not in (STANDARD, REDUCED):
        raise S3Error("InvalidStorageClass", f"the storage classes are {STANDARD} and {REDUCED}")
    return name


def _kept(request: Request) -> dict[str, str]:
    found = {name: value for name in KEPT if (value := canonical.header(request.environ, name))}
    codings = [coding.strip() for coding in found.pop("content-encoding", "").split(",")]
    if kept := ", ".join(coding for coding in codings if coding and coding.lower() != "aws-chunked"):
        found["content-encoding"] = kept
    return found


def _metadata(request: Request) -> dict[str, str]:
    prefix = canonical.variable(META)
    keys = [key for key in request.environ if key.startswith(prefix)]
    found = {canonical.name_of(key).removeprefix(META): request.environ[key] for key in keys}
    if sum(len(name) + len(value) for name, value in found.items()) > LARGEST_METADATA:
        raise S3Error(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            details={"MaxSizeAllowed": str(LARGEST_METADATA)},
        )
    return found


def tags_in(text: str) -> dict[str, str]:
    """The tags in the encoding of a query.

    Raises:
        S3Error: the tags break a rule.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise S3Error("InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8") from None
    return valid_tags(pairs)


def tags_of(document: documents.Node) -> dict[str, str]:
    """The tags in a document ``Tagging``.

    Raises:
        S3Error: the tags break a rule.
    """
    return valid_tags(
        [(documents.needed(tag, "Key"), documents.text_of(tag, "Value") or "") for tag in document.iter("Tag")]
    )


def valid_tags(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The tags as a mapping, after a check of S3's rules.

    Raises:
        S3Error: there are too many tags, a name occurs twice, or a name or a value is too long.
    """
    if len(pairs) > MOST_TAGS:
        raise S3Error("BadRequest", f"Object tags cannot be greater than {MOST_TAGS}")
    tags = dict(pairs)
    if len(tags) < len(pairs):
        raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key")
    for name, value in pairs:
        if not 0 < len(name) <= LONGEST_TAG:
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid")
        if len(value) > LONGEST_VALUE or "\0" in name + value:
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid")
    return tags


def fields(properties: Properties) -> dict[str, str]:
    """The header fields of an answer about an object: the bytes that the client has sent, whatever their encoding."""
    found = {"Content-Type": properties.content_type}
    found |= {name.title(): value for name, value in properties.headers.items()}
    found |= {META + name: value for name, value in properties.metadata.items()}
    if properties.tags:
        found["x-amz-tagging-count"] = str(len(properties.tags))
    if properties.storage_class != STANDARD:
        found["x-amz-storage-class"] = properties.storage_class
    return found


def wire(value: str) -> str:
    """A text as the value of a header field, in which each character is a byte of UTF-8.

    Raises:
        S3Error: the text has a control character, which would end the field.
    """
    if _CONTROL.search(value):
        raise S3Error("InvalidArgument", "the value of a header field has no control characters")
    return value.encode().decode("latin-1")
