from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, models
from django.db.models import F, Func
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan, TupleLessThan
from django.db.models.functions import Collate, Now

from storage.models.content import Content
from storage.models.names import MAX_LENGTH, end_of_prefix

NOBODY = "nobody"


@lru_cache(maxsize=1)
def nobody() -> User:
    """The owner of all files while API keys are off: a user with a row, who cannot log in (RACES 30) or change."""
    user, _ = User.objects.get_or_create(username=NOBODY, defaults={"is_active": False, "password": "!"})
    return user


BY_CODE_POINT = Collate("name", "C")
"""The name, compared by code points, as in the index ``file_by_name``."""

FOLDER = Collate(Func(F("name"), template="coalesce(substring(%(expressions)s from '^.*/'), '')"), "C")
"""The folder of the name with the slash at its end, compared by code points; empty for a name without a folder."""

SORT_KEYS = {"created_at": None, "file_name": BY_CODE_POINT, "file_size": F("size")}
"""Sort key → its column. ``created_at`` needs no column: row ids ascend in the order in which files were made."""


@dataclass(frozen=True)
class Sort:
    """An order of files. Files with equal sort keys are in the order of their row ids.

    Attributes:
        key: one of ``SORT_KEYS``.
        descending: True if the largest comes first.
    """

    key: str = "created_at"
    descending: bool = False

    def position(self, file: File) -> Position:
        """The position of a file in this order."""
        return {"created_at": None, "file_name": file.name, "file_size": file.size}[self.key], file.pk


Position = tuple[str | int | None, int]
"""The value of a file's sort key, and the file's row id. The value is None if the sort key is ``created_at``."""


UPLOADED = Sort()


class FileQuerySet(models.QuerySet["File"]):
    def beginning_with(self, prefix: str) -> Self:
        """The files whose names begin with the prefix. Upper and lower case are distinguished."""
        files = self.alias(by_code_point=BY_CODE_POINT).filter(by_code_point__gte=prefix)
        end = end_of_prefix(prefix)
        return files if end is None else files.filter(by_code_point__lt=end)

    def sorted(self, sort: Sort, after: Position | None = None) -> Self:
        """The files in an order: all of them, or only the files after a position."""
        key = SORT_KEYS[sort.key]
        files = self
        if key is None:
            if after is not None:
                files = files.filter(id__lt=after[1]) if sort.descending else files.filter(id__gt=after[1])
            return files.order_by("-id" if sort.descending else "id")
        if after is not None:
            lookup = TupleLessThan if sort.descending else TupleGreaterThan
            files = files.filter(lookup(Tuple(key, F("id")), after))
        if sort.descending:
            return files.order_by(key.desc(), "-id")
        return files.order_by(key.asc(), "id")

    def in_folder(self, folder: str, sort: Sort, after: Position | None = None) -> Self:
        """The files that are directly in a folder, in an order, as ``sorted`` has them.

        For a simple query by folder, PostgreSQL might read all files of the owner from the newest on, and pick the
        files of the folder. If the newer half of the owner's files is in other folders, this reads half of all files.
        So the query gives the folder as a range, and sorts by the folder first: only the index ``file_in_folder`` has
        this order.

        Args:
            folder: the folder with a slash at its end, or an empty string.
            sort: the order of the files.
            after: the position of the last file before those that are wanted.
        """
        files = self.alias(folder=FOLDER)
        if SORT_KEYS[sort.key] is not None:
            return files.filter(folder=folder).sorted(sort, after)
        files = files.filter(folder__gte=folder, folder__lte=folder).sorted(sort, after)
        return files.order_by(FOLDER.desc() if sort.descending else FOLDER.asc(), *files.query.order_by)


class File(models.Model):
    """One owner's named entry for a content. An owner may have several names for the same bytes."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="files", db_index=False)
    content = models.ForeignKey(Content, models.PROTECT, related_name="files")
    name = models.CharField(max_length=MAX_LENGTH)
    size = models.BigIntegerField(editable=False, help_text="bytes, as in the content; files are sorted by it")
    replication_factor = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    modified_at = models.DateTimeField(db_default=Now(), help_text="when its name or factor was changed last")

    class Meta:
        constraints = (models.UniqueConstraint(fields=["owner", "content", "name"], name="file_one_of_each_name"),)
        indexes = (
            models.Index(fields=["owner", "id"], name="file_of_owner"),
            models.Index("owner", BY_CODE_POINT, "id", name="file_by_name"),
            models.Index("owner", "size", "id", name="file_by_size"),
            models.Index("owner", FOLDER, "id", name="file_in_folder"),
            models.Index("owner", FOLDER, BY_CODE_POINT, "id", name="file_in_folder_by_name"),
        )
        ordering = ("id",)

    objects = FileQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @classmethod
    def count_ready(cls, owner: User | None = None) -> int:
        """The number of files whose content is ready: the owner's files, or everybody's if ``owner`` is None.

        One statement subtracts the files under ingest from the tally of all files, so both figures are of one moment.
        The files under ingest are counted row by row, but there are few such files.
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
        """Delete this file, and its content if nothing refers to that now; return the row ids of the content's chunks.

        The caller holds the lock of the content's row. The caller collects the returned ids of its whole transaction,
        and condemns these chunks in one statement (RACES 6).
        """
        content_id = self.content_id
        self.delete()
        return Content.objects.remove_unreferenced([content_id])
