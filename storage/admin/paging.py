"""Pages of tables that may have millions of rows."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

from django.core.paginator import Paginator
from django.db.models import Model, QuerySet

M = TypeVar("M", bound=Model)

COUNTED = 10_000  # rows at most: a hundred pages


class PatientPaginator(Paginator[M]):
    """Pages a table whose rows are not counted at each look: of what was filtered, at most so many as anybody reads."""

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        assert isinstance(rows, QuerySet)
        return self.count_all() if not rows.query.where else self.count_some(rows)

    def count_all(self) -> int:
        """How many rows there are when nothing was filtered."""
        assert isinstance(self.object_list, QuerySet)
        return self.count_some(self.object_list)

    @staticmethod
    def count_some(rows: QuerySet[M]) -> int:
        return rows.order_by().values("pk")[:COUNTED].count()
