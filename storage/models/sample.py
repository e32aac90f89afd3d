from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.db import connection, models

KEPT = timedelta(days=30)
EACH_MINUTE = timedelta(days=1)  # The age up to which all samples are kept. Of older samples, one an hour is kept.


class Sample(models.Model):
    """Figures of the cluster at one minute, for plots over time. The table has a few thousand rows at most."""

    at = models.DateTimeField(primary_key=True)
    figures = models.JSONField()

    class Meta:
        ordering = ("at",)

    def __str__(self) -> str:
        return self.at.isoformat()

    @classmethod
    def keep(cls, figures: dict[str, Any]) -> None:
        """Keep the sample of this minute, unless there is one already, and thin out older samples."""
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO storage_sample (at, figures) VALUES (date_trunc('minute', clock_timestamp()), %s::jsonb)
                ON CONFLICT DO NOTHING
                """,
                [json.dumps(figures)],
            )
            cursor.execute(
                """
                DELETE FROM storage_sample
                 WHERE at < now() - %(kept)s::float8 * interval '1 second' OR at > now() + interval '1 hour'
                    OR (at < now() - %(each_minute)s::float8 * interval '1 second' AND extract(minute FROM at) <> 0)
                """,
                {"kept": KEPT.total_seconds(), "each_minute": EACH_MINUTE.total_seconds()},
            )
