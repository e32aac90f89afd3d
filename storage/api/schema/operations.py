"""Operations: what the schema says about one method of a view.

drf-spectacular finds the addresses, and makes components of serializers. This module adds what all operations share:
the view's query parameters, the problems that every request can meet, and the key that a request needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uritemplate
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, PolymorphicProxySerializer
from rest_framework.serializers import BaseSerializer

from storage.api.authorization import is_open, is_operation, is_unlimited, scopes_of
from storage.api.schema import fields
from storage.api.schema.problems import STATUS_OF, Problem
from storage.conf import configuration

JSON, PROBLEM = "application/json", "application/problem+json"
ALWAYS = (
    "invalid_request",
    "malformed_request",
    "head_stalled",
    "address_too_long",
    "head_too_large",
    "internal_error",
    "database_unavailable",
    "api_unavailable",
    "api_late",
)
WITH_BODY = ("body_truncated", "body_stalled", "body_too_large", "form_too_large", "unsupported_media_type")
WITH_KEYS = ("unauthenticated", "forbidden")
HEADERS_OF_PROBLEMS: Mapping[int, tuple[str, ...]] = {
    401: ("WWW-Authenticate",),
    416: ("Content-Range",),
    429: ("Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
    503: ("Retry-After",),
}
KEYS: Mapping[str, Mapping[str, str]] = {
    "basic": {"type": "http", "scheme": "basic", "description": "the key's id as the name, its secret as the password"},
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "KEY:SECRET", "description": "KEY:SECRET"},
}

Document = type[BaseSerializer[Any]] | PolymorphicProxySerializer | Mapping[str, Any]
"""What a body holds: a serializer, one of several serializers, or a JSON Schema."""

Replies = Mapping[int, "Reply | tuple[Reply, ...]"]
"""Status → the answer, or several answers of different types."""

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Reply:
    """One of the answers to an operation.

    Attributes:
        words: what the answer means.
        document: the body of the answer; None if the answer has no body.
        headers: the names of the answer's header fields, which ``fields.ANSWER`` describes.
        may_have: the names of the header fields that only some of these answers have.
        media_type: the type of the body.
        example: an example of the body; None if there is no example.
    """

    words: str
    document: Document | None = None
    headers: tuple[str, ...] = ()
    may_have: tuple[str, ...] = ()
    media_type: str = JSON
    example: Any = None


@dataclass(frozen=True)
class Operation:
    """What one method of a view does.

    Attributes:
        summary: what the method does, in a few words. The id of the operation is made of the words of the summary.
        replies: status → the answer, or several answers of different types.
        problems: the codes of the problems that the method can answer with, besides those that every method has.
        headers: the names of the header fields that the method reads, which ``fields.REQUEST`` describes.
        bodies: media type → the body that the method takes; empty if the view's serializer describes the body, or if
            the method takes no body.
        needs_body: whether a request without a body is refused; None if this follows from the view's serializer.
        query: query parameter → its description, for parameters that ``fields.QUERY`` does not describe well.
    """

    summary: str
    replies: Replies
    problems: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    bodies: Mapping[str, Document] = field(default_factory=dict)
    needs_body: bool | None = None
    query: Mapping[str, fields.Described] = field(default_factory=dict)


def describe(summary: str, replies: Replies, **more: Any) -> Callable[[Method], Method]:
    """Decorate a method of a view with its description: the arguments are those of ``Operation``."""

    def decorate(method: Method) -> Method:
        method.operation = Operation(summary, replies, **more)  # type: ignore[attr-defined]
        return method

    return decorate


def by_status(codes: tuple[str, ...]) -> dict[int, list[str]]:
    """Status → the codes among ``codes`` that have this status."""
    statuses = sorted({STATUS_OF[code] for code in codes})
    return {status: [code for code in codes if STATUS_OF[code] == status] for status in statuses}


class Schema(AutoSchema):
    """The part of the schema that is about one method of a view, which ``describe`` has described."""

    @property
    def operation(self) -> Operation:
        method = getattr(self.view, self.method.lower())
        found: Operation | None = getattr(method, "operation", None)
        if found is None:
            raise TypeError(f"{type(self.view).__name__}.{self.method.lower()} lacks its description: see describe")
        return found

    @property
    def needs_key(self) -> bool:
        return configuration().auth_required and not is_open(self.path)

    def get_operation_id(self) -> str:
        words = re.sub(r"\W+", "_", self.operation.summary).lower()
        return f"{words}_under_a_name" if self.path.endswith("/{file_name}") else words

    def get_summary(self) -> str:
        return self.operation.summary

    def get_description(self) -> str:  # type: ignore[override]  # drf-spectacular passes no arguments
        text = super().get_description()
        if not self.needs_key:
            return text
        scopes = " and ".join(f"`{scope.value}`" for scope in scopes_of(self.method, self.path))
        return f"{text}\n\nThe key needs the scope {scopes}."

    def get_tags(self) -> list[str]:
        return [self.path.split("/")[1] or "root"]

    def get_auth(self) -> list[dict[str, list[str]]]:
        if not self.needs_key:
            return []
        for name, scheme in KEYS.items():
            component = ResolvedComponent(name, ResolvedComponent.SECURITY_SCHEMA, object=name, schema=dict(scheme))
            self.registry.register_on_missing(component)
        return [{name: []} for name in KEYS]

    def get_override_parameters(self) -> list[Any]:
        view: Any = self.view
        wanted = [
            *_parameters(OpenApiParameter.PATH, fields.PATH, uritemplate.variables(self.path)),
            *_parameters(OpenApiParameter.QUERY, {**fields.QUERY, **self.operation.query}, view.parameters),
            *_parameters(OpenApiParameter.HEADER, fields.REQUEST, self.operation.headers),
        ]
        for (name, required), statuses in self._statuses_of_headers().items():
            words, schema = fields.ANSWER[name]
            wanted.append(
                OpenApiParameter(
                    name,
                    dict(schema),
                    OpenApiParameter.HEADER,
                    required=required,
                    description=words,
                    response=statuses,
                )
            )
        return wanted

    def get_request_serializer(self) -> Any:
        if self.operation.bodies:
            return dict(self.operation.bodies)
        return super().get_request_serializer() if hasattr(self.view, "get_serializer") else None

    def _get_request_body(self, direction: Any = "request") -> Any:
        body = super()._get_request_body(direction)  # type: ignore[no-untyped-call]
        if self.operation.needs_body is not None:
            body["required"] = self.operation.needs_body
        return body

    def get_response_serializers(self) -> Any:
        found: dict[tuple[int, str], OpenApiResponse] = {}
        for status, replies in self.operation.replies.items():
            for reply in replies if isinstance(replies, tuple) else (replies,):
                examples = [] if reply.example is None else [OpenApiExample(reply.words, reply.example)]
                found[status, reply.media_type] = OpenApiResponse(reply.document, reply.words, examples)
        for status, codes in self._problems().items():
            words = " or ".join(f"`{code}`" for code in codes)
            found[status, PROBLEM] = OpenApiResponse(Problem, words)
        return found

    def _problems(self) -> dict[int, list[str]]:
        codes = [*self.operation.problems, *ALWAYS]
        codes += ("too_many_own_transfers",) if "too_many_transfers" in codes else ()
        codes += WITH_BODY if self.method in ("POST", "PUT", "PATCH") else ()
        codes += WITH_KEYS if self.needs_key else ()
        codes += ("forbidden",) if is_operation(self.method, self.path) else ()
        codes += () if is_unlimited(self.path) else ("rate_limited",)
        codes += ("not_acceptable",) if len(self.view.renderer_classes) > 1 else ()
        return by_status(tuple(dict.fromkeys(codes)))

    def _statuses_of_headers(self) -> dict[tuple[str, bool], list[int]]:
        """(Name of a header field, True if every such answer has it) → the statuses of the answers with this field."""
        statuses: dict[tuple[str, bool], list[int]] = {}
        for status in self._problems():
            for name in HEADERS_OF_PROBLEMS.get(status, ()):
                statuses.setdefault((name, not name.startswith("RateLimit-")), []).append(status)
        for status, replies in self.operation.replies.items():
            for reply in replies if isinstance(replies, tuple) else (replies,):
                for name in (*reply.headers, *reply.may_have):
                    statuses.setdefault((name, name in reply.headers), []).append(status)
        return statuses


def _parameters(location: Any, described: Mapping[str, fields.Described], names: Any) -> list[OpenApiParameter]:
    return [
        OpenApiParameter(
            name,
            dict(described[name][1]),
            location,
            required=location == OpenApiParameter.PATH,
            description=described[name][0],
        )
        for name in names
    ]
