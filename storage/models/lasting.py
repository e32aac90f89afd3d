from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from django.db import models, transaction

from storage.models.clock import Clock


class Lasting(models.Model):
    """A trouble that lasts, and since when. A worker looks for troubles every few seconds, and keeps this table."""

    name = models.CharField(max_length=100, primary_key=True)
    since = models.DateTimeField(db_default=Clock())

    def __str__(self) -> str:
        return self.name

    @classmethod
    def keep(cls, names: Collection[str]) -> None:
        """Record that these troubles are there now, and no others."""
        if set(names) == set(cls.objects.values_list("name", flat=True)):
            return
        with transaction.atomic():
            cls.objects.exclude(name__in=names).delete()
            Lasting.objects.bulk_create([Lasting(name=name) for name in names], ignore_conflicts=True)

    @classmethod
    def times(cls) -> dict[str, datetime]:
        """Trouble → since when it has lasted."""
        return dict(cls.objects.values_list("name", "since"))
