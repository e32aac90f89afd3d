"""A request at the S3 door, and its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from storage.accounts.principals import Principal
from storage.conf import configuration
from storage.models import Bucket
from storage.s3 import addresses, documents, router
from storage.s3.errors import S3Error
from storage.s3.forms import KEY, Form
from storage.s3.signatures import canonical
from storage.s3.signatures.chain import Chain
from storage.services import objects

COPY_SOURCE = "x-amz-copy-source"


@dataclass(frozen=True)
class Reply:
    """The answer to a request.

    Attributes:
        status: the HTTP status code.
        headers: the header fields. Each character of a value is a byte.
        body: the bytes of the body, or an iterable of pieces, which the server closes at the end.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""

    @classmethod
    def of(cls, document: documents.Node, headers: Mapping[str, str] | None = None) -> Reply:
        """An answer with an XML document."""
        return cls(200, {"Content-Type": "application/xml", **(headers or {})}, documents.render(document))


@dataclass
class Request:
    """A request whose address is known. ``authenticate`` sets ``principal``, ``payload``, ``chain`` and ``form``.

    Attributes:
        environ: the WSGI environment.
        address: the bucket and the key.
        query: the parameters of the query: name → last value.
        operation: the name of the operation.
        principal: who sends the request.
        payload: the SHA-256 of the body in hex, or the word that stands in its place; None if the client sends neither.
        chain: checks the signatures of the chunks of the body; None if keys are off.
        form: the form that the body is; None for all operations but PostObject.
    """

    environ: dict[str, Any]
    address: addresses.Address
    query: dict[str, str]
    operation: str
    principal: Principal = field(init=False)
    payload: str | None = None
    chain: Chain | None = None
    form: Form | None = None

    @classmethod
    def read(cls, environ: dict[str, Any]) -> Request:
        """Read the address of a request.

        Raises:
            S3Error: the address is malformed, or there is no such operation.
        """
        address = addresses.parse(environ["RAW_URI"], environ.get("HTTP_HOST", ""), configuration().s3_domain)
        try:
            query = dict(parse_qsl(address.query, keep_blank_values=True, errors="strict", max_num_fields=100))
        except ValueError:
            raise S3Error("InvalidURI", "the query is not UTF-8, or has too many parameters") from None
        if "\0" in address.bucket or "\0" in address.key or any("\0" in value for value in query.values()):
            raise S3Error("InvalidArgument", "no name here has a NUL character, which PostgreSQL cannot store")
        operation = router.operation_of(
            environ["REQUEST_METHOD"],
            address.bucket,
            address.key,
            query,
            copies=canonical.header(environ, COPY_SOURCE) is not None,
        )
        return cls(environ, address, query, operation)

    def header(self, name: str) -> str | None:
        """The value of a header field by its name in lower case, as text; None if the request has no such field."""
        value = canonical.header(self.environ, name)
        if value is None:
            return None
        try:
            return value.encode("latin-1").decode()
        except UnicodeDecodeError:
            return value

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """The whole number in a parameter of the query. A number above ``high`` is taken as ``high``.

        Raises:
            S3Error: the parameter is no number, or below ``low``.
        """
        text = self.query.get(name, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 12) or int(text) < low:
            raise S3Error(
                "InvalidArgument", f"{name} is a whole number, at least {low}", details={"ArgumentName": name}
            )
        return min(int(text), high)

    def bucket(self) -> Bucket:
        """The bucket of the address.

        Raises:
            NoSuchBucket, Forbidden: the owner has no such bucket.
        """
        return objects.find_bucket(self.principal.owner, self.address.bucket)

    @property
    def key(self) -> str:
        """The key of the object that the request is about: that of the address, or of the form."""
        return self.address.key if self.form is None else self.form.fields[KEY]
