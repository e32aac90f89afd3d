"""The signature of a request or of a form, whatever its version, and what the client says about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from storage.s3.addresses import Address
from storage.s3.errors import S3Error
from storage.s3.signatures.chain import Chain

SKEW = timedelta(minutes=15)  # A client's clock may differ from the server's by at most this time.
EPOCH = datetime.fromtimestamp(0, UTC)
TIME_FORM = "%Y%m%dT%H%M%SZ"
PAYLOAD = "x-amz-content-sha256"
UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True)
class Claim(ABC):
    """A signature that has been read, and not yet been checked.

    Attributes:
        key_id: the access key id.
        signature: the signature as the client writes it.
        payload: the SHA-256 of the body in hex, or the word that stands in its place.
        headers: header fields that a presigned address has in its query: the variable of the WSGI environment → value.
    """

    key_id: str
    signature: str
    payload: str
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    @abstractmethod
    def key(self, secret: str) -> bytes:
        """The key that signs this request."""

    @abstractmethod
    def require_time(self, now: datetime) -> None:
        """Refuse a signature that is too old, or whose time is in the future.

        Raises:
            S3Error: a presigned address has expired, or the client's clock differs by more than ``SKEW``.
        """

    @abstractmethod
    def require_signature(self, environ: Mapping[str, str], address: Address, key: bytes) -> None:
        """Refuse a request that does not have the signature that the holder of the secret would have made.

        Args:
            environ: the WSGI environment of the request.
            address: the address of the request.
            key: the result of ``key``.

        Raises:
            S3Error: the signature is wrong, or does not cover all that it must cover.
        """

    @abstractmethod
    def require_policy_signature(self, policy: str, key: bytes) -> None:
        """Refuse a form whose policy does not have the signature that the holder of the secret would have made.

        Args:
            policy: the policy as the form has it.
            key: the result of ``key``.

        Raises:
            S3Error: the signature is wrong.
        """

    @abstractmethod
    def chain(self, key: bytes) -> Chain | None:
        """The object that checks the signatures of the body's chunks; None if this version signs no chunks."""


def mismatch() -> S3Error:
    """The error of a request that has a wrong signature."""
    return S3Error("SignatureDoesNotMatch", "the request does not have the signature of this key")


def needed(fields: Mapping[str, str], name: str) -> str:
    """The value of a field that a form with a policy must have.

    Args:
        fields: the fields of the form: name in lower case → value.
        name: the name of the field.

    Raises:
        S3Error: the form has no such field, or the field is empty.
    """
    if not fields.get(name):
        raise S3Error(
            "InvalidArgument",
            f"Bucket POST must contain a field named '{name}'. If it is specified, please check the order of the "
            "fields.",
            details={"ArgumentName": name, "ArgumentValue": ""},
        )
    return fields[name]


def parsed_date(text: str | None) -> datetime:
    """The time in a header field such as Date (RFC 9110 §5.6.7), in UTC.

    Raises:
        S3Error: there is no such field, or the field has no time.
    """
    try:
        date = parsedate_to_datetime(text or "").astimezone(UTC)
    except (ValueError, OverflowError):
        date = None
    if date is None or date < EPOCH:
        raise S3Error("AccessDenied", "a signed request has a valid X-Amz-Date or Date field")
    return date


def require_clock(moment: datetime, now: datetime, written: str) -> None:
    """Refuse a request that was signed too long ago, or in the future.

    Args:
        moment: the time at which the client signed.
        now: the time of the server.
        written: the time at which the client signed, as the client writes it.

    Raises:
        S3Error: the client's clock differs by more than ``SKEW``.
    """
    if abs(now - moment) > SKEW:
        raise S3Error(
            "RequestTimeTooSkewed",
            "the clock of the client differs by more than 15 minutes",
            details={"RequestTime": written, "ServerTime": now.strftime("%Y-%m-%dT%H:%M:%SZ")},
        )
