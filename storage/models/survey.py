from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models


class LastSurvey(models.Model):
    """The last survey of the sketches, for requests that cannot wait for a new one. The table has one row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    taken_at = models.DateTimeField()
    document = models.JSONField()

    class Meta:
        constraints = (models.CheckConstraint(condition=models.Q(id=1), name="last_survey_is_single"),)

    def __str__(self) -> str:
        return self.taken_at.isoformat()

    @classmethod
    def keep(cls, taken_at: datetime, document: dict[str, Any]) -> None:
        """Replace the last survey by this one."""
        cls.objects.update_or_create(id=1, defaults={"taken_at": taken_at, "document": document})
