from __future__ import annotations

from functools import lru_cache

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, models
from django.db.models.functions import Now

from storage.models.content import Content

NOBODY = "nobody"


@lru_cache(maxsize=1)
def nobody() -> User:
    """The owner of all files while API keys are off: a real row that cannot log in (RACES 30) and never changes."""
    user, _ = User.objects.get_or_create(username=NOBODY, defaults={"is_active": False, "password": "!"})
    return user


class File(models.Model):
    """One owner's named entry for a content."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="files", db_index=False)
    content = models.ForeignKey(Content, models.PROTECT, related_name="files")
    name = models.CharField(max_length=255)
    replication_factor = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    modified_at = models.DateTimeField(db_default=Now(), help_text="when its name or factor was changed last")

    class Meta:
        constraints = (models.UniqueConstraint(fields=["owner", "content"], name="file_one_per_owner_and_content"),)
        indexes = (models.Index(fields=["owner", "id"], name="file_of_owner"),)
        ordering = ("id",)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def count_ready(cls, owner: User | None = None) -> int:
        """The number of files whose content is ready: the owner's files, or everybody's if ``owner`` is None.

        One statement subtracts the files under ingest from the tally of all files, so both figures are of one moment.
        The files under ingest are counted row by row, but there are few of them.
        """
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT (SELECT coalesce(sum(amount), 0) FROM storage_tally
                         WHERE what = 'files' AND (%(owner)s::bigint IS NULL OR key = %(owner)s))
                     - (SELECT count(*) FROM storage_content c JOIN storage_file f ON f.content_id = c.id
                         WHERE c.state = 'ingesting' AND (%(owner)s::bigint IS NULL OR f.owner_id = %(owner)s))
                """,
                {"owner": owner.pk if owner else None},
            )
            return int(cursor.fetchone()[0])

    def remove(self) -> set[int]:
        """Delete this file, and also its content if no other file is left on it; return the row ids of the chunks.

        The caller holds the lock of the content's row. The caller condemns all returned chunks of its transaction at
        once, in one order (RACES 6).
        """
        content = self.content
        self.delete()
        return set() if content.files.exists() else content.remove()
