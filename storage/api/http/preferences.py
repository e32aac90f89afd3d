"""The answer that a client prefers (RFC 7240)."""

from __future__ import annotations

from dataclasses import dataclass, field

from rest_framework.request import Request

from storage.api.parameters import switch

DISTRIBUTION = "distribution"


@dataclass(frozen=True)
class Preferences:
    """The answer that the client of an upload or a rebalance prefers.

    Attributes:
        respond_async: True for an answer at once, with the job that will do the work.
        distribution: True for an answer with the nodes of each chunk, which may be a long list.
        headers: the answer's header field that names the granted preferences; empty if there are none.
    """

    respond_async: bool
    distribution: bool
    headers: dict[str, str] = field(default_factory=dict)


def preferred(request: Request) -> Preferences:
    """Read the field ``Prefer`` and the query parameter ``?distribution=``, which takes precedence.

    Raises:
        InvalidRequest: ``distribution`` is neither true nor false.
    """
    asked = _asked(request.META.get("HTTP_PREFER", ""))
    minimal = asked.get("return") == "minimal" and DISTRIBUTION not in request.query_params
    granted = ["respond-async"] * ("respond-async" in asked) + ["return=minimal"] * minimal
    return Preferences(
        respond_async="respond-async" in asked,
        distribution=switch(request, DISTRIBUTION, default=not minimal),
        headers={"Preference-Applied": ", ".join(granted)} if granted else {},
    )


def _asked(text: str) -> dict[str, str]:
    """Name of each preference → its value.

    The first value counts if a preference occurs twice. Parameters of a preference are ignored.
    """
    asked: dict[str, str] = {}
    for preference in text.split(",") if text else ():
        name, _, value = preference.partition(";")[0].partition("=")
        asked.setdefault(name.strip().lower(), value.strip(' \t"').lower())
    return asked
