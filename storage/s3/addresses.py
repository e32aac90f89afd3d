"""The bucket and the key that an address names: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import unquote_to_bytes

from storage.s3.errors import S3Error

LONGEST_KEY = 1024  # bytes of UTF-8

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]", re.ASCII)
_BAD_LABEL = re.compile(r"\.\.|\.-|-\.")
_RESERVED = re.compile(r"(?:xn--|sthree-|amzn-s3-demo-).*|.*(?:-s3alias|--ol-s3|\.mrap|--x-s3|--table-s3)")


@dataclass(frozen=True)
class Address:
    """The address of a request.

    Attributes:
        bucket: the bucket's name; empty if the address names none.
        key: the object's key; empty if the address names none.
        path: the path as the client sent it.
        query: the query as the client sent it.
        is_of_host: True if the host names the bucket, and not the path.
    """

    bucket: str
    key: str
    path: str
    query: str
    is_of_host: bool = False


def parse(raw_uri: str, host: str, domain: str) -> Address:
    """Read an address in path style, ``/bucket/key``, or in virtual-host style, where the host names the bucket.

    Args:
        raw_uri: the target of the request, as the client sent it.
        host: the host that the client asked for, perhaps with a port.
        domain: the name whose sub-domains are buckets; empty if there are none.

    Raises:
        S3Error: the address is not UTF-8, has no slash at its beginning, or names a bucket with a slash.
    """
    path, _, query = _without_origin(raw_uri).partition("?")
    if path[:1] not in ("", "/"):
        raise S3Error("InvalidURI", "a path begins with a slash")
    bucket = _bucket_in(host, domain)
    if bucket is not None:
        return Address(bucket, _decoded(path.removeprefix("/")), path, query, is_of_host=True)
    first, _, rest = path.removeprefix("/").partition("/")
    name = _decoded(first)
    if "/" in name:  # Without its encoding, the path would name an object of another bucket.
        raise S3Error("InvalidBucketName", "The specified bucket is not valid.", details={"BucketName": name})
    return Address(name, _decoded(rest), path, query)


def require_bucket_name(name: str) -> None:
    """Refuse a name that no bucket may have ("Bucket naming rules" in the Amazon S3 User Guide).

    Raises:
        S3Error: the name breaks a rule.
    """
    is_bad = _BAD_LABEL.search(name) or _RESERVED.fullmatch(name) or _is_ip(name)
    if is_bad or not _BUCKET.fullmatch(name):
        raise S3Error("InvalidBucketName", "The specified bucket is not valid.", details={"BucketName": name})


def require_key(key: str) -> None:
    """Refuse a key that no object may have.

    Raises:
        S3Error: the key is too long or has a NUL character, which PostgreSQL cannot store.
    """
    if len(key.encode()) > LONGEST_KEY:
        raise S3Error("KeyTooLongError", "Your key is too long", details={"MaxSizeAllowed": str(LONGEST_KEY)})
    if "\0" in key:
        raise S3Error("InvalidArgument", "a key has no NUL character")


def _without_origin(raw_uri: str) -> str:
    """The target without scheme and authority, which a proxy may send (RFC 9112 §3.2.2)."""
    found = re.match(r"https?://[^/?]*", raw_uri, re.IGNORECASE)
    return raw_uri[found.end() :] if found else raw_uri


def _bucket_in(host: str, domain: str) -> str | None:
    name = host.rpartition(":")[0] if re.search(r":[0-9]*$", host) else host
    suffix = f".{domain.lower()}"
    return name[: -len(suffix)] if domain and name.lower().endswith(suffix) and len(name) > len(suffix) else None


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "the address is not UTF-8") from None


def _is_ip(name: str) -> bool:
    try:
        IPv4Address(name)
    except AddressValueError:
        return False
    return True
