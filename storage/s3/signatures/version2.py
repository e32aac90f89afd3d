"""Signature Version 2 of AWS, as S3 uses it: older clients, and presigned addresses that boto3 makes for us-east-1.

Source: "Signing and authenticating REST requests (AWS signature version 2)" in the Amazon S3 User Guide. The header
fields Content-MD5, Content-Type and Date, all ``x-amz-*`` fields, the path and some parameters of the query are signed;
the host, the other parameters and the body are not.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from urllib.parse import unquote

from storage.s3.addresses import Address
from storage.s3.errors import S3Error
from storage.s3.router import OF_BUCKETS, OF_OBJECTS
from storage.s3.signatures import canonical
from storage.s3.signatures.claim import (
    PAYLOAD,
    TIME_FORM,
    UNSIGNED,
    Claim,
    mismatch,
    needed,
    parsed_date,
    require_clock,
)

# The signed parameters of the query. The list is that of botocore; S3's documents list a part of it.
SIGNED = frozenset(
    [
        "accelerate",
        "acl",
        "analytics",
        "cors",
        "defaultObjectAcl",
        "delete",
        "inventory",
        "lifecycle",
        "location",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "partNumber",
        "policy",
        "replication",
        "requestPayment",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "restore",
        "select",
        "select-type",
        "storageClass",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
    ]
)
MEANT = SIGNED | OF_BUCKETS | OF_OBJECTS  # These parameters change what a request asks for.
HARMLESS = frozenset(("partNumber", "versionId"))  # With these parameters, a GET reads the same object or a part of it.
ANSWER = "response-"
STANDARD = ("content-md5", "content-type")
OWN = "x-amz-"

_HEADER_NAME = re.compile(r"x-amz-meta-[a-z0-9_.-]+|[a-z0-9-]+", re.ASCII)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_SECONDS = re.compile(r"[0-9]{1,11}", re.ASCII)


@dataclass(frozen=True)
class Version2(Claim):
    """A signature of version 2: an HMAC-SHA1 in Base64.

    Attributes:
        dates: what the client may have signed as the date: the field Date, the parameter Expires, or an empty text.
        time: the time at which the client signed, or the end of a presigned address.
        is_presigned: True if the signature is in the query.
    """

    dates: tuple[str, ...]
    time: datetime
    is_presigned: bool = False

    def key(self, secret: str) -> bytes:
        return secret.encode()

    def chain(self, key: bytes) -> None:
        return None

    def require_time(self, now: datetime) -> None:
        if not self.is_presigned:
            require_clock(self.time, now, self.time.strftime(TIME_FORM))
        elif now > self.time:
            raise S3Error("AccessDenied", "Request has expired")

    def require_signature(self, environ: Mapping[str, str], address: Address, key: bytes) -> None:
        fields = {**self.headers, **environ}
        standard = [(canonical.header(fields, name) or "").strip() for name in STANDARD]
        own = {canonical.name_of(name): value for name, value in fields.items() if name.startswith("HTTP_X_AMZ_")}
        lines = [f"{name}:{value.strip()}" for name, value in sorted(own.items())]
        for date, resource in product(self.dates, _resources(address)):
            text = "\n".join((environ["REQUEST_METHOD"], *standard, date, *lines, resource))
            if self._is_signed(text.encode("latin-1", "replace"), key):
                return
        raise mismatch()

    def require_policy_signature(self, policy: str, key: bytes) -> None:
        if not self._is_signed(policy.encode(), key):
            raise mismatch()

    def _is_signed(self, text: bytes, key: bytes) -> bool:
        expected = base64.b64encode(hmac.digest(key, text, "sha1"))
        return hmac.compare_digest(expected, self.signature.strip().encode("latin-1", "replace"))


def from_header(environ: Mapping[str, str], text: str) -> Version2:
    """Read the signature in the field Authorization.

    Args:
        environ: the WSGI environment of the request.
        text: the field without the word ``AWS``.

    Raises:
        S3Error: the signature is malformed.
    """
    key_id, _, signature = text.strip().rpartition(":")
    if not key_id or not signature:
        raise S3Error("InvalidArgument", "AWS authorization header is invalid. Expected AwsAccessKeyId:signature")
    own = canonical.header(environ, "x-amz-date")
    date = (canonical.header(environ, "date") or "").strip()
    # A client that sends x-amz-date signs that field among the ``x-amz-*`` fields, and should sign an empty text as the
    # date. botocore and minio-go sign the field Date all the same.
    signed, time = (("", date), _moment(own)) if own is not None else ((date,), _moment(date))
    return Version2(key_id, signature, _payload(environ), signed, time)


def from_query(environ: Mapping[str, str], parameters: Mapping[str, str]) -> Version2:
    """Read the signature of a presigned address.

    Args:
        environ: the WSGI environment of the request.
        parameters: the parameters of the query: name → value.

    Raises:
        S3Error: the signature is malformed.
    """
    for name in ("AWSAccessKeyId", "Signature", "Expires"):
        if not parameters.get(name):
            raise S3Error("AccessDenied", "Query-string authentication requires Signature, Expires and AWSAccessKeyId")
    expires = parameters["Expires"]
    if not _SECONDS.fullmatch(expires):
        raise S3Error("AccessDenied", f"Invalid date (should be seconds since epoch): {expires}")
    headers = _headers(parameters)
    payload = _payload({**headers, **environ})
    end = datetime.fromtimestamp(int(expires), UTC)
    key_id, signature = parameters["AWSAccessKeyId"], parameters["Signature"]
    return Version2(key_id, signature, payload, (expires,), end, is_presigned=True, headers=headers)


def from_form(fields: Mapping[str, str]) -> Version2:
    """Read the signature of a form, which covers the form's policy. The policy says until when the form is good.

    Args:
        fields: the fields of the form: name in lower case → value.

    Raises:
        S3Error: the signature is missing.
    """
    return Version2(needed(fields, "awsaccesskeyid"), needed(fields, "signature"), UNSIGNED, (), datetime.max)


def _payload(environ: Mapping[str, str]) -> str:
    payload = canonical.header(environ, PAYLOAD) or UNSIGNED
    if payload.startswith("STREAMING-AWS4-"):
        raise S3Error("InvalidRequest", "the chunks of a body are signed by version 4 only")
    return payload


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, TIME_FORM).replace(tzinfo=UTC)
    except ValueError:
        return parsed_date(text)


def _headers(parameters: Mapping[str, str]) -> dict[str, str]:
    """The header fields that a client has put into a presigned address. The client signs them like header fields."""
    found = {}
    for name, value in parameters.items():
        field = name.lower()
        if field not in STANDARD and not field.startswith(OWN):
            continue
        # The operation was chosen without these fields, so the source of a copy, which would change it, is refused.
        if not _HEADER_NAME.fullmatch(field) or _CONTROLS.search(value) or field.startswith("x-amz-copy-source"):
            raise S3Error("AccessDenied", f"the parameter {name} can be no header field of a presigned address")
        found[canonical.variable(field)] = value.encode().decode("latin-1")
    return found


def _resources(address: Address) -> Iterator[str]:
    """The forms of the resource that a client may have signed.

    botocore signs a parameter without a value as it sends it, with or without an equals sign. Other clients never sign
    the equals sign. For the address "/bucket", botocore signs "/bucket/".
    """
    signed = _signed(address.query)
    bucket = f"/{address.bucket}" if address.is_of_host else ""
    paths = list(canonical.paths(address.path))
    if not address.key and not address.path.endswith("/"):
        paths += [f"{path}/" for path in paths]
    for parameters in dict.fromkeys((tuple(signed), tuple(parameter.removesuffix("=") for parameter in signed))):
        for path in paths:
            yield bucket + path + (f"?{'&'.join(parameters)}" if parameters else "")


def _signed(query: str) -> list[str]:
    """The signed parameters of a query, in their order.

    Values are signed without their encoding. So what follows a ``&`` in a value looks like another parameter, and what
    follows a line feed looks like another text. Whoever has the address for one part of an upload could make an address
    that replaces the object. Such values are refused, and so is a parameter that chooses the operation and is not
    signed. Values of ``response-*``, such as file names, may have ``&``, but only if no parameter chooses another
    operation.

    Raises:
        S3Error: a parameter is not signed, or what is signed has several meanings.
    """
    found = [part.partition("=") for part in query.split("&")]
    meant = [name for name, _, _ in found if unquote(name) in MEANT]
    if unsigned := [name for name in meant if name not in SIGNED]:
        raise S3Error("AccessDenied", f"the parameter {unsigned[0]} is not signed")
    answers = [name for name in meant if name.startswith(ANSWER)]
    if answers and not set(meant) <= HARMLESS.union(answers):
        raise S3Error("AccessDenied", f"version 2 cannot sign {ANSWER}* and a parameter that chooses the operation")
    signed = []
    for name, equals, value in sorted(found):
        if name in SIGNED:
            plain = unquote(value.replace("+", " "), "latin-1")
            if _CONTROLS.search(plain) or ("&" in plain and not name.startswith(ANSWER)):
                raise S3Error("AccessDenied", f"the value of {name} cannot be signed by version 2")
            signed.append(f"{name}{equals}{plain}")
    return signed
