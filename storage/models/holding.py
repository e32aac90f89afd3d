from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet
from django.db.models.functions import Now

from storage.models.content import Content
from storage.models.file import File
from storage.models.part import Part


@dataclass
class Holding:
    """A content that an owner has: as files, as parts of objects, or as both.

    Attributes:
        owner_id: the row id of the owner.
        content: the content.
        name: the name of the newest file; the key of the newest object if there is no file.
        replication_factor: the number of replicas that this file or object wants.
    """

    owner_id: int
    content: Content
    name: str
    replication_factor: int

    @classmethod
    def of_file(cls, file: File) -> Holding:
        return cls(file.owner_id, file.content, file.name, file.replication_factor)

    @classmethod
    def find(cls, owner_id: int, file_hash: str) -> Holding | None:
        """The owner's content of this hash; None if neither a file nor a part of the owner refers to it."""
        files = File.objects.select_related("content").filter(owner=owner_id, content__file_hash=file_hash)
        if (file := files.order_by("-id").first()) is not None:
            return cls.of_file(file)
        parts = Part.objects.select_related("content", "object", "multipart")
        part = parts.filter(bucket__owner=owner_id, content__file_hash=file_hash).order_by("-id").first()
        if part is None:
            return None
        place = part.object or part.multipart
        return cls(owner_id, part.content, place.key if place else "", part.replication_factor)

    @property
    def files(self) -> QuerySet[File]:
        """All files of the owner on this content."""
        return File.objects.filter(owner=self.owner_id, content=self.content)

    @property
    def parts(self) -> QuerySet[Part]:
        """All parts of the owner's buckets on this content."""
        return Part.objects.filter(bucket__owner=self.owner_id, content=self.content)

    def want(self, factor: int) -> None:
        """Give all files and parts of the owner on this content this factor, because the largest factor is the target.

        The caller has locked the content.
        """
        self.files.exclude(replication_factor=factor).update(replication_factor=factor, modified_at=Now())
        changed = self.parts.exclude(replication_factor=factor).values_list("pk", flat=True)
        Part.objects.filter(pk__in=list(changed)).update(replication_factor=factor)
        self.replication_factor = factor
