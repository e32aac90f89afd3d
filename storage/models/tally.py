from __future__ import annotations

from django.db import connection, models

FOLD_FROM = 1000  # rows from which it is worth while: as many are read in less than a millisecond


class Tally(models.Model):
    """Totals that PostgreSQL keeps itself (ADR 12): each row is what one statement added; a total is their sum.

    Triggers write the rows (migration 0005), in the transaction of what they count and at the end of a table that
    nobody updates: nothing is counted that was rolled back, and nobody waits for another's commit.
    """

    class What(models.TextChoices):
        """What is counted, and by which key."""

        FILES = "files", "files, by the id of their owner"
        CHUNKS = "chunks", "chunks, condemned ones included; the key is 0"
        WANTED = "wanted", "chunks in manifests, by the replicas that their content should have"

    what = models.CharField(max_length=8, choices=What)
    key = models.BigIntegerField()
    amount = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.what} {self.key}: {self.amount:+d}"

    @classmethod
    def totals(cls, what: What) -> dict[int, int]:
        """Key → total, where that is not 0."""
        sums = cls.objects.filter(what=what).values_list("key").annotate(total=models.Sum("amount"))
        return {key: int(total) for key, total in sums if total}

    @classmethod
    def fold(cls) -> None:
        """Put sums in the place of many rows, in one statement: whoever reads meanwhile sees either.

        What another fold has taken is gone when this one comes to it, and is left out of the sums.
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
