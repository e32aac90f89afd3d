"""Find the signature of a request or of a form, and its version."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from storage.s3.errors import S3Error
from storage.s3.signatures import canonical, version2, version4
from storage.s3.signatures.claim import Claim


def claimed(environ: Mapping[str, str]) -> Claim | None:
    """Read the signature of a request; None if the request has none.

    Args:
        environ: the WSGI environment of the request.

    Raises:
        S3Error: the signature is malformed, or of an algorithm that is not supported.
    """
    authorization = environ.get("HTTP_AUTHORIZATION", "").strip()
    parameters = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    is_new = "X-Amz-Algorithm" in parameters or canonical.SIGNATURE in parameters
    is_old = "AWSAccessKeyId" in parameters or "Signature" in parameters
    if is_new + is_old + bool(authorization) > 1:
        raise S3Error("InvalidArgument", "only one auth mechanism is allowed: the header or the query")
    if is_new:
        return version4.from_query(environ, parameters)
    if is_old:
        return version2.from_query(environ, parameters)
    return _in_header(environ, authorization) if authorization else None


def _in_header(environ: Mapping[str, str], authorization: str) -> Claim:
    algorithm, _, text = authorization.partition(" ")
    if algorithm == canonical.ALGORITHM:
        return version4.from_header(environ, text)
    if algorithm == "AWS":
        return version2.from_header(environ, text)
    if algorithm.startswith("AWS4-"):
        raise version4.unsupported()
    raise S3Error("InvalidArgument", "Unsupported Authorization Type")


def claimed_by_form(fields: Mapping[str, str]) -> Claim | None:
    """Read the signature of a form, which covers the form's policy; None if the form has no policy.

    Args:
        fields: the fields of the form: name in lower case → value.

    Raises:
        S3Error: the signature is missing or malformed, or of an algorithm that is not supported.
    """
    if "policy" not in fields:
        return None
    return version2.from_form(fields) if "awsaccesskeyid" in fields else version4.from_form(fields)
