from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import timedelta

from django.db import models

from storage.models.clock import Clock


class Generation(models.Model):
    """A span of time in the life of this database. Volumes remember the generations in which they were written (RACES
    12, ADR 18).

    While the cluster runs, a generation lasts for about a minute. A copy of the database that was made during one
    generation does not know the next generation, so it does not know the volumes that were written to during the next
    one.
    """

    id = models.BigAutoField(primary_key=True)
    token = models.UUIDField(default=uuid.uuid4, unique=True)
    begun_at = models.DateTimeField(db_default=Clock())

    def __str__(self) -> str:
        return f"generation {self.pk}"

    @property
    def name(self) -> str:
        """The name of the generation on volumes: its token as 32 hex digits."""
        return uuid.UUID(str(self.token)).hex

    @classmethod
    def latest(cls) -> int:
        """The number of the last generation; 0 if there is none."""
        return cls.objects.aggregate(last=models.Max("id"))["last"] or 0

    @classmethod
    def current(cls, span: timedelta) -> Generation | None:
        """The last generation if it began within the last ``span``, otherwise None.

        The answer is None too if the generation began in the future, because PostgreSQL's clock was set back.
        """
        return cls.objects.filter(pk=cls.latest(), begun_at__range=(Clock() - span, Clock())).first()

    @classmethod
    def begin(cls) -> Generation:
        """Begin the next generation. The caller is in no transaction: the row is durable before a volume gets it."""
        return cls.objects.create()

    @classmethod
    def known(cls, names: Iterable[str]) -> dict[str, int]:
        """Name → number of the generations among ``names`` that this database knows."""
        tokens = {uuid.UUID(name): name for name in names}
        rows = cls.objects.filter(token__in=list(tokens)).values_list("token", "id")
        return {tokens[token]: number for token, number in rows}

    @classmethod
    def forget(cls, older_than: timedelta) -> None:
        """Delete the generations that began more than ``older_than`` ago, because hardly any volume remembers them.

        A volume that still remembers a deleted generation is taken for a volume of another database.
        """
        cls.objects.filter(begun_at__lt=Clock() - older_than).exclude(pk=cls.latest()).delete()
