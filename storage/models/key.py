from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models
from django.db.models.functions import Now

from storage.models.statements.prepared import rows

_OPEN = """
    SELECT k.id, k.digest, k.sealed, k.scopes, k.bucket, k.prefix, u.id, u.username
      FROM storage_key k JOIN auth_user u ON u.id = k.owner_id
     WHERE k.id = %s AND k.revoked_at IS NULL AND u.is_active
       AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
"""
_USE = """
    UPDATE storage_key SET last_used_at = clock_timestamp()
     WHERE id = %s AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')
"""


class Scope(models.TextChoices):
    """Something that a key allows its bearer to do."""

    READ = "read", "read: list, show and download files"
    WRITE = "write", "write: upload, rename and rebalance files"
    DELETE = "delete", "delete: delete files"
    ADMIN = "admin", "admin: see the cluster and every job; with write, operate it"


@dataclass(frozen=True)
class KeyLimit:
    """The objects that a limited key opens, at the S3 door only: those of a bucket whose names begin with a prefix."""

    bucket: str
    prefix: str = ""

    def has(self, bucket: str, key: str) -> bool:
        """True if ``key``, the name of an object or the prefix of a listing, is within the limit."""
        return bucket == self.bucket and key.startswith(self.prefix)


class Key(models.Model):
    """A key with which programs of its owner use the API.

    The id is not secret. The secret is shown once. The row has the SHA-256 of the secret, and the secret in encrypted
    form.
    """

    id = models.CharField(max_length=20, primary_key=True, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="keys")
    name = models.CharField(max_length=100, blank=True, help_text="the person or program that has the key")
    scopes = models.CharField(max_length=100, help_text="what the key allows: words with spaces in between")
    bucket = models.CharField(
        max_length=63, blank=True, help_text="the only bucket that the key opens, by the S3 door; empty: no limit"
    )
    prefix = models.TextField(blank=True, help_text="the beginning of the keys of objects that it opens in the bucket")
    digest = models.BinaryField(editable=False, help_text="the SHA-256 of the secret")
    sealed = models.BinaryField(editable=False, help_text="the secret, encrypted under SECRET_KEY")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="empty: the key does not expire")
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("created_at", "id")

    def __str__(self) -> str:
        return self.id

    @property
    def granted(self) -> frozenset[Scope]:
        return frozenset(map(Scope, self.scopes.split()))

    @property
    def limit(self) -> KeyLimit | None:
        return KeyLimit(self.bucket, self.prefix) if self.bucket else None

    def state(self, now: datetime) -> str:
        """The state of the key at the time ``now``: revoked, expired or good."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "good"

    @classmethod
    def find_good(cls, key_id: str) -> Key | None:
        """The key and its owner, if the key is neither revoked nor expired, and its owner is active; otherwise None."""
        for pk, digest, sealed, scopes, bucket, prefix, owner_id, username in rows(_OPEN, [key_id]):
            owner = User(pk=owner_id, username=username)
            return cls(id=pk, digest=digest, sealed=sealed, scopes=scopes, bucket=bucket, prefix=prefix, owner=owner)
        return None

    @staticmethod
    def record_use(key_id: str) -> None:
        """Record that a key has been used. The row of a key is written at most once a minute."""
        rows(_USE, [key_id])
