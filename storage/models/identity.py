from __future__ import annotations

from django.contrib.auth.models import User
from django.db import models
from django.db.models.functions import Now


class Identity(models.Model):
    """A person whom an OpenID provider knows, and the user who they are here.

    A provider promises that its subjects stay the same and are never given to somebody else. It promises neither of
    names and addresses of mail, so these do not lead to a user (OpenID Connect Core 1.0, §5.7).
    """

    issuer = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)
    user = models.ForeignKey(User, models.CASCADE, related_name="identities")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["issuer", "subject"], name="identity_unique"),)

    def __str__(self) -> str:
        return f"{self.subject} at {self.issuer}"
