"""How a client prefers to be answered (RFC 7240)."""

from __future__ import annotations

from dataclasses import dataclass, field

from rest_framework.request import Request

from storage.api.parameters import switch

DISTRIBUTION = "distribution"


@dataclass(frozen=True)
class Preferences:
    """What an upload or a rebalance is asked to answer.

    Attributes:
        respond_async: at once, with the job that will do it.
        distribution: with the nodes of each chunk, which may be many.
        headers: the answer's field that says what has been granted.
    """

    respond_async: bool
    distribution: bool
    headers: dict[str, str] = field(default_factory=dict)


def preferred(request: Request) -> Preferences:
    """What the field ``Prefer`` asks for, and ``?distribution=``, which goes before it.

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
    """Name of each preference → its value; the first counts if there are two, and their own parameters are ignored."""
    asked: dict[str, str] = {}
    for preference in text.split(",") if text else ():
        name, _, value = preference.partition(";")[0].partition("=")
        asked.setdefault(name.strip().lower(), value.strip(' \t"').lower())
    return asked
