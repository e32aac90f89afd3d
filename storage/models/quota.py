from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from django.conf import settings
from django.db import models

from storage.exceptions import ByteQuotaExceeded, FileQuotaExceeded
from storage.models.statements.prepared import rows

_SUMS = """
    coalesce(sum(amount) FILTER (WHERE what IN ('files', 'objects')), 0)::bigint,
    coalesce(sum(amount) FILTER (WHERE what IN ('bytes', 'parts')), 0)::bigint
"""
_USAGE_BY_OWNER = f"""
    SELECT owner, {_SUMS}
      FROM (SELECT key AS owner, what, amount FROM storage_tally WHERE what IN ('files', 'bytes')
             UNION ALL
            SELECT b.owner_id, what, amount FROM storage_tally t JOIN storage_bucket b ON b.id = t.key
             WHERE what IN ('objects', 'parts')) AS used
     GROUP BY owner
"""  # noqa: S608  constants
# The tallies have no index, because many rows are added and soon folded. This statement reads them once.
_USAGE_OF = f"""
    SELECT {_SUMS} FROM storage_tally
     WHERE what IN ('files', 'bytes') AND key = %(owner)s
        OR what IN ('objects', 'parts') AND key IN (SELECT id FROM storage_bucket WHERE owner_id = %(owner)s)
"""  # noqa: S608  constants
_LIMITS = "SELECT max_bytes, max_files FROM storage_quota WHERE owner_id = %s"
_LARGEST = "SELECT max(size) FROM storage_file WHERE owner_id = %(owner)s"
_NAMED = 'AND name COLLATE "C" = %(name)s'


def _standing(largest: str) -> str:
    """One statement for all that is read for each upload of an owner with a quota."""
    return f"""
        SELECT max_bytes, max_files, files, size, ({largest})
          FROM storage_quota, ({_USAGE_OF}) AS used (files, size) WHERE owner_id = %(owner)s
    """  # noqa: S608


_STANDING, _STANDING_OF_NAME = _standing(_LARGEST), _standing(f"{_LARGEST} {_NAMED}")


@dataclass(frozen=True)
class Usage:
    """What an owner has stored, including files and objects under ingest.

    Each file and each part counts once, however many copies its chunks have. Parts of multipart uploads that are not
    completed count too.
    """

    files: int
    bytes: int

    @classmethod
    def of(cls, owner_id: int) -> Usage:
        """Read the tallies (ADR 12): the usage is never kept as a counter of its own."""
        ((files, size),) = rows(_USAGE_OF, {"owner": owner_id})
        return cls(files, size)

    @classmethod
    def by_owner(cls) -> dict[int, Usage]:
        """Owner → usage. Owners who have never stored anything are left out."""
        return {owner_id: cls(files, size) for owner_id, files, size in rows(_USAGE_BY_OWNER, [])}

    def without(self, size: int, *, files: int = 0) -> Usage:
        """The usage without some bytes and files, which are about to go or have just come."""
        return Usage(self.files - files, self.bytes - size)


class Quota(models.Model):
    """The most that an owner may store. An owner without a row has no limit (ADR 22)."""

    owner = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="quota")
    max_bytes = models.PositiveBigIntegerField(
        "bytes", null=True, blank=True, help_text="empty: as many as there is room for"
    )
    max_files = models.PositiveBigIntegerField("files", null=True, blank=True, help_text="empty: any number")

    class Meta:
        ordering = ("owner",)

    def __str__(self) -> str:
        return f"quota of {self.owner}"

    @classmethod
    def find(cls, owner_id: int) -> Quota | None:
        """The owner's quota; None if the owner has no limit."""
        return cls._read(owner_id, _LIMITS)

    @classmethod
    def lock(cls, owner_id: int) -> Quota | None:
        """Lock the owner's quota until the transaction ends, and return it; None if the owner has no limit.

        The statements that follow in the transaction see what the last holder of the lock has committed. The statement
        that waits for the lock does not see this commit, because its snapshot is older.
        """
        return cls._read(owner_id, _LIMITS + " FOR UPDATE")

    @classmethod
    def _read(cls, owner_id: int, statement: str) -> Quota | None:
        for max_bytes, max_files in rows(statement, [owner_id]):
            return cls(owner_id=owner_id, max_bytes=max_bytes, max_files=max_files)
        return None

    @staticmethod
    def owners() -> frozenset[int]:
        """The row ids of all owners who have a quota."""
        return frozenset(owner_id for (owner_id,) in rows("SELECT owner_id FROM storage_quota", []))

    @classmethod
    def standing(cls, owner_id: int, name: str | None) -> Standing | None:
        """Read the quota, the usage and the largest file of an owner, in one statement.

        Args:
            owner_id: the owner.
            name: a name of a file; None for all names.

        Returns:
            A tuple: the quota, the usage, and the size of the owner's largest file of this name. The size is None if
            there is no such file. If the owner has no limit, None is returned instead of the tuple.
        """
        statement = _STANDING if name is None else _STANDING_OF_NAME
        for max_bytes, max_files, files, size, largest in rows(statement, {"owner": owner_id, "name": name}):
            quota = cls(owner_id=owner_id, max_bytes=max_bytes, max_files=max_files)
            return quota, Usage(files, size), None if largest is None else int(largest)
        return None

    def require(self, used: Usage, size: int, *, files: int = 1, so_far: bool = False) -> None:
        """Refuse a new file or object that does not fit into the quota.

        Args:
            used: what the owner has stored without the new file.
            size: the size of the new file in bytes.
            files: the number of new files: 0 if the bytes belong to a file or object that is there already.
            so_far: True if the file may turn out to be larger than ``size``, because its body still arrives.

        Raises:
            FileQuotaExceeded: the owner has as many files as the quota allows.
            ByteQuotaExceeded: the file is larger than what is left of the quota.
        """
        if files and self.max_files is not None and used.files + files > self.max_files:
            raise FileQuotaExceeded(
                f"the quota is {self.max_files} files, {used.files} are stored, and one more was asked for"
            )
        if self.max_bytes is not None and used.bytes + size > self.max_bytes:
            asked = f"at least {size}" if so_far else str(size)
            raise ByteQuotaExceeded(
                f"the quota is {self.max_bytes} bytes, {used.bytes} are used, and {asked} more were asked for"
            )


Standing: TypeAlias = tuple[Quota, Usage, int | None]
"""The quota of an owner, the usage, and the size of the owner's largest file of a name (None if there is no file)."""
