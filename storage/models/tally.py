from __future__ import annotations

from django.db import connection, models

FOLD_FROM = 1000  # If there are fewer rows, ``fold`` leaves them: to add them up takes less than a millisecond.


class Tally(models.Model):
    """Totals that PostgreSQL keeps itself (ADR 12): a row is the amount that one statement added; a total is a sum.

    Triggers insert the rows (migrations 0005, 0019, 0025), in the transaction whose changes they count. A change that
    is rolled back is therefore not counted. Rows are never updated, only added, and at times replaced by their sums
    (``fold``). So no transaction waits until another one commits.
    """

    class What(models.TextChoices):
        """The totals that are kept. Each label says what is counted, and what ``key`` means."""

        FILES = "files", "files, by the id of their owner"
        BYTES = "bytes", "bytes of files, by the id of their owner"
        OBJECTS = "objects", "objects, by the id of their bucket"
        PARTS = "parts", "bytes of parts, by the id of their bucket"
        CHUNKS = "chunks", "chunks, condemned ones included; the key is 0"
        WANTED = "wanted", "chunks in manifests, by the replicas that their content should have"

    what = models.CharField(max_length=8, choices=What)
    key = models.BigIntegerField()
    amount = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.what} {self.key}: {self.amount:+d}"

    @classmethod
    def totals(cls, what: What) -> dict[int, int]:
        """``key`` of the rows → total. A total of 0 is left out."""
        sums = cls.objects.filter(what=what).values_list("key").annotate(total=models.Sum("amount"))
        return {key: int(total) for key, total in sums if total}

    @classmethod
    def fold(cls) -> None:
        """Replace many rows by their sums in one statement: a concurrent reader sees either the rows or the sums.

        Two folds at once are safe: each row is deleted, and so summed, by exactly one of them.
        """
        if cls.objects.count() < FOLD_FROM:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                """
                WITH taken AS (DELETE FROM storage_tally RETURNING what, key, amount)
                INSERT INTO storage_tally (what, key, amount)
                SELECT what, key, sum(amount) FROM taken GROUP BY what, key HAVING sum(amount) <> 0
                """
            )
