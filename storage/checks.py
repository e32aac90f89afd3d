"""System checks: what ``manage.py check`` and every start say about a configuration that will disappoint."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Warning, register

from storage.conf import configuration


@register()
def replication_is_redundant(**_: Any) -> list[CheckMessage]:
    """RF 1 means that the loss of one node loses files (RACES 8)."""
    if configuration().replication_factor == 1:
        return [Warning("REPLICATION_FACTOR=1 keeps one copy: losing one node loses files", id="storage.W001")]
    return []
