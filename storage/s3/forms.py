"""The form of a browser that uploads an object: the fields, and then the file while it arrives.

Source: "POST Object" in the Amazon S3 API Reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from rest_framework.exceptions import ParseError

from storage.api.uploads.bodies import FORM_OVERHEAD, BodyStream, FormEvent, PartHead, form_events, require_length
from storage.s3 import addresses, policies
from storage.s3.errors import S3Error

MEDIA_TYPE = "multipart/form-data"
FILE, KEY, POLICY = "file", "key", "policy"
FILE_NAME = "${filename}"  # In the field ``key``, this text stands for the name of the file.
CHECK_ORDER = "If it is specified, please check the order of the fields."
LARGEST_FIELDS = 20 << 10  # The most bytes that names and values of the fields before the file may have, as in S3.

_FOLDERS = re.compile(r".*[/\\]", re.DOTALL)


class Form:
    """A form whose fields have arrived, and whose file is read like a ``BodyStream``.

    Attributes:
        fields: the fields before the file: name in lower case → value. In ``key``, the file name is filled in.
        declared: the largest number of bytes that the file can have; None if the client did not announce it.
    """

    def __init__(self, environ: Mapping[str, Any]) -> None:
        """Read the fields. No byte of the file is needed for that.

        Args:
            environ: the WSGI environment of the request.

        Raises:
            S3Error: the body is no form, the fields are malformed or too large, ``key`` or ``file`` is missing, or no
                object may have the key.
            StorageError: the body is cut, or stalls.
        """
        require_length(environ)
        if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
            raise S3Error("RequestIsNotMultiPartContent", f"Bucket POST must be of the enclosure-type {MEDIA_TYPE}.")
        self._body = BodyStream(environ)
        self._events = _events(environ, self._body)
        self.declared = self._body.declared
        self.fields: dict[str, str] = {}
        self._least = 0
        self._most: int | None = None
        self._received = 0
        self._is_over = False
        name = _text(_FOLDERS.sub("", self._read_fields()).encode(errors="surrogateescape"))
        if not self.fields.get(KEY):
            raise S3Error(
                "UserKeyMustBeSpecified",
                f"Bucket POST must contain a field named '{KEY}'. {CHECK_ORDER}",
            )
        self.fields[KEY] = self.fields[KEY].replace(FILE_NAME, name)
        addresses.require_key(self.fields[KEY])

    def _read_fields(self) -> str:
        """Read the form as far as the head of the file, and return the file's name."""
        name, value, size = "", bytearray(), 0
        for event in self._events:
            if isinstance(event, PartHead):
                name = event.name.lower()
                if name == FILE:
                    return event.file_name
                size += len(name)
            elif event is None:
                self.fields[name] = _text(value)
                value.clear()
            else:
                size += len(event)
                value += event
            if size > LARGEST_FIELDS:
                raise S3Error(
                    "MaxPostPreDataLengthExceededError",
                    "Your POST request fields preceding the upload file were too large.",
                    details={"MaxSizeAllowed": str(LARGEST_FIELDS)},
                )
        raise S3Error("IncorrectNumberOfFilesInPostRequest", "POST requires exactly one file upload per request.")

    def require_policy(self, bucket: str, now: datetime) -> None:
        """Refuse a form that its policy does not allow. ``read`` later compares the size of the file with the policy.

        Args:
            bucket: the bucket of the address.
            now: the time.

        Raises:
            S3Error: the policy is malformed, has expired, or does not allow the form.
        """
        policy = policies.parse(self.fields[POLICY])
        policy.require({**self.fields, "bucket": bucket}, now)
        self._least, self._most = policy.least, policy.most

    def allow(self, limit: int) -> None:
        """Set the largest number of bytes that the file may have.

        Raises:
            BodyTooLarge: the client has declared more bytes.
        """
        self._body.allow(limit + FORM_OVERHEAD)

    def read(self) -> bytes:
        """The next bytes of the file; no bytes at its end. The fields after the file are read, and ignored.

        Raises:
            S3Error: the form is malformed, or the policy wants a smaller or a larger file.
            StorageError: the body is too large, is cut, or stalls.
        """
        for event in self._events:
            if isinstance(event, bytes) and not self._is_over:
                self._received += len(event)
                if self._most is not None and self._received > self._most:
                    raise self._size_error("EntityTooLarge", "exceeds the maximum", MaxSizeAllowed=self._most)
                return event
            self._is_over = True
        if self._received < self._least:
            raise self._size_error("EntityTooSmall", "is smaller than the minimum", MinSizeAllowed=self._least)
        return b""

    def _size_error(self, code: str, comparison: str, **limit: int) -> S3Error:
        details = {"ProposedSize": self._received, **limit}
        return S3Error(
            code,
            f"Your proposed upload {comparison} allowed size",
            details={name: str(number) for name, number in details.items()},
        )


def _events(environ: Mapping[str, Any], body: BodyStream) -> Iterator[FormEvent]:
    try:
        yield from form_events(environ, body)
    except ParseError as error:
        raise _malformed(str(error.detail)) from None


def _text(value: bytes | bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _malformed("a field is not UTF-8") from None


def _malformed(reason: str) -> S3Error:
    return S3Error("MalformedPOSTRequest", f"The body of your POST request is not well-formed {MEDIA_TYPE}: {reason}")
