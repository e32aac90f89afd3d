"""Pages of tables that may have millions of rows."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

from django.core.paginator import Paginator
from django.db.models import Model, QuerySet

M = TypeVar("M", bound=Model)

COUNTED = 10_000  # At most this many rows, a hundred pages, are counted.


class PatientPaginator(Paginator[M]):
    """A paginator that does not count all rows of a table for each page.

    The paginator counts at most ``COUNTED`` rows, because nobody reads more. A subclass may know the number of all
    rows.
    """

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        assert isinstance(rows, QuerySet)
        return self.count_all() if not rows.query.where else self.count_some(rows)

    def count_all(self) -> int:
        """The number of rows if no filter is set."""
        assert isinstance(self.object_list, QuerySet)
        return self.count_some(self.object_list)

    @staticmethod
    def count_some(rows: QuerySet[M]) -> int:
        return rows.order_by().values("pk")[:COUNTED].count()
