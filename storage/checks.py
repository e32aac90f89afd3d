"""System checks: the warnings about a bad configuration that ``manage.py check`` and every start show."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning, register

from storage.conf import configuration


@register()
def replication_is_redundant(**_: Any) -> list[CheckMessage]:
    """Warn about a replication factor of 1: the loss of one node then loses files (RACES 8)."""
    if configuration().replication_factor == 1:
        return [Warning("REPLICATION_FACTOR=1 keeps one copy: losing one node loses files", id="storage.W001")]
    return []


@register(deploy=True)
def strangers_are_kept_out(**_: Any) -> list[CheckMessage]:
    """Warn, in ``manage.py check --deploy``, about settings that are right only on one's own machine."""
    found: list[CheckMessage] = []
    if not configuration().auth_required:
        words = "AUTH_REQUIRED is not true: whoever reaches the API can read and delete everything"
        found.append(Warning(words, id="storage.W002"))
    if "*" in settings.ALLOWED_HOSTS:
        found.append(Warning("ALLOWED_HOSTS is not set: requests for any host are answered", id="storage.W003"))
    return found
