from __future__ import annotations

from django.db.models import TextChoices


class Kind(TextChoices):
    """The kinds of jobs with their priorities: jobs with a lower number go first.

    The priority is stored with each job. The steps of ten leave room for a new kind between two others.
    """

    priority: int

    def __new__(cls, value: str, *priority: int) -> Kind:
        # Each member below gives exactly one number. The signature also allows none, because a type checker reads
        # ``Kind(value)``, which only looks a member up, as a call of this method.
        kind = str.__new__(cls, value)
        kind._value_ = value
        (kind.priority,) = priority
        return kind

    INGEST = "ingest", 10
    INGEST_SEGMENT = "ingest segment", 20
    REPAIR = "repair", 30
    REFRESH_HEALTH = "refresh health", 40
    REBALANCE = "rebalance", 50
    REBUILD_SKETCH = "rebuild sketch", 60
    REPAIR_ALL = "repair all", 70
    TRACE = "trace losses", 80
    RECONCILE = "reconcile", 90
    DRAIN = "drain", 100
    RECLAIM = "reclaim", 110
    REBALANCE_ALL = "rebalance all", 120
    CENSUS = "census", 130
    AUDIT = "audit", 140
    ADOPT = "adopt", 150


def choices() -> list[tuple[str, str]]:
    """The choices of ``Job.kind``. Migrations name this function and list no kinds: a new kind needs no migration."""
    return Kind.choices
