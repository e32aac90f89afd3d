"""Read the signature of a request, and check it."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl

from storage.s3.errors import S3Error
from storage.s3.signatures import canonical

SKEW = timedelta(minutes=15)  # A client's clock may differ from the server's by this time.
LONGEST = 7 * 86400  # A presigned address is good for at most this many seconds.
SERVICE = "s3"
TERMINATOR = "aws4_request"
UNSIGNED = "UNSIGNED-PAYLOAD"
PAYLOAD = "x-amz-content-sha256"
TIME_FORM = "%Y%m%dT%H%M%SZ"

_PART = re.compile(r"\s*(Credential|SignedHeaders|Signature)\s*=\s*([^,\s]*)\s*")
_OLD = re.compile(r"AWS ")


@dataclass(frozen=True)
class Claim:
    """The signature of a request, and what the client says about it.

    Attributes:
        key_id: the access key id.
        date: the day of the credential, as ``YYYYMMDD``.
        region: the region of the credential. Every region is accepted.
        time: the time at which the client signed, as ``YYYYMMDDTHHMMSSZ``.
        fields: the names of the signed header fields, in lower case and sorted.
        signature: 64 hex digits.
        payload: the SHA-256 of the body in hex, or the word that the client signed in its place.
        expires: the number of seconds for which a presigned address is good; None for a signature in the header.
    """

    key_id: str
    date: str
    region: str
    time: str
    fields: tuple[str, ...]
    signature: str
    payload: str
    expires: int | None = None

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{SERVICE}/{TERMINATOR}"

    def key(self, secret: str) -> bytes:
        """The key that signs this request and the chunks of its body."""
        return canonical.signing_key(secret, self.date, self.region, SERVICE)


def claimed(environ: Mapping[str, str]) -> Claim | None:
    """Read the signature of a request; None if the request has none.

    Args:
        environ: the WSGI environment of the request.

    Raises:
        S3Error: the signature is malformed, or of a version that is not supported.
    """
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    parameters = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    if authorization and "X-Amz-Algorithm" in parameters:
        raise S3Error("InvalidArgument", "only one auth mechanism is allowed: the header or the query")
    if authorization:
        return _from_header(environ, authorization)
    if "X-Amz-Algorithm" in parameters or canonical.SIGNATURE in parameters:
        return _from_query(environ, parameters)
    if "AWSAccessKeyId" in parameters or "Signature" in parameters:
        raise _unsupported()
    return None


def _unsupported() -> S3Error:
    return S3Error("InvalidRequest", f"only the signature version {canonical.ALGORITHM} is supported")


def _from_header(environ: Mapping[str, str], authorization: str) -> Claim:
    algorithm, _, rest = authorization.strip().partition(" ")
    if algorithm == "AWS" or algorithm.startswith("AWS4-ECDSA"):
        raise _unsupported()
    if algorithm != canonical.ALGORITHM:
        raise S3Error("InvalidArgument", "Unsupported Authorization Type")
    found = {match[1]: match[2] for match in map(_PART.fullmatch, rest.split(",")) if match}
    if len(found) != 3 or not all(found.values()):
        raise S3Error("AuthorizationHeaderMalformed", "Credential, SignedHeaders and Signature are needed")
    payload = canonical.header(environ, PAYLOAD)
    if payload is None:
        raise S3Error("InvalidRequest", f"the header field {PAYLOAD} is missing")
    key_id, date, region = _credential(found["Credential"], "AuthorizationHeaderMalformed")
    time = _time_of(environ)
    if not time.startswith(date):
        raise S3Error("AuthorizationHeaderMalformed", "the date of the credential is not that of the request")
    return Claim(key_id, date, region, time, _names(found["SignedHeaders"]), found["Signature"], payload)


def _from_query(environ: Mapping[str, str], parameters: Mapping[str, str]) -> Claim:
    def needed(name: str) -> str:
        if not parameters.get(name):
            raise S3Error("AuthorizationQueryParametersError", f"the parameter {name} is missing")
        return parameters[name]

    if needed("X-Amz-Algorithm") != canonical.ALGORITHM:
        raise _unsupported()
    time, expires = needed("X-Amz-Date"), needed("X-Amz-Expires")
    if not re.fullmatch(r"[0-9]{1,7}", expires, re.ASCII) or not 1 <= int(expires) <= LONGEST:
        raise S3Error("AuthorizationQueryParametersError", f"X-Amz-Expires is a number from 1 to {LONGEST}")
    key_id, date, region = _credential(needed("X-Amz-Credential"), "AuthorizationQueryParametersError")
    if not time.startswith(date):
        raise S3Error("AuthorizationQueryParametersError", "the date of the credential is not that of the request")
    fields = _names(needed("X-Amz-SignedHeaders"))
    payload = parameters.get("X-Amz-Content-Sha256")
    if payload is None:
        payload = (canonical.header(environ, PAYLOAD) if PAYLOAD in fields else None) or UNSIGNED
    return Claim(key_id, date, region, time, fields, needed(canonical.SIGNATURE), payload, int(expires))


def claimed_by_form(fields: Mapping[str, str]) -> Claim | None:
    """Read the signature of a form, which covers the form's policy; None if the form has no policy.

    Args:
        fields: the fields of the form: name in lower case → value.

    Raises:
        S3Error: the signature is missing or malformed, or of a version that is not supported.
    """

    def needed(name: str) -> str:
        if not fields.get(name):
            raise S3Error(
                "InvalidArgument",
                f"Bucket POST must contain a field named '{name}'. If it is specified, please check the order of the "
                "fields.",
                details={"ArgumentName": name, "ArgumentValue": ""},
            )
        return fields[name]

    if "awsaccesskeyid" in fields or "signature" in fields:
        raise _unsupported()
    if "policy" not in fields:
        return None
    if needed("x-amz-algorithm") != canonical.ALGORITHM:
        raise _unsupported()
    key_id, date, region = _credential(needed("x-amz-credential"), "InvalidArgument")
    time = needed("x-amz-date")
    _moment(time)
    if not time.startswith(date):
        raise S3Error("InvalidArgument", "the date of the credential is not that of the form")
    return Claim(key_id, date, region, time, (), needed("x-amz-signature"), UNSIGNED)


def _credential(text: str, code: str) -> tuple[str, str, str]:
    """The key id, the date and the region of a credential. There may be slashes in a key id."""
    parts = text.rsplit("/", 4)
    if len(parts) != 5 or parts[3:] != [SERVICE, TERMINATOR] or not re.fullmatch(r"[0-9]{8}", parts[1], re.ASCII):
        raise S3Error(code, f"a credential has the form <key>/<date>/<region>/{SERVICE}/{TERMINATOR}")
    return parts[0], parts[1], parts[2]


def _names(text: str) -> tuple[str, ...]:
    return tuple(sorted(name.strip().lower() for name in text.split(";") if name.strip()))


def _time_of(environ: Mapping[str, str]) -> str:
    """The time of a request with a signature in the header: X-Amz-Date, otherwise Date."""
    if (time := canonical.header(environ, "x-amz-date")) is not None:
        _moment(time)
        return time
    try:
        date = parsedate_to_datetime(canonical.header(environ, "date") or "").astimezone(UTC)
    except (ValueError, OverflowError):
        raise S3Error("AccessDenied", "a signed request has a valid X-Amz-Date or Date field") from None
    return date.strftime(TIME_FORM)


def _moment(time: str) -> datetime:
    try:
        return datetime.strptime(time, TIME_FORM).replace(tzinfo=UTC)
    except ValueError:
        raise S3Error("AccessDenied", "the time of the signature has the form YYYYMMDDTHHMMSSZ") from None


def require_time(claim: Claim, now: datetime) -> None:
    """Refuse a signature that is too old, or whose time is in the future.

    Raises:
        S3Error: a presigned address has expired, or the client's clock differs by more than ``SKEW``.
    """
    moment = _moment(claim.time)
    if claim.expires is None:
        if abs(now - moment) > SKEW:
            raise S3Error(
                "RequestTimeTooSkewed",
                "the clock of the client differs by more than 15 minutes",
                details={"RequestTime": claim.time, "ServerTime": now.strftime("%Y-%m-%dT%H:%M:%SZ")},
            )
    elif moment - now > SKEW:
        raise S3Error("AccessDenied", "Request is not valid yet")
    elif now - moment > timedelta(seconds=claim.expires):
        raise S3Error("AccessDenied", "Request has expired")


def require_signature(claim: Claim, environ: Mapping[str, str], raw_path: str, raw_query: str, key: bytes) -> None:
    """Refuse a request that does not have the signature that the holder of the secret would have made.

    Args:
        claim: the signature.
        environ: the WSGI environment of the request.
        raw_path: the path of the address as the client sent it.
        raw_query: the query as the client sent it.
        key: the result of ``claim.key``.

    Raises:
        S3Error: the signature is wrong, or does not cover the host or a field whose name begins with ``x-amz-``.
    """
    _require_covered(claim, environ)
    query = canonical.query(raw_query)
    fields = [(name, canonical.header(environ, name) or "") for name in claim.fields]
    for path in canonical.paths(raw_path):
        request = canonical.request(environ["REQUEST_METHOD"], path, query, fields, claim.payload)
        signature = canonical.sign(key, canonical.string_to_sign(claim.time, claim.scope, request))
        if hmac.compare_digest(signature.encode(), claim.signature.encode("latin-1", "replace")):
            return
    raise S3Error("SignatureDoesNotMatch", "the request does not have the signature of this key")


def require_policy_signature(claim: Claim, policy: str, key: bytes) -> None:
    """Refuse a form whose policy does not have the signature that the holder of the secret would have made.

    Args:
        claim: the signature.
        policy: the policy as the form has it.
        key: the result of ``claim.key``.

    Raises:
        S3Error: the signature is wrong.
    """
    if not hmac.compare_digest(canonical.sign(key, policy).encode(), claim.signature.encode()):
        raise S3Error("SignatureDoesNotMatch", "the policy does not have the signature of this key")


def _require_covered(claim: Claim, environ: Mapping[str, str]) -> None:
    """Require a signature of the host and of all ``x-amz-*`` fields.

    If such a field could stay unsigned, a person with a presigned address could add one, such as the source of a copy.
    """
    signed = set(claim.fields)
    if "host" not in signed:
        raise S3Error("AccessDenied", "the host is not signed")
    for key in environ:
        if key.startswith("HTTP_X_AMZ_"):
            name = canonical.name_of(key)
            if name not in signed and name != PAYLOAD:
                raise S3Error("AccessDenied", f"the header field {name} is not signed")
