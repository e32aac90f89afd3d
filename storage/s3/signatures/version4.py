"""Signature Version 4 of AWS, as S3 uses it.

Source: "Authenticating Requests (AWS Signature Version 4)" in the Amazon S3 API Reference.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from storage.s3.addresses import Address
from storage.s3.errors import S3Error
from storage.s3.signatures import canonical
from storage.s3.signatures.chain import Chain
from storage.s3.signatures.claim import (
    PAYLOAD,
    SKEW,
    TIME_FORM,
    UNSIGNED,
    Claim,
    mismatch,
    needed,
    parsed_date,
    require_clock,
)

LONGEST = 7 * 86400  # A presigned address is good for at most this many seconds.
SERVICE = "s3"
TERMINATOR = "aws4_request"

_PART = re.compile(r"\s*(Credential|SignedHeaders|Signature)\s*=\s*([^,\s]*)\s*")


@dataclass(frozen=True)
class Version4(Claim):
    """A signature of version 4: 64 hex digits.

    Attributes:
        date: the day of the credential, as ``YYYYMMDD``.
        region: the region of the credential. Every region is accepted.
        time: the time at which the client signed, as ``YYYYMMDDTHHMMSSZ``.
        fields: the names of the signed header fields, in lower case and sorted.
        expires: the number of seconds for which a presigned address is good; None for a signature in the header.
    """

    date: str
    region: str
    time: str
    fields: tuple[str, ...] = ()
    expires: int | None = None

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{SERVICE}/{TERMINATOR}"

    def key(self, secret: str) -> bytes:
        return canonical.signing_key(secret, self.date, self.region, SERVICE)

    def chain(self, key: bytes) -> Chain:
        return Chain(self.time, self.scope, self.signature, key)

    def require_time(self, now: datetime) -> None:
        moment = _moment(self.time)
        if self.expires is None:
            require_clock(moment, now, self.time)
        elif moment - now > SKEW:
            raise S3Error("AccessDenied", "Request is not valid yet")
        elif now - moment > timedelta(seconds=self.expires):
            raise S3Error("AccessDenied", "Request has expired")

    def require_signature(self, environ: Mapping[str, str], address: Address, key: bytes) -> None:
        self._require_covered(environ)
        query = canonical.query(address.query)
        fields = [(name, canonical.header(environ, name) or "") for name in self.fields]
        for path in canonical.paths(address.path):
            request = canonical.request(environ["REQUEST_METHOD"], path, query, fields, self.payload)
            signature = canonical.sign(key, canonical.string_to_sign(self.time, self.scope, request))
            if hmac.compare_digest(signature.encode(), self.signature.encode("latin-1", "replace")):
                return
        raise mismatch()

    def require_policy_signature(self, policy: str, key: bytes) -> None:
        if not hmac.compare_digest(canonical.sign(key, policy).encode(), self.signature.encode()):
            raise mismatch()

    def _require_covered(self, environ: Mapping[str, str]) -> None:
        """Require a signature of the host and of all ``x-amz-*`` fields.

        If such a field could stay unsigned, a person with a presigned address could add one, such as the source of a
        copy.
        """
        signed = set(self.fields)
        if "host" not in signed:
            raise S3Error("AccessDenied", "the host is not signed")
        for key in environ:
            if key.startswith("HTTP_X_AMZ_"):
                name = canonical.name_of(key)
                if name not in signed and name != PAYLOAD:
                    raise S3Error("AccessDenied", f"the header field {name} is not signed")


def from_header(environ: Mapping[str, str], text: str) -> Version4:
    """Read the signature in the field Authorization.

    Args:
        environ: the WSGI environment of the request.
        text: the field without the name of the algorithm.

    Raises:
        S3Error: the signature is malformed.
    """
    found = {match[1]: match[2] for match in map(_PART.fullmatch, text.split(",")) if match}
    if len(found) != 3 or not all(found.values()):
        raise S3Error("AuthorizationHeaderMalformed", "Credential, SignedHeaders and Signature are needed")
    payload = canonical.header(environ, PAYLOAD)
    if payload is None:
        raise S3Error("InvalidRequest", f"the header field {PAYLOAD} is missing")
    key_id, date, region = _credential(found["Credential"], "AuthorizationHeaderMalformed")
    time = _time_of(environ)
    if not time.startswith(date):
        raise S3Error("AuthorizationHeaderMalformed", "the date of the credential is not that of the request")
    return Version4(key_id, found["Signature"], payload, date, region, time, _names(found["SignedHeaders"]))


def from_query(environ: Mapping[str, str], parameters: Mapping[str, str]) -> Version4:
    """Read the signature of a presigned address.

    Args:
        environ: the WSGI environment of the request.
        parameters: the parameters of the query: name → value.

    Raises:
        S3Error: the signature is malformed, or its algorithm is not supported.
    """

    def found(name: str) -> str:
        if not parameters.get(name):
            raise S3Error("AuthorizationQueryParametersError", f"the parameter {name} is missing")
        return parameters[name]

    if found("X-Amz-Algorithm") != canonical.ALGORITHM:
        raise unsupported()
    time, expires = found("X-Amz-Date"), found("X-Amz-Expires")
    if not re.fullmatch(r"[0-9]{1,7}", expires, re.ASCII) or not 1 <= int(expires) <= LONGEST:
        raise S3Error("AuthorizationQueryParametersError", f"X-Amz-Expires is a number from 1 to {LONGEST}")
    key_id, date, region = _credential(found("X-Amz-Credential"), "AuthorizationQueryParametersError")
    if not time.startswith(date):
        raise S3Error("AuthorizationQueryParametersError", "the date of the credential is not that of the request")
    fields = _names(found("X-Amz-SignedHeaders"))
    payload = parameters.get("X-Amz-Content-Sha256")
    if payload is None:
        payload = (canonical.header(environ, PAYLOAD) if PAYLOAD in fields else None) or UNSIGNED
    return Version4(key_id, found(canonical.SIGNATURE), payload, date, region, time, fields, int(expires))


def from_form(fields: Mapping[str, str]) -> Version4:
    """Read the signature of a form, which covers the form's policy.

    Args:
        fields: the fields of the form: name in lower case → value.

    Raises:
        S3Error: the signature is missing or malformed, or its algorithm is not supported.
    """
    if needed(fields, "x-amz-algorithm") != canonical.ALGORITHM:
        raise unsupported()
    key_id, date, region = _credential(needed(fields, "x-amz-credential"), "InvalidArgument")
    time = needed(fields, "x-amz-date")
    _moment(time)
    if not time.startswith(date):
        raise S3Error("InvalidArgument", "the date of the credential is not that of the form")
    return Version4(key_id, needed(fields, "x-amz-signature"), UNSIGNED, date, region, time)


def unsupported() -> S3Error:
    """The error of a signature that another algorithm has made, such as AWS4-ECDSA-P256-SHA256."""
    return S3Error("InvalidRequest", f"of the algorithms of version 4, only {canonical.ALGORITHM} is supported")


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
    return parsed_date(canonical.header(environ, "date")).strftime(TIME_FORM)


def _moment(time: str) -> datetime:
    try:
        return datetime.strptime(time, TIME_FORM).replace(tzinfo=UTC)
    except ValueError:
        raise S3Error("AccessDenied", "the time of the signature has the form YYYYMMDDTHHMMSSZ") from None
