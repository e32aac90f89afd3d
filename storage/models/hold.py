from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.db import models

from storage.models.clock import Clock

LONGEST = timedelta(days=2)  # A hold with more than two days left was begun before PostgreSQL's clock was set back.


class Hold(models.Model):
    """A backup that keeps reclaim from removing anything (RACES 39).

    A hold ends by itself: the backup postpones the end while it runs. After a backup was killed, reclaim therefore goes
    on soon.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    ends_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"hold until {self.ends_at}"

    @classmethod
    def begin(cls, span: timedelta) -> Hold:
        """Begin a hold of this length, at most ``LONGEST``. Holds that are over are deleted."""
        cls.objects.filter(ends_at__lt=Clock()).delete()
        return cls.objects.create(ends_at=Clock() + span)

    def put_off(self, span: timedelta) -> bool:
        """Let the hold end ``span`` from now. Returns False if the hold was over already, so reclaim may have run."""
        return bool(Hold.objects.filter(pk=self.pk, ends_at__gt=Clock()).update(ends_at=Clock() + span))

    @classmethod
    def last_end(cls) -> datetime | None:
        """The time until which reclaim is held back as far as is known now; None if it is not held back."""
        present = cls.objects.filter(ends_at__range=(Clock(), Clock() + LONGEST))
        return present.order_by("ends_at").values_list("ends_at", flat=True).last()
