"""System checks: the warnings about a bad configuration that ``manage.py check`` and every start show."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Warning, register

from storage.conf import configuration


@register()
def replication_is_redundant(**_: Any) -> list[CheckMessage]:
    """Warn about a replication factor of 1: the loss of one node then loses files (RACES 8)."""
    if configuration().replication_factor == 1:
        return [Warning("REPLICATION_FACTOR=1 keeps one copy: losing one node loses files", id="storage.W001")]
    return []
