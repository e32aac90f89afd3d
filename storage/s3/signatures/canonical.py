"""The text that a client signs: the canonical request, and the string to sign."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY = hashlib.sha256(b"").hexdigest()
SIGNATURE = "X-Amz-Signature"
META = "X-AMZ-META-"
UNRESERVED = "-._~"  # S3 does not encode these characters, letters and digits.

_SPACES = re.compile(" {2,}")


def escaped(name: str) -> str:
    """The name of a header field in upper case, with escapes for the underscores of metadata (``x-amz-meta-a_b``)."""
    return name.replace("%", "%25").replace("_", "%5F") if name.startswith(META) else name


def variable(name: str) -> str:
    """The name of the variable of the WSGI environment that has a header field."""
    key = escaped(name.upper()).replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def name_of(key: str) -> str:
    """The name of a header field in lower case, from its variable in the WSGI environment.

    Only names of metadata are unescaped, because ``escaped`` changes only these. In any other name, a client has
    written the per cent sign itself. So no two variables give the same name.
    """
    name = key.removeprefix("HTTP_").replace("_", "-")
    return (unquote(name) if name.startswith(META) else name).lower()


def header(environ: Mapping[str, str], name: str) -> str | None:
    """The value of a header field, as WSGI writes it: each character is a byte. None if the request has no such field.

    Args:
        environ: the WSGI environment of the request.
        name: the name in lower case.
    """
    return environ.get(variable(name))


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key that signs the requests of one day in one region.

    Args:
        secret: the secret of the client's key.
        date: the day, as ``YYYYMMDD``.
        region: any name.
        service: ``s3``.
    """
    key = hmac.digest(f"AWS4{secret}".encode(), date.encode(), "sha256")
    for part in (region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def paths(raw_path: str) -> Iterator[str]:
    """The two forms of the path that a client may have signed: encoded by the rules of S3, and as it was sent.

    The two forms differ if the client does not encode a character that S3 encodes, or encodes a slash.
    """
    normal = quote_from_bytes(unquote_to_bytes(raw_path), safe="/" + UNRESERVED)
    yield normal
    if raw_path != normal:
        yield raw_path


def query(raw_query: str) -> str:
    """The canonical query: each name and value is encoded as S3 encodes it, and the parameters are sorted."""
    pairs = (part.partition("=") for part in raw_query.split("&") if part)
    encoded = sorted((_again(name), _again(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded if name != SIGNATURE)


def _again(text: str) -> str:
    return quote_from_bytes(unquote_to_bytes(text.replace("+", " ")), safe=UNRESERVED)


def request(method: str, path: str, canonical_query: str, fields: Iterable[tuple[str, str]], payload: str) -> bytes:
    """The canonical request.

    Args:
        method: the HTTP method.
        path: the encoded path.
        canonical_query: the result of ``query``.
        fields: the signed header fields in the order of their names, in lower case: name, value.
        payload: the SHA-256 of the body in hex, or the word that the client signs in its place.
    """
    named = list(fields)
    lines = [method, path, canonical_query]
    lines += [f"{name}:{_SPACES.sub(' ', value.strip())}" for name, value in named]
    lines += ["", ";".join(name for name, _ in named), payload]
    # The signed fields that a presigned address names may have characters that are not in Latin-1.
    return "\n".join(lines).encode("latin-1", "replace")


def string_to_sign(time: str, scope: str, canonical_request: bytes) -> str:
    """The text whose HMAC is the signature.

    Args:
        time: the time of the request, as ``YYYYMMDDTHHMMSSZ``.
        scope: the date, the region and the service of the credential, and ``aws4_request``, with slashes in between.
        canonical_request: the result of ``request``.
    """
    return "\n".join((ALGORITHM, time, scope, hashlib.sha256(canonical_request).hexdigest()))


def sign(key: bytes, text: str) -> str:
    """The signature of a text, in hex."""
    return hmac.digest(key, text.encode(), "sha256").hex()
