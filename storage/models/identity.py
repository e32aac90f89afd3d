from __future__ import annotations

from django.contrib.auth.models import User
from django.db import models
from django.db.models.functions import Now


class Identity(models.Model):
    """A person whom an OpenID provider knows, and the Django user as whom this person logs in.

    A provider promises that a person's subject (the provider's id of the person) never changes and is never given to
    another person. A name or a mail address may later belong to another person, so no user is found by it (OpenID
    Connect Core 1.0, §5.7).
    """

    issuer = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)
    user = models.ForeignKey(User, models.CASCADE, related_name="identities")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["issuer", "subject"], name="identity_unique"),)

    def __str__(self) -> str:
        return f"{self.subject} at {self.issuer}"
