"""Cross-origin requests: pages of the origins in CORS_ALLOWED_ORIGINS may use the S3 door, if they sign."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings

from storage.s3.errors import S3Error
from storage.s3.request import Reply

METHODS = "GET, HEAD, PUT, POST, DELETE"
EXPOSED = (
    "Accept-Ranges, Content-Length, Content-Range, ETag, Last-Modified, x-amz-checksum-crc32, x-amz-checksum-crc32c, "
    "x-amz-checksum-crc64nvme, x-amz-checksum-sha1, x-amz-checksum-sha256, x-amz-checksum-type, x-amz-request-id"
)
MAX_AGE = "3600"  # The number of seconds for which a browser need not ask again.


def fields(environ: Mapping[str, str]) -> dict[str, str]:
    """The header fields that let the page that sends a request read the answer; none for other pages."""
    if not settings.CORS_ALLOWED_ORIGINS:
        return {}
    origin = environ.get("HTTP_ORIGIN")
    if origin not in settings.CORS_ALLOWED_ORIGINS:
        return {"Vary": "Origin"}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED, "Vary": "Origin"}


def preflight(environ: Mapping[str, str]) -> Reply:
    """The answer to a browser that asks whether a page may send a request. A browser asks this without a signature.

    Raises:
        S3Error: the page may not send requests.
    """
    if environ.get("HTTP_ORIGIN") not in settings.CORS_ALLOWED_ORIGINS:
        raise S3Error("AccessDenied", "CORSResponse: This CORS request is not allowed: see CORS_ALLOWED_ORIGINS")
    asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    headers = {"Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": MAX_AGE}
    return Reply(200, {**headers, **({"Access-Control-Allow-Headers": asked} if asked else {})})
