"""The codes that problem documents can have, and their statuses. ``docs/errors.md`` explains each code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rest_framework import exceptions as drf
from rest_framework import serializers

from storage.api import errors
from storage.api.http.preconditions import PreconditionFailed
from storage.api.http.ranges import RangeNotSatisfiable
from storage.exceptions import StorageError

OF_VIEWS = (
    drf.MethodNotAllowed,
    drf.NotAcceptable,
    drf.UnsupportedMediaType,
    PreconditionFailed,
    RangeNotSatisfiable,
)
# The server and the proxy in front of it send these problems. Requests with these problems never reach the API.
OF_SERVERS = {
    "head_stalled": 408,
    "address_too_long": 414,
    "head_too_large": 431,
    "api_unavailable": 503,
    "api_late": 504,
}


def _own(kind: type[StorageError] = StorageError) -> Iterator[tuple[str, int]]:
    """The codes of the domain's exceptions that clients meet, with their statuses."""
    for child in kind.__subclasses__():
        status = next((errors.STATUS[parent] for parent in child.__mro__ if parent in errors.STATUS), None)
        if status is not None:
            yield child.code, status
        yield from _own(child)


STATUS_OF: Mapping[str, int] = {
    **dict(_own()),
    **{code: errors.STATUS[kind] for kind, code in errors.CODE.items() if kind in errors.STATUS},
    **{str(kind.default_code): kind.status_code for kind in OF_VIEWS},
    errors.INTERNAL: 500,
    **OF_SERVERS,
}
"""Code → HTTP status."""


class Problem(serializers.Serializer[object]):
    """A problem document (RFC 9457)."""

    type = serializers.ChoiceField(choices=["about:blank"])
    title = serializers.CharField(help_text="the reason phrase of the status")
    status = serializers.IntegerField(min_value=400, max_value=599)
    code = serializers.ChoiceField(
        choices=sorted(STATUS_OF), help_text="for programs; a new version may add codes: use the status then"
    )
    detail = serializers.CharField(help_text="what is wrong, in words that may change")
    errors = serializers.DictField(  # type: ignore[assignment]  # Serializer.errors is of no use here.
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="field → messages, if single fields are wrong",
    )
    request_id = serializers.CharField(
        required=False, max_length=128, help_text="the id of the request, which the log has too"
    )
