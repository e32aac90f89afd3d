"""The queues that workers take jobs from.

The processes that start workers read the names from this module, because the models cannot be imported before Django is
set up.
"""

from django.db.models import TextChoices


class Queue(TextChoices):
    INGEST = "ingest"
    MAINTENANCE = "maintenance"
